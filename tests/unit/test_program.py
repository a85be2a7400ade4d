"""The frame of the programs, their work folders, their children, the names of versions."""

import os
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from middo import method, work
from middo.child import safe_environment
from middo.versions import all_versions, iteration_of, predecessor, strategy_of, version_name

FRAME = """
import sys
sys.path.insert(0, {scripts!r})
from middo import program
def main(args):
    {body}
program.run(main, program.parser("what it is"), environment="driver")
"""


def run(body, *arguments):
    code = FRAME.format(scripts=str(ROOT / "scripts"), body=body)
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)


def test_an_error_for_people_has_no_traceback_and_stands_in_the_log_too(tmp_path):
    log = tmp_path / "results/demo/seed/logs/step.log"
    done = run("print('noise'); raise program.UserError('mend this')", "--log", str(log))
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.endswith("error: mend this\n") and "Traceback" not in done.stderr and "noise" not in done.stderr
    assert "noise" in log.read_text() and "error: mend this" in log.read_text()


def test_what_nobody_foresaw_shows_its_traceback_and_fails(tmp_path):
    done = run("{}['absent']", "--log", str(tmp_path / "step.log"))
    assert done.returncode == 1 and "KeyError: 'absent'" in done.stderr and "Traceback" in done.stderr
    assert "KeyError: 'absent'" in (tmp_path / "step.log").read_text()


def test_a_full_disk_is_no_crash(tmp_path):
    done = run("open('/dev/full', 'w', buffering=1).write('x\\n')", "--log", str(tmp_path / "step.log"))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "error: No space left on device. Make room and start again" in done.stderr


def test_a_log_on_a_full_disk_leaves_the_terminal():
    done = run("program.say('one'); program.say('two'); raise program.UserError('three')", "--log", "/dev/full")
    said = [line.partition("] ")[2] for line in done.stderr.splitlines() if line.startswith("[")]
    assert said == ["the log cannot be written: No space left on device", "one", "two", "error: three"]
    assert done.returncode == 1


def test_an_interruption_is_no_crash(tmp_path):
    done = run("import os, signal; os.kill(os.getpid(), signal.SIGINT)", "--log", str(tmp_path / "step.log"))
    assert done.returncode != 0 and "interrupted" in done.stderr and "Traceback" not in done.stderr


def test_output_of_children_goes_to_the_log(tmp_path):
    log = tmp_path / "step.log"
    run("import subprocess; subprocess.run(['echo', 'from a child'])", "--log", str(log))
    assert "from a child" in log.read_text()


def test_progress_tells_how_far_and_the_end_even_when_quick(tmp_path):
    done = run("p = program.Progress(40, 'calls', done=10)\n    p.advance(29)\n    p.advance(1, 'and more')")
    assert done.stderr == "40 of 40 calls (100 %), done, and more\n"


def test_work_is_found_again_only_for_the_same_work(tmp_path, monkeypatch):
    output = tmp_path / "scores.parquet"
    first = work.work_folder(output, "scores", {"dataset": "a"})
    (first / "part").touch()
    assert work.work_folder(output, "scores", {"dataset": "a"}) == first
    assert work.work_folder(output, "scores", {"dataset": "b"}) != first
    monkeypatch.setitem(method.METHOD, "scores", method.METHOD["scores"] + 1)
    assert work.work_folder(output, "scores", {"dataset": "a"}) != first
    other = work.work_folder(tmp_path / "losses.parquet", "losses", {})
    work.clear_work(output)
    assert not first.exists() and other.exists()
    work.clear_work(tmp_path / "losses.parquet")
    assert list(tmp_path.iterdir()) == []


def test_what_a_step_finished_outlives_its_outputs_until_somebody_has_seen_them(tmp_path):
    table, folder = tmp_path / "scores.parquet", tmp_path / "details"
    older = work.work_folder(table, "scores", {"dataset": "old"})
    now = work.work_folder(table, "scores", {"dataset": "new"})
    (now / "part").touch()
    assert not work.restored(now, [table, folder])
    table.write_text("ratings")
    (folder / "more").mkdir(parents=True)
    (folder / "more" / "file").write_text("answers")
    work.finish(now, [table, folder])
    assert [path.name for path in now.iterdir()] == ["finished"] and not older.exists()
    assert table.stat().st_nlink == 2, "kept without a copy"
    table.unlink()
    shutil.rmtree(folder)
    assert work.restored(now, [table, folder])
    assert table.read_text() == "ratings" and (folder / "more" / "file").read_text() == "answers"
    work.forget_finished(tmp_path / "losses.parquet")
    assert work.restored(now, [table, folder])
    shard = work.work_folder(tmp_path / "shards" / "scores_2-of-7.parquet", "scores", {})
    other = work.work_folder(tmp_path / "shards" / "losses_2-of-7.parquet", "losses", {})
    work.forget_finished(table)
    assert not shard.exists() and other.exists()
    work.forget_finished(tmp_path / "losses.parquet")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["details", "scores.parquet"]


def test_finished_work_is_copied_where_there_are_no_hard_links(tmp_path, monkeypatch):
    def no_links(*_):
        raise OSError("not supported")

    monkeypatch.setattr(os, "link", no_links)
    table = tmp_path / "scores.parquet"
    table.write_text("ratings")
    kept = work.work_folder(table, "scores", {})
    work.finish(kept, [table])
    table.unlink()
    assert work.restored(kept, [table]) and table.read_text() == "ratings"


def test_children_see_no_secrets(monkeypatch):
    for name in ("OPENAI_API_KEY", "HF_TOKEN", "aws_secret", "DB_PASSWORD", "HARMLESS"):
        monkeypatch.setenv(name, "x")
    seen = safe_environment()
    assert "HARMLESS" in seen and not {"OPENAI_API_KEY", "HF_TOKEN", "aws_secret", "DB_PASSWORD"} & seen.keys()


def test_no_child_outlives_a_killed_program(tmp_path):
    code = f"""
import sys
sys.path.insert(0, {str(ROOT / "scripts")!r})
from middo.child import running, safe_environment
with running(["sleep", "300"], safe_environment()) as child:
    print(child.pid, flush=True)
    child.wait()
"""
    program = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    child = int(program.stdout.readline())
    os.kill(child, 0)
    program.send_signal(signal.SIGKILL)
    program.wait()
    deadline = time.monotonic() + 20
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the child is still there"
        time.sleep(0.05)


@given(strategy=st.from_regex(r"[a-z0-9][a-z0-9_-]*", fullmatch=True), iteration=st.integers(1, 100))
def test_versions_have_one_predecessor_each(strategy, iteration):
    version = version_name(strategy, iteration)
    assert strategy_of(version) == strategy and iteration_of(version) == iteration
    assert iteration_of(predecessor(version)) == iteration - 1
    chain = all_versions([strategy], iteration)
    assert chain[0] == "seed" and [predecessor(later) for later in chain[1:]] == chain[:-1]


def test_the_seed_belongs_to_no_strategy():
    with pytest.raises(ValueError, match="every strategy"):
        predecessor("seed")
