"""For tests of refine.py: the endpoint, the command line, what came of a run."""

import atexit
import functools
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import psutil
from conftest import ROOT

from middo.files import read_jsonl, write_jsonl
from middo.rows import with_ids

PYTHON = ROOT / ".venvs" / "refine" / "bin" / "python"
SERVER = Path(__file__).parent / "fault_server.py"
# No file of the project holds it.
KEY = f"sk-marked-{secrets.token_hex(16)}"
CONCURRENCY = 4
ATTEMPTS = 2


@contextmanager
def endpoint(journal: Path, *options: str):
    """The fault server's URL while it runs."""
    command = [sys.executable, SERVER, "--journal", journal, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
        finally:
            server.terminate()


def command(world: Path, out: Path, url: str, answers: Path | None = None, *more: str, **access) -> list:
    """The command line of one run; its outputs and its answers lie under `out`."""
    teacher = dict(model="m", base_url=url, temperature=1.0, top_p=1.0, max_tokens=100, attempts=ATTEMPTS)
    reach = dict(api_key_env="REFINE_TEST_KEY", max_concurrency=CONCURRENCY, timeout=4, max_retries=4, command=None)
    reach |= dict(prices=None, max_cost=None, max_requests=None)
    answers = answers or out / "answers" / "test" / "iter1.jsonl"
    return [
        *(PYTHON, ROOT / "scripts" / "refine.py", "--dataset", world / "dataset.jsonl"),
        *("--selection", world / "selection.parquet", "--neighbors", world / "neighbors.parquet", "--prompts"),
        *(ROOT / "config" / "prompts" / f"{name}.md" for name in ("simplify", "improve", "extend", "answer")),
        *("--teacher", json.dumps(teacher), "--access", json.dumps(reach | access), "--iteration", "1"),
        *("--answers", answers, "--answers-root", answers.parents[1], "--log", out / "logs" / "refine.log"),
        *("--refined", out / "refined.jsonl", "--rejected", out / "rejected.jsonl", "--report", out / "refine.json"),
        *more,
    ]


def environment(key: str | None = KEY) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "REFINE_TEST_KEY"}
    return kept | ({"REFINE_TEST_KEY": key} if key is not None else {})


# Imports DataDreamer once, which takes seconds; each line of its input is then a run in a process of its own, made by
# fork, or a run to wait for.
FORKS = """
import inspect, json, os, resource, runpy, sys
import middo.teacher, openai.resources.chat.completions
# DataDreamer looks at its callers, and Python then at all modules, once.
inspect.stack()
for line in sys.stdin:
    asked = json.loads(line)
    if "wait" in asked:
        print(os.waitstatus_to_exitcode(os.waitpid(asked["wait"], 0)[1]), flush=True)
        continue
    child = os.fork()
    if child:
        print(child, flush=True)
        continue
    code = 1
    try:
        os.dup2(os.open(asked["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
        os.dup2(2, 1)
        os.environ.pop("REFINE_TEST_KEY", None)
        os.environ.update(asked["environment"])
        if asked["longest_file"]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (asked["longest_file"], resource.RLIM_INFINITY))
        sys.argv = asked["words"]
        runpy.run_path(sys.argv[0], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        sys.stderr.flush()
        os._exit(code)
"""


@functools.cache
def _forks() -> subprocess.Popen:
    process = subprocess.Popen(
        [PYTHON, "-c", FORKS],
        cwd=ROOT,
        env=environment(None) | {"PYTHONPATH": str(ROOT / "scripts")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(process.kill)
    return process


def _ask_forks(**asked) -> int:
    forks = _forks()
    forks.stdin.write(json.dumps(asked) + "\n")
    forks.stdin.flush()
    return int(forks.stdout.readline())


class Run:
    """One run of refine.py, under way."""

    def __init__(self, words: list, key: str | None = KEY, longest_file: int | None = None) -> None:
        """`words` as `command` makes them; `longest_file`: bytes beyond which no file grows (RLIMIT_FSIZE)."""
        self.output = Path(tempfile.mkstemp(prefix="refine-output-")[1])
        self.pid = _ask_forks(
            words=[str(word) for word in words[1:]],
            output=str(self.output),
            environment={} if key is None else {"REFINE_TEST_KEY": key},
            longest_file=longest_file,
        )

    def running(self) -> bool:
        return psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE

    def kill(self) -> None:
        """kill -9."""
        os.kill(self.pid, signal.SIGKILL)
        assert self.end().returncode == -signal.SIGKILL

    def end(self) -> subprocess.CompletedProcess:
        """Wait for the end."""
        code = _ask_forks(wait=self.pid)
        said = self.output.read_text(errors="backslashreplace")
        self.output.unlink()
        return subprocess.CompletedProcess([], code, stdout="", stderr=said)


def refine(words: list, key: str | None = KEY, longest_file: int | None = None) -> subprocess.CompletedProcess:
    """A whole run of refine.py."""
    return Run(words, key, longest_file).end()


def refine_anew(words: list) -> subprocess.CompletedProcess:
    """A whole run in an interpreter that is started for it, as users start it."""
    return subprocess.run(words, cwd=ROOT, env=environment(), capture_output=True, text=True)


def results(out: Path) -> list[bytes]:
    return [(out / name).read_bytes() for name in ("refined.jsonl", "rejected.jsonl", "refine.json")]


def assert_no_key(folder: Path, *printed: str) -> None:
    holding = [path for path in folder.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert not holding and not any(KEY in text for text in printed)


def ended(out: Path) -> dict[tuple[str, str], dict]:
    """Every refined and rejected line by the id acted on and the origin; each stands once."""
    lines = [((row["parents"][0], row["origin"]), row) for row in read_jsonl(out / "refined.jsonl")]
    lines += [((row["id"], row["origin"]), row) for row in read_jsonl(out / "rejected.jsonl")]
    assert len(dict(lines)) == len(lines)
    return dict(lines)


def write_world(folder: Path, rows: list[dict], kinds: list[str]) -> Path:
    """dataset.jsonl of `rows` (instruction, input), selection.parquet by `kinds`, for instance "hard low", and
    neighbors.parquet, where each row's are the two before it."""
    made = with_ids(
        dict(input="", output=f"old {number}", origin="seed", parents=[], iteration=0) | row
        for number, row in enumerate(rows)
    )
    ids = [row["id"] for row in made]
    near = [[ids[number - 1], ids[number - 2]] for number in range(len(ids))]
    selected = {name: [name in kind.split() for kind in kinds] for name in ("hard", "low", "sparse")}
    write_jsonl(folder / "dataset.jsonl", made)
    # In another order than the dataset: rows are joined by id.
    pl.DataFrame({"id": ids, **selected}).reverse().write_parquet(folder / "selection.parquet")
    pl.DataFrame({"id": ids, "neighbors": near}).reverse().write_parquet(folder / "neighbors.parquet")
    return folder
