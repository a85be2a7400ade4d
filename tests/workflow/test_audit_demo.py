"""The audit of the demo, which has really run: proven as it is; each changed byte, exchanged row and lie is found."""

import hashlib
import json
import random
import re

import pytest
import yaml
from conftest import snakemake
from made_tree import reseal, write_manifest

from middo.audit import audit
from middo.lineage import StoredAnswers, load_lineages
from middo.rebuild import config_of
from middo.trace import diff, find_row, plain, trace

CONFIG = ["--configfile", "config/demo.yaml"]
VERSIONS = ["seed", "middo/iter1", "middo/iter2", "middo/iter3"]


@pytest.fixture
def results(demo_copy):
    return demo_copy / "results/demo"


def faults_of(results):
    return audit(results, results.parent / "teacher_answers").faults


def rows_of(folder):
    return [json.loads(line) for line in (folder / "dataset.jsonl").read_text().splitlines()]


def write_rows(folder, rows):
    lines = (json.dumps(row, sort_keys=True, ensure_ascii=False, separators=(",", ":")) for row in rows)
    (folder / "dataset.jsonl").write_text("".join(f"{line}\n" for line in lines))


def test_the_target_audit_proves_the_demo_and_makes_nothing(demo):
    before = {path: path.stat().st_mtime_ns for path in (demo / "results").rglob("*.json*")}
    for _ in range(2):
        shown = snakemake(demo, "audit", *CONFIG, "--cores", "1").stdout
        assert "results/demo: every row of every version is traced back to the seed file" in shown
    assert len(re.findall(r"^\| (seed|middo/iter\d) .*\| proven \|$", shown, flags=re.MULTILINE)) == len(VERSIONS)
    assert before == {path: path.stat().st_mtime_ns for path in (demo / "results").rglob("*.json*")}


def test_the_target_audit_fails_where_something_is_wrong(demo_copy):
    path = demo_copy / "results/demo/middo/iter2/refined.jsonl"
    path.write_bytes(path.read_bytes().replace(b"a", b"b", 1))
    done = snakemake(demo_copy, "audit", *CONFIG, "--cores", "1", check=False)
    assert done.returncode != 0 and "wrong: results/demo/middo/iter2/refined.jsonl: has been changed" in done.stdout


def test_200_changed_bytes_are_found(results):
    kinds = ["dataset.jsonl", "selection.parquet", "selection.json", "refined.jsonl", "rejected.jsonl", "refine.json"]
    kinds += ["manifest.json", "extras.jsonl", "rejects.jsonl"]
    files = [path for kind in kinds for path in sorted(results.rglob(kind))]
    files += sorted((results.parent / "teacher_answers").rglob("*.jsonl"))
    files = [path for path in files if path.stat().st_size]
    chosen = random.Random(20)
    for _ in range(200):
        path = chosen.choice(files)
        before = path.read_bytes()
        changed = bytearray(before)
        place = chosen.randrange(len(before))
        changed[place] ^= chosen.randrange(1, 256)
        path.write_bytes(changed)
        named = [fault.where for fault in faults_of(results)]
        assert any(where.startswith(str(path)) for where in named), (path, place, named)
        path.write_bytes(before)
    assert faults_of(results) == []


def test_rows_exchanged_between_versions_are_found(results):
    """Even by someone who makes every hash fit again."""
    first, last = results / "middo/iter2", results / "middo/iter3"
    rows, later = rows_of(first), rows_of(last)
    common = {row["id"] for row in rows} & {row["id"] for row in later}
    one = next(n for n, row in enumerate(rows) if row["id"] not in common)
    other = next(n for n, row in enumerate(later) if row["id"] not in common)
    rows[one], later[other] = later[other], rows[one]
    write_rows(first, rows)
    write_rows(last, later)
    named = {fault.where for fault in faults_of(results)}
    assert {str(first / "dataset.jsonl"), str(last / "dataset.jsonl")} <= named
    reseal(results, "middo/iter2", "middo/iter3")
    said = " ".join(fault.what for fault in faults_of(results))
    assert "is neither in middo/iter1 nor, as it is, in refined.jsonl" in said
    assert "is neither in middo/iter2 nor, as it is, in refined.jsonl" in said


