"""Lift, interval and AUROC of the demo's detection against counts by hand and plain loops."""

import math

import polars as pl
import pytest
from demo.detection import auroc, faults_by_id, interval, measure
from hypothesis import given
from hypothesis import strategies as st

from middo.program import UserError


def test_lift_is_what_one_counts():
    ids = [f"r{n}" for n in range(20)]
    faults = {"r0": "hard", "r1": "hard", "r2": "wrong", "r3": "unclear", "r4": "rare"}
    selection = pl.DataFrame(
        {
            "id": ids,
            "hard": [n in (0, 5) for n in range(20)],
            "low": [n in (2, 3, 6, 7) for n in range(20)],
            "sparse": [False] * 20,
            "loss_pre": [9.0, 2.0, *[1.0] * 18],
            "loss_post": [9.0, 2.0, *[1.0] * 18],
            "diversity": [0.5] * 20,
            "quality": [None, 8.0, 1.0, 9.0, *[8.0] * 16],
        }
    )
    found = measure(selection, faults)
    assert set(found) == {"complexity", "quality"}
    assert found["complexity"]["lift"] == pytest.approx((1 / 2) / (2 / 20))
    assert found["quality"]["lift"] == pytest.approx((2 / 4) / (2 / 20))
    assert found["complexity"]["auroc"] == 1.0
    # One of the two is lower than all 17 others that have a rating, the other higher than all.
    assert found["quality"]["auroc"] == pytest.approx(0.5)


@given(st.lists(st.tuples(st.none() | st.integers(-3, 3), st.booleans()), min_size=1, max_size=30))
def test_auroc_counts_pairs(rows):
    pairs = [
        (1.0 if a > b else 0.5 if a == b else 0.0)
        for a, positive in rows
        for b, other in rows
        if positive and not other and a is not None and b is not None
    ]
    values = pl.Series([value for value, _ in rows], dtype=pl.Float64)
    found = auroc(values, pl.Series([positive for _, positive in rows]))
    assert found == (pytest.approx(math.fsum(pairs) / len(pairs)) if pairs else None)


@given(st.integers(1, 200), st.data())
def test_the_interval_holds_the_shares_that_a_test_would_not_refuse(drawn, data):
    hits = data.draw(st.integers(0, drawn))
    for end in interval(hits, drawn):
        # Wilson's ends are the shares p with |hits/drawn - p| = z * sqrt(p (1 - p) / drawn).
        assert abs(hits / drawn - end) == pytest.approx(1.959964 * (end * (1 - end) / drawn) ** 0.5, abs=1e-6)


def test_a_list_of_other_rows_is_refused():
    seed = [{"id": "a", "instruction": "Q", "input": ""}]
    assert faults_by_id([{"row": 0, "instruction": "Q", "input": "", "fault": "hard"}], seed) == {"a": "hard"}
    with pytest.raises(UserError, match="row 0 of the seed is not the one"):
        faults_by_id([{"row": 0, "instruction": "R", "input": "", "fault": "hard"}], seed)
