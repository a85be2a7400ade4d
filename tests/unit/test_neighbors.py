"""Neighbors against a brute-force computation, by the program itself in its own environment."""

import os
import subprocess

import numpy as np
import polars as pl
import pytest
from conftest import ROOT

from middo.rows import with_ids, write_dataset

PYTHON = ROOT / ".venvs" / "neighbors" / "bin" / "python"


def unit_vectors(rows, hidden, seed):
    drawn = np.random.default_rng(seed).normal(size=(rows, hidden))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def make_dataset(folder, rows):
    made = with_ids(
        {
            "instruction": f"question {number}",
            "input": "",
            "output": "answer",
            "origin": "seed",
            "parents": [],
            "iteration": 0,
        }
        for number in range(rows)
    )
    write_dataset(folder / "dataset.jsonl", made)
    return [row["id"] for row in made]


def run(folder, vectors, k, device="cpu", threads="1"):
    np.save(folder / "embeddings.npy", vectors)
    arguments = ["--dataset", "dataset.jsonl", "--embeddings", "embeddings.npy", "--k", str(k), "--device", device]
    return subprocess.run(
        [PYTHON, ROOT / "scripts" / "neighbors.py", *arguments, "--out", "neighbors.parquet"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": threads, "CUDA_VISIBLE_DEVICES": ""},
    )


def brute_force(vectors, k):
    """Positions and cosines of the k nearest other rows, by the full similarity matrix."""
    exact = vectors.astype(np.float64)
    matrix = np.stack([(exact * row).sum(axis=1) for row in exact]).astype(np.float32)
    np.fill_diagonal(matrix, -np.inf)
    order = np.argsort(-matrix, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(matrix, order, axis=1)


def check(folder, ids, vectors, k):
    table = pl.read_parquet(folder / "neighbors.parquet")
    order, similarity = brute_force(vectors, k)
    assert table.columns == ["id", "neighbors", "similarity", "diversity"]
    assert table.schema["similarity"] == pl.List(pl.Float32) and table.schema["diversity"] == pl.Float32
    assert table["id"].to_list() == ids
    assert table["neighbors"].to_list() == [[ids[place] for place in row] for row in order]
    np.testing.assert_array_equal(np.array(table["similarity"].to_list(), dtype=np.float32), similarity)
    np.testing.assert_allclose(table["diversity"].to_numpy(), similarity.mean(axis=1), rtol=1e-6)


@pytest.mark.parametrize("k", [1, 3])
def test_equals_brute_force_with_duplicates_over_several_blocks(tmp_path, k):
    vectors = unit_vectors(1500, 24, seed=k)
    vectors[7] = vectors[1200]
    vectors[[3, 40, 1100, 1101, 1499]] = vectors[40]
    ids = make_dataset(tmp_path, len(vectors))
    done = run(tmp_path, vectors, k)
    assert done.returncode == 0, done.stdout
    check(tmp_path, ids, vectors, k)


def test_threads_change_nothing(tmp_path):
    vectors = unit_vectors(600, 48, seed=9)
    make_dataset(tmp_path, len(vectors))
    written = []
    for threads in ("1", "2"):
        assert run(tmp_path, vectors, 2, threads=threads).returncode == 0
        written.append((tmp_path / "neighbors.parquet").read_bytes())
    assert written[0] == written[1]


def test_no_row_is_its_own_neighbor_where_all_are_the_same(tmp_path):
    vectors = np.repeat(unit_vectors(1, 8, seed=0), 60, axis=0)
    ids = make_dataset(tmp_path, len(vectors))
    assert run(tmp_path, vectors, 2).returncode == 0
    table = pl.read_parquet(tmp_path / "neighbors.parquet")
    for own, neighbors in zip(ids, table["neighbors"].to_list(), strict=True):
        assert len(set(neighbors)) == 2 and own not in neighbors
    np.testing.assert_allclose(table["diversity"].to_numpy(), 1, atol=1e-6)


def test_as_many_neighbors_as_there_are_other_rows(tmp_path):
    vectors = unit_vectors(3, 8, seed=4)
    ids = make_dataset(tmp_path, 3)
    assert run(tmp_path, vectors, 2).returncode == 0
    check(tmp_path, ids, vectors, 2)


def test_a_row_without_a_vector_has_no_neighbors_and_is_none(tmp_path):
    ids = make_dataset(tmp_path, 6)
    vectors = unit_vectors(6, 8, seed=2)
    vectors[3] = 0
    assert run(tmp_path, vectors, k=2).returncode == 0
    table = pl.read_parquet(tmp_path / "neighbors.parquet")
    others = np.delete(vectors, 3, axis=0)
    names = ids[:3] + ids[4:]
    order, cosine = brute_force(others, 2)
    assert table["id"].to_list() == ids
    assert table.row(3)[1:] == (None, None, None)
    rest = table.filter(pl.col("diversity").is_not_null())
    assert rest["neighbors"].to_list() == [[names[position] for position in row] for row in order]
    np.testing.assert_allclose(rest["diversity"], cosine.mean(axis=1), atol=1e-6)


def with_nan(vectors):
    vectors[1, 0] = np.nan
    return vectors


@pytest.mark.parametrize(
    ("spoil", "k", "device", "message"),
    [
        (lambda vectors: vectors[:-1], 2, "cpu", "float32 [5, hidden] is needed"),
        (lambda vectors: vectors.astype(np.float64), 2, "cpu", "holds float64"),
        (lambda vectors: vectors * np.float32(1.5), 2, "cpu", "row 1 has the length 1.5"),
        (with_nan, 2, "cpu", "row 2 has the length nan"),
        (lambda vectors: vectors, 5, "cpu", "less than the number of rows"),
        (lambda vectors: vectors, 0, "cpu", "at least 1"),
        (lambda vectors: vectors, 2, "cuda", "FAISS sees no GPU"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_written(tmp_path, spoil, k, device, message):
    make_dataset(tmp_path, 5)
    done = run(tmp_path, spoil(unit_vectors(5, 8, seed=1)), k, device)
    assert done.returncode == 1 and "error: " in done.stdout and message in done.stdout
    assert "Traceback" not in done.stdout
    assert not (tmp_path / "neighbors.parquet").exists()
