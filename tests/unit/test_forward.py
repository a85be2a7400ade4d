"""Losses and embeddings against an independent computation: every row alone, through plain transformers."""

import base_losses
import losses
import numpy as np
import polars as pl
import pytest
import select_rows
from conftest import ROOT
from heavy import tiny, train_python  # noqa: F401
from hypothesis import given
from hypothesis import strategies as st

from middo.config import load_yaml
from middo.files import read_jsonl
from middo.forward import batches_of
from middo.llamafactory import IGNORE, EncodedRow, _prompt_span


@pytest.fixture(scope="module")
def checks(tiny, tmp_path_factory):  # noqa: F811
    """The arrays that tests/forward_checks.py has measured."""
    out = tmp_path_factory.mktemp("forward") / "checks.npz"
    done = train_python("tests/forward_checks.py", tiny, out)
    assert done.returncode == 0, done.stdout
    return dict(np.load(out)) | {"folder": out.parent}


def test_tokens_are_those_of_the_template(checks):
    assert checks["same_ids"][~checks["truncated"]].all() and 20 < (~checks["truncated"]).sum() < 239
    assert not checks["same_ids"][checks["truncated"]].any()
    assert checks["lengths"].max() == 64


def test_the_prompt_span_holds_the_users_text_alone(checks):
    whole = ~checks["truncated"]
    assert (checks["spans"][whole] == checks["spans_by_hand"][whole]).all()


@pytest.mark.parametrize("budget", [256, 4096])
def test_losses_equal_each_rows_own(checks, budget):
    losses, reference = checks[f"losses_{budget}"], checks["reference"]
    assert losses.dtype == np.float32
    np.testing.assert_allclose(losses[:-1], reference[:-1], rtol=1e-5)
    assert np.isnan(losses[-1]) and np.isnan(reference[-1]), "the last row has no label"


@pytest.mark.parametrize("budget", [256, 4096])
def test_embeddings_equal_those_of_the_prompt_alone(checks, budget):
    embeddings = checks[f"embeddings_{budget}"]
    assert embeddings.dtype == np.float32 and embeddings.shape == (240, 64)
    np.testing.assert_allclose(embeddings, checks["pooled"], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)


def test_the_budget_changes_nothing(checks):
    np.testing.assert_allclose(checks["losses_256"], checks["losses_4096"], rtol=1e-5)
    np.testing.assert_allclose(checks["embeddings_256"], checks["embeddings_4096"], atol=1e-5)


def test_known_rows_are_not_run(checks):
    np.testing.assert_allclose(checks["known_loss_pre"][:-1], checks["reference"][200:-1], rtol=1e-5)
    assert checks["new_rows"] == 39, "240 rows less 200 known less one without a label"


def test_an_interrupted_measurement_goes_on_with_the_same_bytes(checks):
    assert checks["same_bytes"]
    plain, broken = checks["batches"]
    assert plain < broken < plain + 20, "finished parts were not run again, unfinished ones were"
    assert not checks["work_left"]


def gather(program, *options):
    program.main(program.arguments().parse_args(list(map(str, options))))


@pytest.fixture(scope="module")
def gathered(checks, tiny):  # noqa: F811
    """What the gathering programs make of 1, 2 and 7 shards: losses.parquet and embeddings.npy, by number of shards."""
    found = {}
    dataset = ["--dataset", tiny / "dataset.jsonl"]
    for count in (1, 2, 7):
        folder = checks["folder"] / str(count)
        names = {
            kind: [folder / f"{kind}_{n}.parquet" for n in range(1, count + 1)] for kind in ("base_losses", "losses")
        }
        base, out = folder / "base_losses.parquet", folder / "losses.parquet"
        # Which shard comes first is of no account.
        gather(base_losses, *dataset, "--shards", *reversed(names["base_losses"]), "--out", base)
        written = ["--losses", out, "--embeddings", folder / "embeddings.npy"]
        gather(losses, *dataset, "--shards", *names["losses"], "--base-losses", base, *written)
        found[count] = pl.read_parquet(out), np.load(folder / "embeddings.npy")
    return found


