"""Find each row's k nearest other rows: neighbors.parquet from embeddings.npy, exactly, by inner product, with FAISS.

The vectors have length 1, so the inner product is the cosine. A row's diversity is the mean cosine to its k neighbors
(method.md, section 2). Memory grows with the rows, not with their square: rows are searched in blocks. Among rows that
are equally near, the earlier one in the dataset comes first.

    python scripts/neighbors.py --dataset dataset.jsonl --embeddings embeddings.npy --k 2 --out neighbors.parquet
"""

import argparse
import os
from pathlib import Path

import numpy as np

from middo import program
from middo.files import atomic
from middo.program import Progress, UserError, say
from middo.rows import read_dataset

BLOCK = 1024
# Candidates beyond k: the row itself, and rows as near as the k-th, so that FAISS doesn't choose among equals. Where
# more rows than these share a vector, it does.
SPARE = 16


def arguments() -> argparse.ArgumentParser:
    made = program.parser(__doc__)
    made.add_argument("--dataset", type=Path, required=True, help="dataset.jsonl")
    made.add_argument("--embeddings", type=Path, required=True, help="embeddings.npy: float32 [rows, hidden]")
    made.add_argument("--k", type=int, required=True, help="neighbors per row")
    made.add_argument("--out", type=Path, required=True, help="neighbors.parquet")
    made.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    return made


def main(args: argparse.Namespace) -> None:
    ids = [row["id"] for row in read_dataset(args.dataset)]
    vectors = read_embeddings(args.embeddings, rows=len(ids))
    present = np.flatnonzero(vectors.any(axis=1))
    if not 1 <= args.k < len(present):
        raise UserError(
            f"--k {args.k}: k must be at least 1 and less than the number of rows with a vector; "
            f"{args.dataset} has {len(present)}."
        )
    say(f"{len(present)} of {len(ids)} rows have a vector, k = {args.k}, on {args.device}")
    if len(present) < len(ids):
        vectors = vectors[present]
    positions, similarity = search(build_index(vectors, args.device), vectors, args.k)
    write_neighbors(args.out, ids, present, present[positions], similarity)


def read_embeddings(path: Path, rows: int) -> np.ndarray:
    """Memory-mapped float32 [rows, hidden].

    A vector of zeros says that its row has none. Raises UserError where type or shape differ, or another vector is not
    finite or not of length 1 (to 0.001).
    """
    try:
        vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise UserError(f"{path}: this is no array of NumPy: {error}") from error
    if vectors.dtype != np.float32 or vectors.ndim != 2 or len(vectors) != rows:
        raise UserError(
            f"{path} holds {vectors.dtype} {list(vectors.shape)}; float32 [{rows}, hidden] is needed, a vector for "
            "each row of the dataset. Were the two made from different versions?"
        )
    for start in range(0, rows, BLOCK):
        norms = np.linalg.norm(vectors[start : start + BLOCK], axis=1)
        # Written so that NaN counts as wrong.
        wrong = np.flatnonzero(~((np.abs(norms - 1) < 1e-3) | (norms == 0)))
        if wrong.size:
            row = start + int(wrong[0])
            raise UserError(f"{path}: the vector of row {row + 1} has the length {norms[wrong[0]]}, not 1.")
    return vectors


def build_index(vectors: np.ndarray, device: str) -> "faiss.Index":  # noqa: F821
    """An exact inner-product index over `vectors`, on all visible GPUs where device is `cuda`.

    Raises UserError where a GPU is wanted and none is visible: FAISS itself would quietly stay on the CPU.
    """
    import faiss

    if threads := os.environ.get("OMP_NUM_THREADS"):
        faiss.omp_set_num_threads(int(threads))
    index = faiss.IndexFlatIP(vectors.shape[1])
    if device == "cuda":
        if faiss.get_num_gpus() == 0:
            raise UserError("--device cuda: FAISS sees no GPU. Use --device cpu, or make one visible.")
        index = faiss.index_cpu_to_all_gpus(index)
    for start in range(0, len(vectors), BLOCK):
        index.add(np.ascontiguousarray(vectors[start : start + BLOCK]))
    return index


def search(index: "faiss.Index", vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:  # noqa: F821
    """The k nearest other rows of each row.

    Returns their positions, int64 [rows, k], and similarity, float32 [rows, k], highest first.
    """
    rows = len(vectors)
    positions = np.empty((rows, k), dtype=np.int64)
    similarity = np.empty((rows, k), dtype=np.float32)
    progress = Progress(rows)
    for start in range(0, rows, BLOCK):
        block = np.ascontiguousarray(vectors[start : start + BLOCK])
        _, found = index.search(block, min(k + SPARE, rows))
        for row, candidates in enumerate(found, start=start):
            positions[row], similarity[row] = nearest(row, candidates, vectors, k)
        progress.advance(len(block))
    return positions, similarity


def nearest(row: int, candidates: np.ndarray, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest of the candidates, `row` itself left out: their positions and similarity.

    Similarities are computed anew, in float64: how FAISS rounds depends on the device and on where in a block a vector
    stands, and then so would the order of rows that are equally near.
    """
    others = candidates[candidates != row]
    values = (vectors[others].astype(np.float64) * vectors[row]).sum(axis=1).astype(np.float32)
    best = np.lexsort((others, -values))[:k]
    return others[best], values[best]


def write_neighbors(path: Path, ids: list[str], present: np.ndarray, near: np.ndarray, similarity: np.ndarray) -> None:
    """Write neighbors.parquet: id, neighbors (ids), similarity, diversity; in dataset order.

    `present`: positions of the rows that have a vector, int64 [n]; `near` and `similarity`: theirs, [n, k]. The other
    rows get nulls.
    """
    import polars as pl

    names = np.array(ids, dtype=object)
    columns: dict[str, list] = {name: [None] * len(ids) for name in ("neighbors", "similarity", "diversity")}
    for position, neighbors, values in zip(present, near, similarity, strict=True):
        columns["neighbors"][position] = names[neighbors].tolist()
        columns["similarity"][position] = values.tolist()
        columns["diversity"][position] = float(values.mean(dtype=np.float64))
    schema = {
        "id": pl.String,
        "neighbors": pl.List(pl.String),
        "similarity": pl.List(pl.Float32),
        "diversity": pl.Float32,
    }
    table = pl.DataFrame({"id": ids, **columns}, schema=schema)
    with atomic(path) as temporary:
        table.write_parquet(temporary)


if __name__ == "__main__":
    program.run(main, arguments(), environment="neighbors")
