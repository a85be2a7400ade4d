"""What the teacher is asked to do with a selected row (method section 1)."""

import polars as pl

# Origin of the new row by the column that selects its parent, in the order in which children of one row stand.
ORIGIN = {"hard": "simplified", "low": "improved", "sparse": "extended"}
REPLACING = ("simplified", "improved")


def planned_actions(selection: pl.DataFrame, overlap: str) -> list[tuple[str, str]]:
    """(id, origin) of every new row to make, in dataset order.

    `selection` has the columns id, hard, low, sparse. A row both hard and low yields a simplified and an improved row
    with overlap `both`, only the simplified one with `complexity_first`.
    """
    actions = []
    for row in selection.select("id", *ORIGIN).iter_rows(named=True):
        chosen = [origin for column, origin in ORIGIN.items() if row[column]]
        if overlap == "complexity_first" and "simplified" in chosen:
            chosen = [origin for origin in chosen if origin != "improved"]
        actions += [(row["id"], origin) for origin in chosen]
    return actions
