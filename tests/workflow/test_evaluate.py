"""evaluate.py with the real OpenCompass, on a model whose answers are known."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, SHARED

sys.path.insert(0, str(ROOT / "scripts"))

import evaluate

from middo.benchmarks import BENCHMARKS, data_files, questions
from middo.files import sha256_file
from middo.opencompass import Measurement, read_questions, read_score
from middo.program import UserError
from middo.work import forget_finished, work_folder

PYTHON = ROOT / ".venvs" / "evaluate" / "bin" / "python"
SERVER_PYTHON = ROOT / ".venvs" / "score-cpu" / "bin" / "python"
GSM8K, MMLU = "gsm8k_gen_1d7fe4", "mmlu_zero_shot_gen_47e2c0"
REAL = SHARED / "data" / "benchmarks" / "gsm8k_test.jsonl"

QA = [{"question": f"What is {n} plus {n + 3}?", "answer": 2 * n + 3} for n in range(12)]
QA_RIGHT = 5
MCQ = [{"question": f"Is {n} more than 4?", "A": "yes", "B": "no", "answer": "BA"[n > 4]} for n in range(8)]
MCQ_RIGHT = 6


def write_jsonl(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with question files, and a checkpoint that has memorized an answer to each, right or wrong."""
    folder = tmp_path_factory.mktemp("evaluate")
    write_jsonl(folder / "qa.jsonl", QA)
    write_jsonl(folder / "mcq.jsonl", MCQ)
    pairs = [[row["question"], str(row["answer"] + (i >= QA_RIGHT))] for i, row in enumerate(QA)]
    for i, row in enumerate(MCQ):
        prompt = f"Question: {row['question']}\nA. yes\nB. no"
        pairs.append([prompt, row["answer"] if i < MCQ_RIGHT else "AB"[row["answer"] == "A"]])
    (folder / "pairs.json").write_text(json.dumps(pairs))
    maker = Path(__file__).with_name("memorizing_model.py")
    subprocess.run([PYTHON, maker, folder / "pairs.json", folder / "checkpoint"], check=True)
    (folder / "checkpoint.sha256").write_text(sha256_file(folder / "checkpoint" / "model.safetensors"))
    return folder


def own(world):
    """The two question files as the config names them."""
    return [{"name": kind, "path": str(world / f"{kind}.jsonl"), "type": kind} for kind in ("qa", "mcq")]


def settings(benchmarks=(), custom=(), data=None, max_out_len=6, limit=None):
    return {
        "benchmarks": list(benchmarks),
        "custom": list(custom),
        "data": data and str(data),
        "max_out_len": max_out_len,
        "limit": limit,
    }


def run(world, out, evaluation, *more):
    """Run evaluate.py; returns (exit status, terminal's text, eval.json or None)."""
    command = [PYTHON, ROOT / "scripts/evaluate.py", "--checkpoint", world / "checkpoint"]
    command += ["--sha256", world / "checkpoint.sha256", "--evaluation", json.dumps(evaluation)]
    command += ["--out", out / "eval.json", "--details", out / "eval", "--log", out / "logs/evaluate.log", *more]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    result = out / "eval.json"
    return done.returncode, done.stdout, json.loads(result.read_text()) if result.is_file() else None


def predictions(out, subset):
    stored = json.loads((out / "eval/predictions/checkpoint" / f"{subset}.json").read_text())
    return [stored[str(i)]["prediction"] for i in range(len(stored))]


def gsm8k_data(folder):
    """20 real rows as OpenCompass wants them."""
    if not REAL.is_file():
        pytest.skip(f"{REAL} is absent")
    rows = [json.loads(line) for line in REAL.read_text().splitlines()[:20]]
    write_jsonl(folder / "data/gsm8k/test.jsonl", rows)
    write_jsonl(folder / "data/gsm8k/train.jsonl", rows[:2])
    return rows


