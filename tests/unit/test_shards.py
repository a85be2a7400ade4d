"""Rows are dealt out to shards and put together by id; whatever does not fit is named."""

import argparse

import base_losses
import losses
import polars as pl
import pytest
import scores
from hypothesis import given
from hypothesis import strategies as st

from middo import shards
from middo.program import UserError
from middo.ratings import RATINGS
from middo.rows import write_dataset


@given(st.lists(st.integers(), max_size=50), st.integers(1, 60))
def test_every_row_is_in_one_shard_and_shards_are_alike(rows, count):
    parts = [shards.Shard(number, count).of(rows) for number in range(1, count + 1)]
    assert sorted(row for part in parts for row in part) == sorted(rows)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("text", ["0-of-2", "3-of-2", "1", "1-of", "-1-of-2", "1-of-2x", "01-of-02"])
def test_only_shards_are_shards(text):
    assert shards.parse("2-of-7") == (2, 7)
    with pytest.raises(argparse.ArgumentTypeError):
        shards.parse(text)


@pytest.fixture
def made(tmp_path):
    """A dataset of five rows a to e, and a function that writes and runs."""
    texts = {"instruction": "x", "input": "", "output": "y", "origin": "seed", "parents": [], "iteration": 0}
    write_dataset(tmp_path / "dataset.jsonl", [{"id": i, **texts} for i in "abcde"])

    def write(name, ids, **columns):
        path = tmp_path / f"{name}.parquet"
        types = {"id": pl.String, "tokens": pl.Int32, "loss_pre": pl.Float32, "loss_post": pl.Float32}
        types |= {"embedding": pl.List(pl.Float32)} | dict.fromkeys([*RATINGS, "quality"], pl.Float32)
        data = {"id": list(ids), **columns}
        pl.DataFrame(data, schema={column: types[column] for column in data}).write_parquet(path)
        return path

    def run(program, *options):
        arguments = ["--dataset", tmp_path / "dataset.jsonl", *options]
        program.main(program.arguments().parse_args(list(map(str, arguments))))

    return tmp_path, write, run


def test_known_rows_come_from_the_predecessor_and_the_others_from_shards(made):
    folder, write, run = made
    # z was replaced since; of c the predecessor knows the loss, and no shard has measured it again.
    known = write("known", "zca", tokens=[9, 3, 1], loss_pre=[9.0, 3.0, 1.0])
    parts = [write("1", "be", tokens=[2, 5], loss_pre=[2.0, None]), write("2", "d", tokens=[4], loss_pre=[4.0])]
    run(base_losses, "--known", known, "--shards", *parts, "--out", folder / "out.parquet")
    table = pl.read_parquet(folder / "out.parquet")
    assert table.rows() == [("a", 1, 1.0), ("b", 2, 2.0), ("c", 3, 3.0), ("d", 4, 4.0), ("e", 5, None)]


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ("d", "Missing: e"),
        ("dex", "Not asked for: x"),
        ("dea", r"5 rows were given and 6 came back\..* More than once: a\."),
    ],
)
def test_missing_foreign_and_doubled_rows_are_named(made, second, said):
    folder, write, run = made
    parts = [
        write(str(n), ids, tokens=[1] * len(ids), loss_pre=[1.0] * len(ids)) for n, ids in enumerate(["abc", second])
    ]
    with pytest.raises(UserError, match=said):
        run(base_losses, "--shards", *parts, "--out", folder / "out.parquet")
    assert not (folder / "out.parquet").exists()


def test_losses_join_by_id_and_rows_without_a_vector_are_zero(made):
    folder, write, run = made
    base = write("base", "edcba", tokens=[5, 4, 3, 2, 1], loss_pre=[5.0, 4.0, 3.0, 2.0, 1.0])
    nothing = dict(tokens=[], loss_post=[], embedding=[])
    parts = [
        write("1", "ace", tokens=[1, 3, 5], loss_post=[0.1, 0.3, None], embedding=[[1.0, 0.0], [0.0, 1.0], None]),
        write("2", "bd", tokens=[2, 4], loss_post=[0.2, 0.4], embedding=[[0.6, 0.8], [0.8, 0.6]]),
        write("3", "", **nothing),
    ]
    outputs = ["--losses", folder / "losses.parquet", "--embeddings", folder / "embeddings.npy"]
    run(losses, "--shards", *parts, "--base-losses", base, *outputs)
    table = pl.read_parquet(folder / "losses.parquet")
    assert table["id"].to_list() == list("abcde") and table["loss_pre"].to_list() == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert table["loss_post"].to_list() == [pytest.approx(value) for value in (0.1, 0.2, 0.3, 0.4)] + [None]
    import numpy as np

    expected = [[1, 0], [0.6, 0.8], [0, 1], [0.8, 0.6], [0, 0]]
    np.testing.assert_array_equal(np.load(folder / "embeddings.npy"), np.array(expected, dtype=np.float32))

    other = write("other", "edcba", tokens=[5, 4, 3, 2, 7], loss_pre=[1.0] * 5)
    with pytest.raises(UserError, match="1 rows have other response tokens under the base model .* a"):
        run(losses, "--shards", *parts, "--base-losses", other, *outputs)
    empty = write("none", "abcde", tokens=[1, 2, 3, 4, 5], loss_post=[0.1] * 5, embedding=[None] * 5)
    with pytest.raises(UserError, match="can encode none of its rows"):
        run(losses, "--shards", empty, "--base-losses", base, *outputs)


def test_shards_of_another_form_are_named(made):
    folder, write, run = made
    parts = [write("1", "abc", tokens=[1, 2, 3], loss_pre=[1.0] * 3), write("2", "de", tokens=[4, 5])]
    with pytest.raises(UserError, match=r"2\.parquet: other columns than in .*1\.parquet"):
        run(base_losses, "--shards", *parts, "--out", folder / "out.parquet")


def test_scores_without_a_signal_are_told_over_all_shards(made, capsys):
    folder, write, run = made

    def ratings(values):
        return {name: values for name in [*RATINGS, "quality"]}

    parts = [write("1", "ab", **ratings([5.0, 5.0])), write("2", "cde", **ratings([5.0, 5.0, None]))]
    run(scores, "--shards", *parts, "--out", folder / "scores.parquet")
    said = capsys.readouterr().err
    assert "6 ratings of 1 rows are missing" in said and "quality hardly differs between rows" in said
    table = pl.read_parquet(folder / "scores.parquet")
    assert table["quality"].to_list() == [5.0, 5.0, 5.0, 5.0, None]
    assert table["steering"].to_list() == [False] * 5 and table.columns == ["id", *RATINGS, "quality", "steering"]