@pytest.mark.parametrize("count", [1, 2, 7])
def test_shards_are_gathered_by_id_in_dataset_order(checks, gathered, tiny, count):  # noqa: F811
    table, embeddings = gathered[count]
    assert table["id"].to_list() == [row["id"] for row in read_jsonl(tiny / "dataset.jsonl")]
    assert table.dtypes == [pl.String, pl.Int32, pl.Float32, pl.Float32]
    assert [table[name].null_count() for name in ("tokens", "loss_pre", "loss_post")] == [0, 1, 1]
    assert table["tokens"][-1] == 0
    # The base model stands in for the tuned one here, so both losses are the same; other batches, other roundings.
    for name in ("loss_pre", "loss_post"):
        np.testing.assert_allclose(table[name][:-1].to_numpy(), checks["reference"][:-1], rtol=1e-5)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(embeddings, checks["pooled"], atol=1e-6)


def test_selections_do_not_depend_on_shards(gathered, tiny, tmp_path):  # noqa: F811
    ids = [row["id"] for row in read_jsonl(tiny / "dataset.jsonl")]
    quality = np.random.default_rng(3).normal(5, 1, len(ids)).astype(np.float32)
    pl.DataFrame({"id": ids, "quality": quality}).write_parquet(tmp_path / "scores.parquet")
    chosen = []
    for count, (table, embeddings) in gathered.items():
        table.write_parquet(tmp_path / "losses.parquet")
        similarity = np.sort(embeddings @ embeddings.T, axis=1)[:, -3:-1].mean(axis=1)
        pl.DataFrame({"id": ids, "diversity": similarity}).write_parquet(tmp_path / "neighbors.parquet")
        signals = [f"--{name}={tmp_path / name}.parquet" for name in ("losses", "neighbors", "scores")]
        out = tmp_path / f"{count}.parquet"
        axes = [
            "--axes",
            "complexity",
            "diversity",
            "quality",
            "--complexity",
            "0.5",
            "--diversity=-0.3",
            "--quality=-1",
        ]
        written = ["--selection", out, "--report", tmp_path / "selection.json"]
        gather(select_rows, "--dataset", tiny / "dataset.jsonl", *signals, *axes, *written)
        chosen.append(pl.read_parquet(out).select("id", "hard", "sparse", "low"))
    assert all(chosen[0][axis].sum() >= 10 for axis in ("hard", "sparse", "low"))
    assert chosen[0].equals(chosen[1]) and chosen[0].equals(chosen[2])


def test_a_shard_without_rows_is_an_empty_table(checks):
    table = pl.read_parquet(checks["folder"] / "500" / "base_losses_500.parquet")
    assert table.shape == (0, 3) and table.columns == ["id", "tokens", "loss_pre"]


def test_the_list_of_options_is_that_of_the_installed_llamafactory(checks):
    options = load_yaml(ROOT / "config" / "llamafactory_options.yaml")
    listed = [*options["set_by_the_workflow"], *options["passed_through"]]
    assert sorted(listed) == checks["parser"].tolist()


def row(length: int) -> EncodedRow:
    return EncodedRow("x", [5] * length, [IGNORE] * length, (0, length), "")


@given(lengths=st.lists(st.integers(0, 90), max_size=60), budget=st.integers(1, 400))
def test_batches_hold_every_row_once_within_the_budget(lengths, budget):
    rows = [row(length) for length in lengths]
    batches = batches_of(rows, budget)
    assert sorted(n for batch in batches for n in batch) == [n for n, length in enumerate(lengths) if length]
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[n] for n in batch) <= budget


@pytest.mark.parametrize(
    ("ids", "labels", "span"),
    [
        ([1, 2, 7, 8, 3, 4, 9], [IGNORE] * 6 + [9], (2, 4)),
        # Truncated: one closing token is left, then none, then not even the user's text.
        ([1, 2, 7, 8, 3, 9], [IGNORE] * 5 + [9], (2, 4)),
        ([1, 2, 7, 9], [IGNORE] * 3 + [9], (2, 3)),
        ([1, 2, 9], [IGNORE] * 2 + [9], (0, 2)),
        ([1, 2, 7, 8, 3, 4], [IGNORE] * 6, (2, 4)),
    ],
)
def test_prompt_span_under_truncation(ids, labels, span):
    assert _prompt_span(ids, labels, ([1, 2], [3, 4])) == span


def test_finetuning_names_a_row_that_cannot_be_encoded(checks, tiny):  # noqa: F811
    message = str(checks["unencodable"])
    assert read_jsonl(tiny / "dataset.jsonl")[-1]["id"] in message and "1 of 240 rows" in message
    assert "cutoff_len 64" in message