@pytest.fixture(scope="module")
def measured(world):
    """One real evaluation on the CPU: both own files and, where its rows are there, GSM8K by its official config."""
    benchmarks = [GSM8K] if REAL.is_file() else []
    if benchmarks:
        gsm8k_data(world)
    status, said, result = run(world, world / "hf", settings(benchmarks, own(world), world))
    assert status == 0, said
    return world / "hf", said, result


def test_own_questions_are_scored_as_the_model_answers_them(measured):
    out, said, result = measured
    answers = {"qa": predictions(out, "qa"), "mcq": predictions(out, "mcq")}
    right = sum(str(row["answer"]) == answer for row, answer in zip(QA, answers["qa"], strict=True))
    assert right == QA_RIGHT
    assert result["benchmarks"]["qa"]["score"] == pytest.approx(100 * right / len(QA))
    assert sum(row["answer"] == answer for row, answer in zip(MCQ, answers["mcq"], strict=True)) == MCQ_RIGHT
    assert result["benchmarks"]["mcq"]["score"] == 75.0
    scores = [entry["score"] for entry in result["benchmarks"].values()]
    assert result["mean"] == pytest.approx(sum(scores) / len(scores))
    assert result["benchmarks"]["qa"]["rows"] == 12 and result["engine"] == "hf"
    assert "evaluating qa: 12 questions" in said


def test_nothing_is_left_behind(measured):
    out, _, _ = measured
    forget_finished(out / "eval.json")
    assert sorted(path.name for path in out.iterdir()) == ["eval", "eval.json", "logs"]
    assert not list((out / "eval").rglob("tmp*"))


def test_vllm_server_gives_the_same_answers(world, measured):
    out = world / "vllm"
    more = ["--engine", "vllm", "--server-python", SERVER_PYTHON]
    status, said, result = run(world, out, settings(custom=own(world)), *more)
    assert status == 0, said
    for subset in ("qa", "mcq"):
        assert predictions(out, subset) == predictions(measured[0], subset)
        assert result["benchmarks"][subset] == measured[2]["benchmarks"][subset]
    assert result["engine"] == "vllm"


def test_gsm8k_by_its_official_config(world, measured):
    rows = gsm8k_data(world)
    out, _, result = measured
    stored = json.loads((out / "eval/predictions/checkpoint/gsm8k.json").read_text())
    assert len(stored) == 20
    assert rows[7]["question"] in stored["7"]["origin_prompt"][-1]["prompt"]
    expected = [row["answer"].split("#### ")[1] for row in rows]
    right = sum(a in text.split() for a, text in zip(expected, predictions(out, "gsm8k"), strict=True))
    assert result["benchmarks"][GSM8K] == {"config": GSM8K, "metric": "accuracy", "rows": 20, "score": 5.0 * right}


def test_restart_keeps_answers_and_mmlu_is_the_mean_of_its_subjects(world, tmp_path):
    rows = gsm8k_data(tmp_path)
    for number, subset in enumerate(BENCHMARKS[MMLU].subsets.values()):
        for name in (subset, subset.replace("test", "dev")):
            path = tmp_path / "data" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("question,one,two,three,four,B\n" * (2 + number % 2))
    evaluation = settings([GSM8K, MMLU], data=tmp_path, limit=10)
    key = evaluate.identity(evaluation, sha256_file(world / "checkpoint.sha256"), "hf", "cpu")
    folder = work_folder(tmp_path / "eval.json", "evaluate", key) / "run/predictions/checkpoint"
    folder.mkdir(parents=True)

    def answer_before(subset, texts):
        stored = {str(i): {"origin_prompt": "", "prediction": text} for i, text in enumerate(texts)}
        (folder / f"{subset}.json").write_text(json.dumps(stored))

    answers = [row["answer"].split("#### ")[1] for row in rows[:10]]
    answer_before("gsm8k", [f"So the answer is {a}" for a in answers[:7]] + ["none"] * 3)
    by_subject = []
    for number, (subset, count) in enumerate(questions(MMLU, tmp_path, 10).items()):
        right = number % 3
        answer_before(subset, ["The answer is B"] * right + ["The answer is C"] * (count - right))
        by_subject.append(100 * right / count)
    # What the interruption tore is asked again.
    torn = next(iter(BENCHMARKS[MMLU].subsets))
    (folder / f"{torn}.json").write_text('{"0": ')
    by_subject[0] = None

    status, said, result = run(world, tmp_path, evaluation)
    assert status == 0, said
    assert result["benchmarks"][GSM8K]["score"] == 70.0 and result["benchmarks"][GSM8K]["rows"] == 10
    again = [text.strip()[:1] == "B" for text in predictions(tmp_path, torn)]
    by_subject[0] = 100 * sum(again) / len(again)
    assert result["benchmarks"][MMLU]["score"] == pytest.approx(sum(by_subject) / 57)
    assert result["benchmarks"][MMLU]["rows"] == 57 * 2 + 28


