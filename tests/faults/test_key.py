"""The endpoint's key stands in no file and in nothing that is printed, even where the endpoint sends it back."""

import json
import os

import pytest
import yaml
from conftest import make_checkout, snakemake
from refining import KEY, command, endpoint, refine, write_world

from middo.files import read_jsonl

TARGET = "results/marked/middo/iter1/refined.jsonl"


def holding_the_key(folder):
    """Every file below, hidden ones too, that holds it."""
    found = []
    for parent, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(parent, name), "rb") as stream:
                if KEY.encode() in stream.read():
                    found.append(os.path.join(parent, name))
    return found


@pytest.fixture
def workflow(tmp_path, monkeypatch):
    """A checkout in which only refining is left to do, and the key in the environment."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    folder = make_checkout(tmp_path / "checkout")
    version, seed = folder / "results/marked/middo/iter1", folder / "results/marked/seed"
    version.mkdir(parents=True)
    seed.mkdir()
    write_world(seed, [{"instruction": f"Task {number}"} for number in range(4)], ["hard"] * 4)
    (seed / "selection.parquet").rename(version / "selection.parquet")
    (folder / "base").mkdir()
    # They only have to be there.
    for name in ("base/config.json", "base/tokenizer_config.json", "base/model.safetensors", "data.json"):
        (folder / name).write_text("[]")
    return folder


def refine_by_snakemake(folder, url):
    """Run the rule refine alone against the endpoint; all that was printed and the exit status."""
    config = yaml.safe_load((folder / "config/demo.yaml").read_text())
    del config["demo"]
    config |= {"experiment": "marked", "base_model": {"path": "base"}, "dataset": {"path": "data.json"}}
    config["teacher"] = {"model": "m", "base_url": url, "max_concurrency": 2, "max_retries": 0}
    config["evaluation"]["custom"][0]["path"] = "data.json"
    (folder / "config/marked.yaml").write_text(yaml.safe_dump(config))
    words = ["--configfile", "config/marked.yaml", "--cores", "1", "--allowed-rules", "refine", "--", TARGET]
    return snakemake(folder, *words, check=False)


def test_an_endpoint_that_sends_the_key_back_gets_it_nowhere(workflow, tmp_path):
    with endpoint(tmp_path / "refused.jsonl", "--always", "401") as url:
        failed = refine_by_snakemake(workflow, url)
    assert failed.returncode == 1 and "fault 401; your key is (key)" in failed.stdout
    with endpoint(tmp_path / "echoed.jsonl", "--always", "echo") as url:
        done = refine_by_snakemake(workflow, url)
    assert done.returncode == 0, done.stdout
    rows = read_jsonl(workflow / TARGET)
    assert len(rows) == 4 and all(row["output"].endswith("\nYour key is (key).") for row in rows)
    assert all(row["instruction"].endswith("\nYour key is (key).") for row in rows)
    for kept in (".snakemake/log", "results/marked/middo/iter1/logs/refine.log"):
        assert (workflow / kept).exists()
    assert len(list((workflow / "results/teacher_answers/marked").rglob("*.jsonl"))) == 1
    assert holding_the_key(workflow) == [] and KEY not in failed.stdout + done.stdout


def test_a_crash_with_a_traceback_does_not_show_the_key(tmp_path):
    world = write_world(tmp_path, [{"instruction": "Task"}, {"instruction": "Other"}], ["hard"] * 2)
    (tmp_path / "out" / "refined.jsonl" / "in the way").mkdir(parents=True)
    with endpoint(tmp_path / "journal.jsonl", "--always", "echo") as url:
        done = refine(command(world, tmp_path / "out", url))
    assert done.returncode == 1 and "Traceback" in done.stderr and "IsADirectoryError" in done.stderr
    (first, *_) = read_jsonl(tmp_path / "out" / "answers" / "test" / "iter1.jsonl")
    assert "Your key is (key)." in json.dumps(first["response"])
    assert holding_the_key(tmp_path) == [] and KEY not in done.stderr
