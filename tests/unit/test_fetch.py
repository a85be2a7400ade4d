"""What must lie on the machine before the first job: models of the hub, benchmark data. No job asks the net."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT, snakemake

from middo import benchmarks, hub
from middo.program import UserError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MODEL_FILES = ("config.json", "tokenizer_config.json", "tokenizer.json", "model.safetensors")


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """The hub's cache as a download of org/model leaves it, by the layout that its documentation describes."""
    from huggingface_hub import constants

    root = tmp_path / "hub" / "models--org--model"
    snapshot = root / "snapshots" / COMMIT
    for folder in (snapshot, root / "refs", root / "blobs"):
        folder.mkdir(parents=True)
    (root / "refs" / "main").write_text(COMMIT)
    for name in MODEL_FILES:
        (root / "blobs" / name).write_bytes(b"x" * 2_500_000 if name.endswith("safetensors") else b"{}")
        (snapshot / name).symlink_to(root / "blobs" / name)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return snapshot


def test_a_fetched_model_is_found_with_its_commit(cached):
    assert hub.model_folder("org/model", None) == cached
    assert hub.commit("org/model", None) == hub.commit("org/model", "main") == COMMIT
    assert hub.megabytes(cached) == 3
    hub.check_model("org/model", None)


def test_a_model_that_was_not_fetched_is_named(cached):
    for model, revision in (("org/other", None), ("org/model", "v2")):
        assert hub.model_folder(model, revision) is None
        assert hub.commit(model, revision) == (revision or "main")
        with pytest.raises(UserError, match=f"{model} was not fetched .*snakemake fetch"):
            hub.check_model(model, revision)


def test_a_download_that_was_cut_off_is_named(cached):
    (cached / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"lacks model\.safetensors"):
        hub.check_model("org/model", None)
    shards = {"a.weight": "model-00001-of-00002.safetensors", "b.weight": "model-00002-of-00002.safetensors"}
    (cached / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    (cached / "model-00001-of-00002.safetensors").touch()
    # A link into the cache whose file is gone.
    (cached / "model-00002-of-00002.safetensors").symlink_to(cached / "nowhere")
    with pytest.raises(UserError, match=r"lacks model-00002-of-00002\.safetensors;"):
        hub.check_model("org/model", None)


def test_a_folder_is_its_own_model(tmp_path):
    assert hub.model_folder(str(tmp_path), None) == tmp_path
    assert hub.commit(str(tmp_path), None) == "main"
    with pytest.raises(UserError, match=r"lacks config\.json, tokenizer_config\.json, model\.safetensors"):
        hub.check_model(str(tmp_path), None)
    with pytest.raises(UserError, match="there is no folder"):
        hub.check_model(str(tmp_path / "none"), None)


def test_sentences_are_counted_only_with_their_data(tmp_path, monkeypatch):
    questions = tmp_path / "data/ifeval/input_data.jsonl"
    questions.parent.mkdir(parents=True)
    rows = [["punctuation:no_comma"], ["length_constraints:number_sentences"]]
    questions.write_text("".join(json.dumps({"instruction_id_list": row}) + "\n" for row in rows))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    names = ["IFEval_gen_3321a3"]
    assert benchmarks.lacks_punkt(names, str(tmp_path), None)
    assert not benchmarks.lacks_punkt(names, str(tmp_path), 1), "only the first question is asked"
    assert not benchmarks.lacks_punkt(["gsm8k_gen_1d7fe4"], str(tmp_path), None)
    other = tmp_path / "other/tokenizers/punkt_tab/english/collocations.tab"
    other.parent.mkdir(parents=True)
    other.touch()
    monkeypatch.setenv("NLTK_DATA", f"{tmp_path / 'none'}{os.pathsep}{tmp_path / 'other'}")
    assert not benchmarks.lacks_punkt(names, str(tmp_path), None)


def test_no_job_starts_without_the_base_model(checkout):
    (checkout / "rows.json").write_text(json.dumps([{"instruction": "Say a.", "input": "", "output": "a"}]))
    (checkout / "heldout.jsonl").write_text(json.dumps({"question": "a?", "answer": "a"}) + "\n")
    (checkout / "mine.json").write_text(
        json.dumps(
            {
                "experiment": "mine",
                "base_model": {"path": "org/never-fetched"},
                "dataset": {"path": "rows.json"},
                "evaluation": {"benchmarks": [], "custom": [{"name": "own", "path": "heldout.jsonl", "type": "qa"}]},
                # With environments that are there already.
                "execution": {"device": "cpu"},
                "training": {"bf16": False},
            }
        )
    )
    done = snakemake(checkout, "--configfile", "mine.json", "--cores", "2", check=False)
    assert done.returncode == 1
    assert "base_model.path: org/never-fetched was not fetched from the hub. Run: snakemake fetch" in done.stdout
    assert not list((checkout / "results").rglob("*.log")), "no job ran"


def test_fetch_names_what_it_cannot_get(tmp_path):
    python = ROOT / ".venvs" / "evaluate" / "bin" / "python"
    fetch = [str(python), str(ROOT / "scripts/fetch.py"), "--base-model"]
    done = subprocess.run([*fetch, "org/never-fetched"], capture_output=True, text=True)
    assert done.returncode == 1 and "error: base_model.path: org/never-fetched could not be fetched" in done.stderr
    folder = tmp_path / "model"
    folder.mkdir()
    for name in MODEL_FILES:
        (folder / name).touch()
    done = subprocess.run([*fetch, str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # OpenCompass asks the net for the archive; a proxy that nobody listens on is a machine without a net.
    offline = os.environ | {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy")}
    wanted = ["--benchmarks", "gsm8k_gen_1d7fe4", "--data", str(tmp_path)]
    done = subprocess.run([*fetch, str(folder), *wanted], capture_output=True, text=True, env=offline)
    assert done.returncode == 1 and "gsm8k_gen_1d7fe4: its data could not be fetched" in done.stderr
    for name in ("train", "test"):
        path = tmp_path / "data" / "gsm8k" / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"question": "1+1?", "answer": "#### 2"}\n')
    assert subprocess.run([*fetch, str(folder), *wanted], env=offline).returncode == 0, sys.stderr
