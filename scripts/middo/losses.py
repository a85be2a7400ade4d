"""The table of losses under the base model."""

from pathlib import Path
from typing import Any

from middo.program import UserError


def read_base_losses(path: Path | None) -> Any:
    """A polars table with id, tokens, loss_pre; an empty one without a file.

    Raises UserError for a file that is not such a table.
    """
    import polars as pl

    if path is None:
        return pl.DataFrame(schema={"id": pl.String, "tokens": pl.Int32, "loss_pre": pl.Float32})
    table = pl.read_parquet(path)
    if table.columns != ["id", "tokens", "loss_pre"]:
        raise UserError(f"{path}: the columns are {', '.join(table.columns)}, not id, tokens, loss_pre.")
    return table