def test_a_task_that_fails_makes_the_program_fail(world, tmp_path):
    rows = gsm8k_data(tmp_path)
    # Valid JSON, so that only OpenCompass can notice: an answer without its mark.
    rows[3]["answer"] = "?"
    write_jsonl(tmp_path / "data/gsm8k/test.jsonl", rows)
    status, said, result = run(world, tmp_path, settings([GSM8K], data=tmp_path))
    assert status == 1 and result is None
    assert "OpenCompass failed" in said and "IndexError" in said
    assert not (tmp_path / "eval").exists()


def test_missing_data_is_named_before_anything_starts(world, tmp_path):
    status, said, _ = run(world, tmp_path, settings([GSM8K], data=tmp_path))
    assert status == 1
    for path in data_files([GSM8K], tmp_path):
        assert path in said


@pytest.mark.parametrize(
    ("result", "count", "message"),
    [
        ({"accuracy": 50.0}, 2, None),
        ({"accuracy": 50.0}, 1, "2 questions, but OpenCompass predicted 1"),
        ({"error": "no"}, 2, "gave no accuracy"),
        ({"accuracy": float("nan")}, 2, "gave no accuracy"),
        (None, 2, "no result"),
    ],
)
def test_a_number_is_taken_only_if_every_question_was_answered(tmp_path, result, count, message):
    for part, content in (("predictions", {str(i): {} for i in range(count)}), ("results", result)):
        (tmp_path / part / "checkpoint").mkdir(parents=True)
        if content is not None:
            (tmp_path / part / "checkpoint/x.json").write_text(json.dumps(content))
    measurement = Measurement("x", "x", "accuracy", {"x": 2})
    if message is None:
        assert read_score(tmp_path, measurement) == 50.0
        return
    with pytest.raises(UserError, match=message):
        read_score(tmp_path, measurement)


def test_ifeval_asks_for_the_data_of_its_sentence_counter(world, tmp_path):
    row = {"key": 1, "prompt": "Speak.", "instruction_id_list": ["length_constraints:number_sentences"], "kwargs": [{}]}
    write_jsonl(tmp_path / "data/ifeval/input_data.jsonl", [row])
    status, said, _ = run(world, tmp_path, settings(["IFEval_gen_3321a3"], data=tmp_path))
    assert status == 1 and str(tmp_path / "data/nltk_data/tokenizers/punkt_tab/english") in said


@pytest.mark.parametrize(
    ("kind", "line", "message"),
    [
        ("qa", '{"question": "a"}', "field 'answer'"),
        ("qa", "no json", "not JSON Lines"),
        ("mcq", '{"question": "a", "A": "x", "B": "y", "answer": "C"}', "one of these letters"),
        ("mcq", '{"question": "a", "A": "x", "answer": "A"}', "two at least"),
    ],
)
def test_faults_of_own_questions_are_named(tmp_path, kind, line, message):
    path = tmp_path / "own.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(UserError, match=message):
        read_questions({"name": "own", "path": str(path), "type": kind})
