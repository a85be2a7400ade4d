"""Rows in shards: how they are dealt out, and how what was measured of them is put together again, by id."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from middo.program import UserError
from middo.rows import check_same_ids


class Shard(NamedTuple):
    """The `number`-th of `count` shards, counted from 1; written `2-of-7`, as Snakemake writes it."""

    number: int
    count: int

    def of(self, rows: Sequence[Any]) -> Sequence[Any]:
        """Every `count`-th row: rows that were born in the same iteration are spread over all shards."""
        return rows[self.number - 1 :: self.count]


def parse(text: str) -> Shard:
    """The shard that `text` names. Raises argparse.ArgumentTypeError for anything else."""
    found = re.fullmatch(r"([1-9]\d*)-of-([1-9]\d*)", text)
    if not found or int(found[1]) > int(found[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is no shard; 2-of-7 is.")
    return Shard(int(found[1]), int(found[2]))


def add_argument(made: argparse.ArgumentParser) -> None:
    """Add --shard, by default the only one."""
    made.add_argument("--shard", type=parse, default=Shard(1, 1), help="which part of the rows, for instance 2-of-7")


def gathered(paths: Sequence[Path], ids: Sequence[str], what: str) -> Any:
    """The shards' tables as one polars table with the rows `ids`, in their order.

    Raises UserError where these are not the rows that the shards hold, each once.
    """
    import polars as pl

    tables = [pl.read_parquet(path) for path in paths]
    other = [str(path) for path, table in zip(paths, tables, strict=True) if table.schema != tables[0].schema]
    if other:
        raise UserError(f"{', '.join(other)}: other columns than in {paths[0]}. Remove the shards and start again.")
    table = pl.concat(tables)
    check_same_ids(ids, table["id"].to_list(), what)
    return pl.DataFrame({"id": ids}, schema={"id": pl.String}).join(table, on="id", how="left", maintain_order="left")
