"""`snakemake describe` on the demo: its results read by the libraries of each form, and compared with the files."""

import base64
import hashlib
import json
import shutil
import subprocess
from datetime import datetime
from pathlib import Path

import pytest
from conftest import ROOT, snakemake

from middo.rows import with_ids, write_dataset
from middo.steps import output_of, recorded_steps

PYTHON = ROOT / ".venvs" / "describe" / "bin" / "python"
VERSIONS = ["seed", "middo/iter1", "middo/iter2", "middo/iter3"]
DESCRIBE = ("describe", "--configfile", "config/demo.yaml", "--cores", "2")
LOAD = "import datasets, json, sys; print(json.dumps(datasets.load_dataset(sys.argv[1], split='train').to_list()))"
RECORDS = """
import json, sys
import mlcroissant
rows = mlcroissant.Dataset(sys.argv[1] + "/croissant.json").records("rows")
print(json.dumps(list(rows), default=bytes.decode))
"""


@pytest.fixture(scope="module")
def described(demo, tmp_path_factory):
    folder = shutil.copytree(demo, tmp_path_factory.mktemp("described") / "checkout", symlinks=True)
    snakemake(folder, *DESCRIBE)
    return folder / "results/demo"


def in_describe(*words, cache):
    environment = {"HOME": str(cache), "PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1"}
    return subprocess.run([PYTHON, *map(str, words)], env=environment, capture_output=True, text=True)


def jsonl(path):
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


@pytest.mark.parametrize("version", VERSIONS)
def test_datasets_and_mlcroissant_load_the_rows(described, version, tmp_path):
    rows = jsonl(described / version / "dataset.jsonl")
    release = described / version / "release"
    assert json.loads(in_describe("-c", LOAD, release, cache=tmp_path).stdout) == rows
    loaded = json.loads(in_describe("-c", RECORDS, release, cache=tmp_path).stdout)
    assert [{key.removeprefix("rows/"): value for key, value in row.items()} for row in loaded] == rows
    validated = subprocess.run(
        [PYTHON.with_name("mlcroissant"), "validate", "--jsonld", release / "croissant.json"],
        capture_output=True,
        text=True,
    )
    assert validated.returncode == 0 and "Done" in validated.stderr, validated.stderr
    assert json.loads((release / "croissant.json").read_text())["conformsTo"].endswith("croissant/1.1")


def test_the_card_says_what_the_files_hold(described):
    card = (described / "middo/iter2/release/README.md").read_text()
    rows = jsonl(described / "middo/iter2/dataset.jsonl")
    for origin in ("seed", "simplified", "improved", "extended"):
        assert f"| {origin} | {sum(row['origin'] == origin for row in rows)} |" in card
    digest = hashlib.sha256((described / "middo/iter2/dataset.jsonl").read_bytes()).hexdigest()
    assert f"| all | {len(rows)} |" in card and digest in card and "little-world-1" in card
    assert "- seed rows, and what the new rows keep of them: CC0-1.0" in card
    assert "teacher" not in (described / "seed/release/README.md").read_text()


def test_texts_that_look_like_numbers_stay_texts(tmp_path):
    texts = ["007", "1e5", "null", "2024-01-01", "5.0", "", "é\u2028\0", "true"]
    blank = {"origin": "seed", "parents": [], "iteration": 0}
    rows = with_ids({"instruction": text, "input": text, "output": text} | blank for text in texts)
    write_dataset(tmp_path / "dataset.jsonl", rows)
    manifest = {
        "rows": {"total": len(rows), "seed": len(rows)},
        "source": {"path": "own.json", "sha256": "0" * 64, "rejected": 0},
        "dataset_sha256": "0" * 64,
        "sha256": "0" * 64,
    }
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    done = in_describe(
        ROOT / "scripts/release.py",
        *("--experiment", "own", "--version", "seed", "--dataset", tmp_path / "dataset.jsonl"),
        *("--manifest", tmp_path / "manifest.json", "--licenses", '{"seed": null, "teacher": null}'),
        *("--out", tmp_path / "release"),
        cache=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(in_describe("-c", LOAD, tmp_path / "release", cache=tmp_path).stdout) == rows


def test_the_crate_keeps_to_its_profile(described, tmp_path):
    validate = Path(__file__).with_name("validate_crate.py")
    cache = tmp_path / "cache"
    good = in_describe(validate, described, cache, cache=tmp_path)
    assert good.returncode == 0, good.stdout + good.stderr
    broken = shutil.copytree(described, tmp_path / "broken")
    crate = json.loads((described / "ro-crate-metadata.json").read_text())
    run = next(entity for entity in crate["@graph"] if entity["@id"] == "#run")
    del run["instrument"]
    (broken / "ro-crate-metadata.json").write_text(json.dumps(crate))
    bad = in_describe(validate, broken, cache, cache=tmp_path)
    assert bad.returncode == 1 and "instrument" in bad.stdout, bad.stdout + bad.stderr


def test_the_crate_tells_of_every_step(described):
    graph = {
        entity["@id"]: entity for entity in json.loads((described / "ro-crate-metadata.json").read_text())["@graph"]
    }
    actions = [entity for entity in graph.values() if entity["@type"] == "CreateAction"]
    made = {result["@id"] for action in actions if action["@id"] != "#run" for result in action["result"]}
    for version in VERSIONS:
        assert {f"{version}/dataset.jsonl", f"{version}/checkpoint/", f"{version}/scores.parquet"} - made == (
            {f"{version}/scores.parquet"} if version == VERSIONS[-1] else set()
        )
    for version in VERSIONS[1:]:
        name = f"{version}/dataset.jsonl"
        assert graph[name]["sha256"] == hashlib.sha256((described / name).read_bytes()).hexdigest()
        action = next(a for a in actions if {"@id": name} in a["result"] and a["@id"] != "#run")
        assert action["instrument"] == {"@id": "workflow/scripts/assemble.py"}
        assert {"@id": f"{version}/refined.jsonl"} in action["object"]
        began, ended = (datetime.fromisoformat(action[key]) for key in ("startTime", "endTime"))
        assert began <= ended and abs(ended.timestamp() - (described / name).stat().st_mtime) < 60
    assert (described / "workflow/scripts/assemble.py").read_bytes() == (ROOT / "scripts/assemble.py").read_bytes()


def test_described_again_nothing_runs(described):
    assert "Nothing to be done" in snakemake(described.parents[1], *DESCRIBE).stdout


def test_records_are_read_by_the_path_in_their_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    results = Path("results/own")
    (results / "seed").mkdir(parents=True)
    outputs = [str(results / "seed" / name) for name in ("a" * 200, "b")]
    record = {"rule": "both", "starttime": 1.0, "endtime": 2.0, "shellcmd": "python scripts/x.py", "input": ["in"]}
    for output in [*outputs, str(results / "gone"), "results/other/seed/c"]:
        name = base64.urlsafe_b64encode(output.encode()).decode()
        parts = [f"@{name[:250]}", name[250:]] if len(name) > 250 else [name]
        path = Path("records", *parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record))
        assert output_of(path.relative_to("records")) == output
    for output in outputs:
        Path(output).touch()
    steps = recorded_steps(Path("records"), results)
    assert [(step.outputs, step.program) for step in steps] == [(tuple(outputs), "scripts/x.py")]
