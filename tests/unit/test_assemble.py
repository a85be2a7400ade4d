"""The merge of a version: counts of method section 1, both overlap modes, rejected rows, broken hand-overs."""

import polars as pl
import pytest
from assemble import check_refined, merge, read_dropped
from hypothesis import given
from hypothesis import strategies as st

from middo.actions import planned_actions
from middo.files import write_jsonl
from middo.program import UserError
from middo.rows import with_ids

flags = st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=30)


def seed_rows(count):
    texts = ({"instruction": f"q{i % 7}", "input": "", "output": f"a{i % 5}"} for i in range(count))
    return with_ids({**t, "origin": "seed", "parents": [], "iteration": 0} for t in texts)


def refined_rows(actions, iteration=1):
    return with_ids(
        {"instruction": "new", "input": "", "output": "x", "origin": o, "parents": [i], "iteration": iteration}
        for i, o in actions
    )


def selection_of(rows, chosen):
    hard, sparse, low = (list(column) for column in zip(*chosen, strict=True))
    return pl.DataFrame({"id": [r["id"] for r in rows], "hard": hard, "sparse": sparse, "low": low})


@given(chosen=flags, overlap=st.sampled_from(["both", "complexity_first"]))
def test_counts_follow_the_formula(chosen, overlap):
    rows = seed_rows(len(chosen))
    actions = planned_actions(selection_of(rows, chosen), overlap)
    merged = merge(rows, refined_rows(actions))
    hard, sparse, low = (sum(column) for column in zip(*chosen, strict=True))
    both = sum(h and w for h, _, w in chosen)
    # Replaced rows are counted once, their children per reason (Table 6: a row both hard and low adds one row).
    expected = len(rows) + sparse + (both if overlap == "both" else 0)
    assert len(merged) == expected
    assert len(actions) == hard + sparse + low - (0 if overlap == "both" else both)
    kept = [row for row, (h, _, w) in zip(rows, chosen, strict=True) if not h and not w]
    assert merged[: len(kept)] == kept
    assert len({row["id"] for row in merged}) == len(merged)


def test_a_row_whose_rewrites_were_all_rejected_stays():
    rows = seed_rows(3)
    refined = refined_rows([(rows[1]["id"], "improved")])
    merged = merge(rows, refined)
    assert merged == [rows[0], rows[2], *refined]
    assert merge(rows, refined_rows([(rows[0]["id"], "extended")]))[:3] == rows


def test_what_refining_hands_over_is_checked():
    rows = seed_rows(2)
    actions = [(rows[0]["id"], "simplified"), (rows[1]["id"], "extended")]
    refined = refined_rows(actions[:1])
    check_refined(actions, refined, [{"id": rows[1]["id"], "origin": "extended"}], 1)
    with pytest.raises(UserError, match=f"Missing: {rows[1]['id']} extended"):
        check_refined(actions, refined, [], 1)
    with pytest.raises(UserError, match="not what its id says"):
        check_refined(actions[:1], [{**refined[0], "output": "changed"}], [], 1)


def test_a_new_row_that_a_list_names_is_left_out_and_its_parent_stays(tmp_path):
    rows = seed_rows(3)
    refined = refined_rows([(rows[0]["id"], "simplified"), (rows[1]["id"], "improved"), (rows[2]["id"], "extended")])
    hits = [(refined[0], "near_copy"), (refined[0], "leak"), (refined[2], "leak")]
    lists = [tmp_path / f"{kind}.jsonl" for kind in ("near_copy", "leak")]
    for path in lists:
        write_jsonl(path, [{"id": row["id"], "kind": kind, "with": "x"} for row, kind in hits if kind == path.stem])
    dropped = read_dropped(lists, refined)
    assert dropped == {refined[0]["id"]: "near_copy", refined[2]["id"]: "leak"}
    assert merge(rows, [row for row in refined if row["id"] not in dropped]) == [rows[0], rows[2], refined[1]]
    assert read_dropped([], refined) == {}
    with pytest.raises(UserError, match=f"{refined[2]['id']} is no row of refined.jsonl"):
        read_dropped(lists, refined[:2])