@pytest.mark.parametrize("version", VERSIONS)
def test_a_forged_manifest_is_found(results, version):
    path = results / version / "manifest.json"
    manifest = json.loads(path.read_text())
    write_manifest(path, {**manifest, "dataset_sha256": hashlib.sha256(b"other").hexdigest()})
    assert str(results / version / "dataset.jsonl") in {fault.where for fault in faults_of(results)}
    write_manifest(path, {**manifest, "settings_sha256": hashlib.sha256(b"other").hexdigest()})
    assert any("identity settings" in fault.what for fault in faults_of(results))
    write_manifest(path, {**manifest, "code": {"commit": "0" * 40, "modified": False}})
    found = {fault.where for fault in faults_of(results)}
    follower = VERSIONS[VERSIONS.index(version) + 1 :][:1]
    # Of the last one only its hash, kept elsewhere, could tell.
    assert found >= {str(results / name / "manifest.json") for name in follower}
    assert bool(found) == bool(follower)


def test_a_missing_answer_is_found(results):
    line = json.loads((results / "middo/iter2/refined.jsonl").read_text().splitlines()[0])
    for path in (results.parent / "teacher_answers").rglob("*.jsonl"):
        kept = [stored for stored in path.read_text().splitlines() if json.loads(stored)["key"] != line["requests"][0]]
        path.write_text("".join(f"{stored}\n" for stored in kept))
    found = faults_of(results)
    assert any(line["id"] in fault.where and line["requests"][0] in fault.what for fault in found)


def test_trace_and_diff_tell_of_real_rows(demo):
    results = demo / "results/demo"
    versions, answers = load_lineages(results), StoredAnswers(results.parent / "teacher_answers")
    row = next(row for row in rows_of(results / "middo/iter3") if row["iteration"] == 3 and row["origin"] != "extended")
    told = "\n".join(trace(versions, answers, find_row(versions, row["id"][:12]), plain))
    steps = re.findall(r"^(\S+): (\S+) was selected as (\w+)", told, flags=re.MULTILINE)
    column = {"simplified": "hard", "improved": "low"}[row["origin"]]
    assert steps[-1] == ("middo/iter3", row["parents"][0], column)
    assert told.count(" and replied") == 2 * len(steps) and row["output"] in told
    told = list(diff(versions, "seed", "middo/iter1", plain))
    counted = json.loads((results / "middo/iter1/manifest.json").read_text())["rows"]
    assert told[1] == f"in both: {counted['seed']}"
    assert sum(line.startswith("+ ") for line in told) == counted["total"] - counted["seed"]


def test_the_config_that_rebuild_writes_is_the_one_that_made_the_version(demo_copy):
    """Snakemake finds no setting in it that differs: there is nothing to do."""
    version = load_lineages(demo_copy / "results/demo")["middo/iter2"]
    config = config_of(version, "demo")
    assert config["prompts"] == "rebuild/prompts"
    (demo_copy / "rebuild.yaml").write_text(yaml.safe_dump({**config, "prompts": "config/prompts"}))
    target = "results/demo/middo/iter2/manifest.json"
    assert "Nothing to be done" in snakemake(demo_copy, "--configfile", "rebuild.yaml", "-n", target).stdout


def test_new_manifests_train_nothing(demo_copy):
    """Made again one by one, as after a change of what a manifest holds."""
    before = (demo_copy / "results/demo/middo/iter1/dataset.jsonl").stat().st_mtime_ns
    for version in ("seed", "middo/iter1"):
        target = f"results/demo/{version}/manifest.json"
        shown = snakemake(demo_copy, *CONFIG, "--cores", "1", "--force", target).stdout
        assert "1 of 1 steps (100%) done" in shown
    assert (demo_copy / "results/demo/middo/iter1/dataset.jsonl").stat().st_mtime_ns > before
    shown = snakemake(demo_copy, *CONFIG, "-n", "results/demo/middo/iter1/finetune.json").stdout
    assert "Nothing to be done" in shown
