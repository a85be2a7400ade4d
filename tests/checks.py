"""What must hold of any version that the loop has made, computed another way than the loop does."""

import hashlib
import json
import pickletools
import shutil
import subprocess
import zipfile

import numpy as np
import polars as pl

REASON = {"simplified": "hard", "improved": "low", "extended": "sparse"}


def jsonl(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def is_pickle(path):
    """Whether a file is a pickle by its content, plain or in the zip archive that torch.save writes."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(".pkl") for name in archive.namelist())
    with open(path, "rb") as stream:
        if stream.read(8)[:6] == b"\x93NUMPY":
            stream.seek(0)
            try:
                np.lib.format.read_magic(stream)
                return np.lib.format.read_array_header_1_0(stream)[2].hasobject
            except ValueError:
                return True
        stream.seek(0)
        try:
            for _ in pickletools.genops(stream):
                pass
        # Whatever an opcode's argument breaks on, it is none.
        except Exception:  # noqa: BLE001
            return False
        return stream.tell() > 2


def check_signals(folder, k=2):
    """Every signal holds the dataset's ids in its order, and its numbers are what NumPy makes of the others."""
    ids = [row["id"] for row in jsonl(folder / "dataset.jsonl")]
    assert len(set(ids)) == len(ids)
    for name in ("base_losses", "losses", "neighbors", "scores"):
        assert pl.read_parquet(folder / f"{name}.parquet")["id"].to_list() == ids
    losses = pl.read_parquet(folder / "losses.parquet")
    assert losses["loss_pre"].to_list() == pl.read_parquet(folder / "base_losses.parquet")["loss_pre"].to_list()
    assert losses["loss_post"].mean() < losses["loss_pre"].mean(), "training lowers the loss of what it trains on"
    embeddings = np.load(folder / "embeddings.npy")
    assert embeddings.dtype == np.float32 and embeddings.shape[0] == len(ids)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)
    similarity = embeddings @ embeddings.T
    np.fill_diagonal(similarity, -2)
    nearest = np.sort(similarity, axis=1)[:, -k:].mean(axis=1)
    np.testing.assert_allclose(pl.read_parquet(folder / "neighbors.parquet")["diversity"], nearest, atol=1e-5)
    scores = pl.read_parquet(folder / "scores.parquet").drop("id", "steering").to_numpy()
    assert np.nanmin(scores) >= 0 and np.nanmax(scores) <= 10
    np.testing.assert_allclose(scores[:, -1], scores[:, :-1].mean(axis=1), atol=1e-5)


def selected_by_numpy(before, folder):
    """{hard, sparse, low: which rows of `before`} at the m that selection.json names, in a few lines of NumPy."""
    m = {axis: found["m"] for axis, found in json.loads((folder / "selection.json").read_text())["axes"].items()}
    losses, neighbors, scores = (pl.read_parquet(before / f"{n}.parquet") for n in ("losses", "neighbors", "scores"))
    pre, post, near, quality = (
        column.to_numpy().astype(np.float64)
        for column in (losses["loss_pre"], losses["loss_post"], neighbors["diversity"], scores["quality"])
    )

    def tau(signal, axis):
        return np.nanmean(signal) + m[axis] * np.nanstd(signal)

    return {
        "hard": (pre > tau(pre, "complexity")) & (post > tau(post, "complexity")),
        "sparse": near < tau(near, "diversity"),
        "low": quality < tau(quality, "quality"),
    }


def check_version(before, folder, iteration):
    """`folder` holds the predecessor's rows, those replaced left out, then the teacher's: counted and traced."""
    selection = pl.read_parquet(folder / "selection.parquet")
    for column, chosen in selected_by_numpy(before, folder).items():
        assert (selection[column].to_numpy() == chosen).all(), column
    chosen = {row["id"]: row for row in selection.iter_rows(named=True)}
    old, new = jsonl(before / "dataset.jsonl"), jsonl(folder / "dataset.jsonl")
    born = [row for row in new if row["iteration"] == iteration]
    kept = new[: len(new) - len(born)]
    assert born and new == kept + born
    for row in born:
        assert chosen[row["parents"][0]][REASON[row["origin"]]]
        assert row["input"] == "" and row["instruction"].strip() and row["output"].strip()
    replaced = {row["parents"][0] for row in born if row["origin"] != "extended"}
    assert kept == [row for row in old if row["id"] not in replaced]
    asked = sum(row["hard"] + row["low"] + row["sparse"] for row in chosen.values())
    assert len(born) + len(jsonl(folder / "rejected.jsonl")) == asked
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["predecessor_sha256"] == hashlib.sha256((before / "dataset.jsonl").read_bytes()).hexdigest()
    assert manifest["dataset_sha256"] == hashlib.sha256((folder / "dataset.jsonl").read_bytes()).hexdigest()
    assert manifest["rows"]["total"] == len(new)


def check_checkpoint(folder):
    """The model saw every row, and its folder holds what its list says and nothing that a pickle could hide in."""
    trained = json.loads((folder / "finetune.json").read_text())["rows"]
    assert trained + len(jsonl(folder / "dropped.jsonl")) == len(jsonl(folder / "dataset.jsonl"))
    names = {path.name for path in (folder / "checkpoint").iterdir()}
    assert "model.safetensors" in names
    assert not {"optimizer.pt", "training_args.bin", "trainer_state.json"} & names
    for line in (folder / "checkpoint.sha256").read_text().splitlines():
        digest, name = line.split("  ", 1)
        assert hashlib.sha256((folder / "checkpoint" / name).read_bytes()).hexdigest() == digest


def lacks_namespaces():
    """Whether this machine refuses namespaces, which the sandbox is made of; asked without the sandbox's own code."""
    command = ["unshare", "--net", "--pid", "--mount", "--fork", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    ways = [command, [*command[:1], "--user", "--map-root-user", *command[1:]]]
    return not shutil.which("unshare") or all(subprocess.run(way, capture_output=True).returncode for way in ways)
