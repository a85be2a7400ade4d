"""The audit on a small experiment: it holds, every changed byte is found, and so is every lie whose hashes fit."""

import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections import Counter

import polars as pl
import pytest
import yaml
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from made_tree import make_tree, reseal, working_in, write_manifest

from middo.audit import audit
from middo.config import check_config
from middo.trace import apart, coloured, plain, readable_diff

LAST = "middo/iter2"
FILES = ["dataset.jsonl", "manifest.json", "selection.parquet", "selection.json", "refined.jsonl", "rejected.jsonl"]
FILES += ["refine.json", "extras.jsonl", "rejects.jsonl", "base_model.sha256"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_tree(tmp_path_factory.mktemp("made"))


@pytest.fixture
def tree(made, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(made.parents[1], tmp_path / "tree", symlinks=True) / "results/small"


def faults_of(results):
    return audit(results, results.parent / "teacher_answers").faults


def jsonl(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_jsonl(path, lines):
    canonical = (json.dumps(line, sort_keys=True, ensure_ascii=False, separators=(",", ":")) for line in lines)
    path.write_text("".join(f"{line}\n" for line in canonical))


def program(results, *words):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "scripts")}
    command = [sys.executable, ROOT / "scripts/audit.py", *map(str, words)]
    return subprocess.run(command, cwd=results.parents[1], env=environment, capture_output=True, text=True)


def test_the_table_counts_what_the_files_hold(made):
    found = audit(made, made.parent / "teacher_answers")
    assert (found.faults, found.notes) == ([], [])
    seed = {row["id"] for row in jsonl(made / "seed/dataset.jsonl")}
    assert [line["version"] for line in found.lines] == [
        "seed",
        "few/iter1",
        "middo/iter1",
        "middo/iter2",
        "random/iter1",
    ]
    assert [line["result"] for line in found.lines] == ["proven"] * 5
    assert (found.lines[0]["rows"], found.lines[0]["rejected"]) == (40, 1)
    for line in found.lines[1:]:
        rows = {row["id"] for row in jsonl(made / line["version"] / "dataset.jsonl")}
        assert (line["rows"], line["seed kept"]) == (len(rows), len(rows & seed))
        assert line["seed replaced"] == len(seed - rows) > 0
        refined = {row["id"] for row in jsonl(made / line["version"] / "refined.jsonl")}
        assert line["new"] == len(rows & refined) > 3
        dropped = len(refined - rows)
        assert dropped == (line["version"] == "few/iter1")
        assert line["rejected"] == len(jsonl(made / line["version"] / "rejected.jsonl")) + dropped > 0


def test_the_small_experiment_has_every_kind_of_case(made):
    """Else the tests below would prove little."""
    rejected = jsonl(made / "middo/iter1/rejected.jsonl") + jsonl(made / "middo/iter2/rejected.jsonl")
    assert {line["step"] for line in rejected} == {"rewrite", "answer"}
    assert {line["origin"] for line in rejected} >= {"extended"}
    refined = jsonl(made / "middo/iter1/refined.jsonl")
    assert {row["origin"] for row in refined} == {"simplified", "improved", "extended"}
    keys = {json.loads(line)["request"]["attempt"] for line in answers_of(made).splitlines()}
    assert keys == {1, 2}
    for folder in (made / "middo/iter1", made / "few/iter1"):
        flags = pl.read_parquet(folder / "selection.parquet")
        assert (flags["hard"] & flags["low"]).any()


def answers_of(results):
    return "".join(path.read_text() for path in sorted((results.parent / "teacher_answers").rglob("*.jsonl")))


def test_200_changed_bytes_are_found(tree):
    files = [path for name in FILES for path in sorted(tree.rglob(name))]
    files += [tree / "seed/checkpoint.sha256", *sorted((tree.parent / "teacher_answers").rglob("*.jsonl"))]
    files = [path for path in files if path.stat().st_size]
    chosen = random.Random(7)
    for turn in range(200):
        path = files[turn % len(files)]
        before = path.read_bytes()
        place = chosen.randrange(len(before)) if turn >= len(files) else len(before) - 1
        changed = bytearray(before)
        changed[place] ^= chosen.randrange(1, 256)
        path.write_bytes(changed)
        named = [fault.where for fault in faults_of(tree)]
        assert any(where.startswith(str(path)) for where in named), (path, place, named)
        path.write_bytes(before)
    assert faults_of(tree) == []


def change(path, edit):
    """Apply `edit` to what a file holds, and write it back as the workflow would."""
    if path.suffix == ".jsonl":
        lines = jsonl(path)
        write_jsonl(path, edit(lines) or lines)
    elif path.suffix == ".parquet":
        edit(pl.read_parquet(path)).write_parquet(path)
    else:
        value = json.loads(path.read_text())
        edit(value)
        path.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def in_last(name, edit):
    return lambda tree: change(tree / LAST / name, edit)


def new_output(tree):
    """A new row's output, wherever it stands, with an id that fits it."""
    from middo.rows import with_ids

    refined = jsonl(tree / LAST / "refined.jsonl")
    forged = with_ids([{**refined[0], "output": "It is a lie."}])[0]
    for name in ("refined.jsonl", "dataset.jsonl"):
        change(
            tree / LAST / name,
            lambda lines: [
                {**line, **{key: forged[key] for key in ("id", "output")}} if line["id"] == refined[0]["id"] else line
                for line in lines
            ],
        )


def other_tokens(tree):
    for name in ("refine.json", "manifest.json"):

        def edit(value):
            (value if "tokens" in value else value["teacher"])["tokens"]["prompt"] += 1

        change(tree / LAST / name, edit)


def back_again(tree):
    """A replaced row of the predecessor stands in the dataset again."""
    gone = jsonl(tree / LAST / "dataset.jsonl")
    ids = {row["id"] for row in gone}
    row = next(row for row in jsonl(tree / "middo/iter1/dataset.jsonl") if row["id"] not in ids)
    write_jsonl(tree / LAST / "dataset.jsonl", [*gone, row])


def flip_flag(table):
    place = table["hard"].to_list().index(False)
    return table.with_columns(hard=pl.Series([value or n == place for n, value in enumerate(table["hard"])]))


def set_first(key, value):
    def edit(lines):
        lines[0][key] = value

    return edit


def swap(lines):
    lines[0], lines[1] = lines[1], lines[0]


LIES = {
    "a teacher's output": (new_output, "output: not what the stored answers, read again, give"),
    "a kept row's text": (in_last("dataset.jsonl", set_first("output", "x")), "is not what it was in middo/iter1"),
    "a row that is gone": (in_last("dataset.jsonl", lambda lines: lines[1:]), "is gone, and no row has replaced it"),
    "a row that is back": (back_again, "was replaced, and is still there"),
    "the order of rows": (in_last("dataset.jsonl", swap), "does not hold the kept rows in their order"),
    "a flag": (in_last("selection.parquet", flip_flag), "`hard` is not what signal and τ say"),
    "a signal": (
        in_last("selection.parquet", lambda table: table.with_columns(pl.col("quality") + 1)),
        "mu of quality is",
    ),
    "a threshold": (
        in_last("selection.json", lambda v: v["axes"]["quality"]["thresholds"]["quality"].update(tau=9.0)),
        "tau of quality is 9.0",
    ),
    "a count": (in_last("selection.json", lambda v: v["axes"]["quality"].update(selected=1)), "not what was counted"),
    "a parent": (in_last("refined.jsonl", set_first("parents", ["0000000000000000-0"])), "is not in middo/iter1"),
    "a rejection left out": (in_last("rejected.jsonl", lambda lines: lines[1:]), "neither"),
    "a rejection's reason": (in_last("rejected.jsonl", set_first("reason", "bored")), "reason: not what the stored"),
    "a request": (in_last("refined.jsonl", set_first("requests", ["0" * 64] * 2)), "there is no stored answer"),
    "tokens": (other_tokens, "tokens: not what the stored answers add up to"),
    "a setting": (in_last("manifest.json", lambda v: v["settings"].update(seed=1)), "identity settings do not hash"),
    "a prompt": (
        in_last("manifest.json", lambda v: v["prompts"]["simplify.md"].update(text="Hm.")),
        "the text of the prompt simplify.md does not hash",
    ),
    "m": (in_last("manifest.json", lambda v: v["thresholds"].pop("quality")), "`thresholds` is not what the"),
    "the strategy": (
        lambda tree: shutil.move(tree / "few", tree / "other"),
        "`settings.strategy.name` is not what the version's files say",
    ),
    "the checkpoint": (
        lambda tree: (tree / "middo/iter1/checkpoint.sha256").write_text("other"),
        "its bytes do not hash to what",
    ),
    "a field": (
        in_last("refined.jsonl", lambda lines: [{**line, "parents": None} for line in lines]),
        "has not the form that it must have",
    ),
    "a drawn row": (
        lambda tree: change(tree / "random/iter1/selection.parquet", flip_flag),
        "`hard` is not what signal and τ say",
    ),
    "a row left out again": (
        lambda tree: change(tree / "few/iter1/leaks.jsonl", lambda hits: hits.clear()),
        "does not hold the kept rows in their order",
    ),
    "a form": (in_last("refine.json", lambda value: value.pop("rows")), "has not the form that it must have"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_found_although_all_hashes_fit(tree, lie):
    tell, said = LIES[lie]
    tell(tree)
    reseal(tree, LAST, "random/iter1", *(["few/iter1"] if (tree / "few").is_dir() else []))
    found = faults_of(tree)
    assert any(said in fault.what for fault in found), found


def test_a_forged_predecessor_is_not_what_the_next_version_was_made_from(tree):
    change(tree / "seed/dataset.jsonl", set_first("output", "x"))
    reseal(tree, "seed")
    named = {(fault.where, fault.what.partition(" ")[0]) for fault in faults_of(tree)}
    for version in ("few/iter1", "middo/iter1"):
        where = str(tree / version / "manifest.json")
        assert {(where, "predecessor_sha256"), (where, "predecessor_manifest_sha256")} <= named


def test_a_seed_that_is_not_what_its_file_holds(tree):
    change(tree / "seed/dataset.jsonl", swap)
    reseal(tree, "seed", "few/iter1", "middo/iter1", LAST)
    assert any("does not hold the rows of" in fault.what for fault in faults_of(tree))
    (tree.parents[1] / "data/seed.json").unlink()
    found = audit(tree, tree.parent / "teacher_answers")
    assert "the seed file is no longer there" in found.notes[0]


def test_a_manifest_must_be_written_as_the_workflow_writes_it(tree):
    path = tree / LAST / "manifest.json"
    path.write_text(path.read_text().replace("{\n", "{\n ", 1))
    assert [fault.where for fault in faults_of(tree)] == [str(path)]
    manifest = json.loads(path.read_text())
    del manifest["sha256"]
    path.write_text(json.dumps(manifest))
    assert "made by an older version" in faults_of(tree)[0].what


@pytest.mark.parametrize("text", ["[]", '{"sha256": NaN}', '"', "", '{"sha256": "", "made_from": []}'])
def test_what_is_no_manifest_is_named(tree, text):
    (tree / LAST / "manifest.json").write_text(text)
    assert [fault.where for fault in faults_of(tree)] == [str(tree / LAST / "manifest.json")]


@pytest.mark.parametrize("name", ["dataset.jsonl", "manifest.json", "selection.json", "rejected.jsonl"])
def test_a_missing_file_is_named(tree, name):
    (tree / "middo/iter1" / name).unlink()
    assert str(tree / "middo/iter1" / name) in {fault.where for fault in faults_of(tree)}


def test_a_missing_predecessor_is_named(tree):
    shutil.rmtree(tree / "middo/iter1")
    assert str(tree / "middo/iter1") in {fault.where for fault in faults_of(tree)}


def test_a_version_that_is_being_made_is_only_noted(tree):
    (tree / "middo/iter3").mkdir()
    (tree / "middo/iter3/selection.json").write_text("{}")
    found = audit(tree, tree.parent / "teacher_answers")
    assert found.faults == [] and found.notes == [f"{tree / 'middo/iter3'}: not finished, and so not a version"]


def test_a_missing_answer_names_the_rows_that_it_made(tree):
    path = tree.parent / "teacher_answers/small/middo/iter2.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    key = jsonl(tree / LAST / "refined.jsonl")[0]["requests"][1]
    path.write_text("".join(line for line in lines if json.loads(line)["key"] != key))
    found = faults_of(tree)
    assert any("refined.jsonl, row" in fault.where and f"request {key}" in fault.what for fault in found)


def test_a_cut_off_answer_is_noted_but_a_changed_last_newline_is_a_fault(tree):
    path = tree.parent / "teacher_answers/other.jsonl"
    line = answers_of(tree).splitlines()[0].encode()
    for tail in (line[:1], line[: len(line) // 2], line[:-1], line):
        path.write_bytes(tail)
        found = audit(tree, tree.parent / "teacher_answers")
        assert found.faults == [] and "was cut off" in found.notes[0]
    for byte in set(range(256)) - {ord("\n")}:
        path.write_bytes(line + bytes([byte]))
        assert [fault.where for fault in faults_of(tree)] == [f"{path}, line 1"], byte


def test_the_program_says_so_and_exits(tree):
    done = program(tree, "results/small")
    assert done.returncode == 0 and "every row of every version is traced back" in done.stdout
    assert program(tree).stdout == done.stdout, "the only experiment there is"
    (tree / LAST / "refine.json").write_text("{}")
    done = program(tree, "results/small")
    assert done.returncode == 1 and "1 thing" in done.stderr
    assert "wrong: results/small/middo/iter2/refine.json: has been changed" in done.stdout
    assert re.search(r"middo/iter2 +\|.*changed", done.stdout)
    shutil.copytree(tree, tree.with_name("another"))
    assert "one of results/another, results/small" in program(tree).stderr
    assert "no experiment lies there" in program(tree, "results/none").stderr


def test_trace_tells_all_of_a_row(made):
    line = next(line for line in jsonl(made / LAST / "refined.jsonl") if line["origin"] == "improved")
    parent = line["parents"][0]
    told = program(made, "trace", line["id"][:10]).stdout
    answers = {record["key"]: record for record in map(json.loads, answers_of(made).splitlines())}
    for key in line["requests"]:
        asked = answers[key]["request"]["messages"][0]["content"].splitlines()
        said = answers[key]["response"]["choices"][0]["message"]["content"].splitlines()
        assert all(text in told for text in [*asked, *said]) and key[:16] in told
    report = json.loads((made / LAST / "selection.json").read_text())["axes"]["quality"]["thresholds"]["quality"]
    quality = dict(pl.read_parquet(made / LAST / "selection.parquet").select("id", "quality").iter_rows())[parent]
    assert f"{LAST}: {parent} was selected as low: quality {quality:.4g} < {report['tau']:.4g}" in told
    assert f"lives in {LAST}\n" in told and f"improved: {line['id']} takes its place" in told
    assert "\x1b" not in told
    onwards = program(made, "trace", parent).stdout
    assert "What became of it" in onwards and line["id"] in onwards.partition("What became of it")[2]


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_a_value_and_its_threshold_look_as_different_as_they_are(value, limit):
    shown = apart(value, limit)
    assert (float(shown[0]) == float(shown[1])) == (value == limit)


def test_trace_tells_of_rejections(made):
    line = jsonl(made / LAST / "rejected.jsonl")[0]
    told = program(made, "trace", line["id"]).stdout
    assert f"rejected after {line['attempts']} attempts ({line['step']}: {line['reason']})" in told


def test_trace_tells_of_rows_left_out_again(made):
    hit = jsonl(made / "few/iter1/leaks.jsonl")[0]
    row = next(row for row in jsonl(made / "few/iter1/refined.jsonl") if row["id"] == hit["id"])
    assert f"{hit['id']} was left out again (leak)" in program(made, "trace", row["parents"][0]).stdout


def test_trace_tells_of_a_draw(made):
    row = jsonl(made / "random/iter1/refined.jsonl")[0]
    assert "drawn at random, one of " in program(made, "trace", row["id"]).stdout


def test_trace_wants_one_row(made):
    ids = Counter(row["id"][0] for row in jsonl(made / "seed/dataset.jsonl"))
    assert "ids begin with" in program(made, "trace", ids.most_common(1)[0][0]).stderr
    assert "No version holds a row" in program(made, "trace", "nothing").stderr


words = st.lists(st.sampled_from(["all", "the", "words,", "are", "here\n", "and", "there."]), max_size=12).map(" ".join)


@given(old=words, new=words)
def test_a_diff_holds_both_texts(old, new):
    lines = readable_diff(old, new, plain)
    if lines[0].startswith("- "):
        assert "\n".join(line[2:] for line in lines if line.startswith("- ")) == old
        assert "\n".join(line[2:] for line in lines if line.startswith("+ ")) == new
    else:
        text = "\n".join(line[2:] for line in lines)
        assert re.sub(r"\{\+.*?\+\}|\[-|-\]", "", text, flags=re.DOTALL) == old
        assert re.sub(r"\[-.*?-\]|\{\+|\+\}", "", text, flags=re.DOTALL) == new
    assert re.sub(r"\x1b\[[0-9]+m", "", "\n".join(readable_diff(old, new, coloured))) == "\n".join(lines)


def test_what_little_changed_is_marked_inside_the_text():
    assert readable_diff("Add 1 and 2. Then spell it.", "Add 1 and 3.", plain) == [
        "  Add 1 and [-2. Then spell it.-]{+3.+}"
    ]


def test_base_model_hashes_are_in_the_form_of_sha256sum(made):
    with working_in(made.parents[1] / "model"):
        subprocess.run(["sha256sum", "--strict", "-c", made / "base_model.sha256"], check=True)
    manifest = json.loads((made / LAST / "manifest.json").read_text())
    assert set(manifest["base_model"]["files"]) == {path.name for path in (made.parents[1] / "model").iterdir()}


def test_diff_counts_and_names_the_rows(made):
    told = program(made, "diff", "seed", LAST).stdout.splitlines()
    before, after = ({row["id"] for row in jsonl(made / v / "dataset.jsonl")} for v in ("seed", LAST))
    assert told[1] == f"in both: {len(before & after)}"
    assert told[2] == f"only in seed: {len(before - after)} ({len(before - after)} seed)"
    assert told[3].startswith(f"only in {LAST}: {len(after - before)} (")
    assert {line.split()[1] for line in told if line.startswith("- ")} == before - after
    added = [line.split()[1] for line in told if line.startswith("+ ")]
    assert len(added) == len(set(added)) and set(added) == after - before
    assert "There is no version nothing" in program(made, "diff", "seed", "nothing").stderr


def test_rebuild_prints_a_script_with_the_settings_and_the_lock(made, tmp_path):
    script = program(made, "rebuild", LAST).stdout
    assert subprocess.run(["sh", "-n"], input=script, text=True).returncode == 0
    manifest = json.loads((made / LAST / "manifest.json").read_text())
    commit = manifest["code"]["commit"] or "not known"
    for told in (commit, manifest["dataset_sha256"], manifest["settings_sha256"]):
        assert told in script
    for name, locked in manifest["environments"].items():
        assert f"{locked['sha256']}  envs/{name}.yaml" in script and ", ".join(locked["pins"]) in script
    assert "--configfile rebuild/config.yaml --cores all results/small/middo/iter2/dataset.jsonl" in script
    # The part that writes settings and prompts, run for itself.
    part = script[script.index("mkdir -p rebuild/prompts") : script.index("# The environments")]
    (tmp_path / "config").symlink_to(ROOT / "config")
    with working_in(tmp_path):
        subprocess.run(["sh", "-eu"], input=part, text=True, check=True)
    for name in manifest["prompts"]:
        assert (tmp_path / "rebuild/prompts" / name).read_bytes() == (ROOT / "config/prompts" / name).read_bytes()
    config = yaml.safe_load((tmp_path / "rebuild/config.yaml").read_text())
    for key in ("training", "seed", "overlap", "dataset", "complexity", "quality"):
        assert config[key] == manifest["settings"][key]
    assert (config["iterations"], config["experiment"]) == (2, "small")
    check_config(config)


def test_rebuild_warns_of_what_is_not_known(tree):
    path = tree / LAST / "manifest.json"
    manifest = json.loads(path.read_text())
    for code, said in (
        ({"commit": "0" * 40, "modified": True}, "WARNING: files differed from this commit"),
        ({"commit": None, "modified": None}, "WARNING: it did not lie in a git checkout"),
    ):
        write_manifest(path, {**manifest, "code": code})
        assert said in program(tree, "rebuild", LAST).stdout
    assert program(tree, "rebuild", "seed").stdout.count("import_seed.py --source data/seed.json") == 1
