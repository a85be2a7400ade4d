"""What OpenCompass 0.5.4 is told and what it answers: its config file, its predictions, its results.

Nothing here imports OpenCompass; it runs as a program of its own.
"""

import json
import string
from dataclasses import dataclass
from pathlib import Path
from pprint import pformat
from typing import Any

from middo.benchmarks import BENCHMARKS, questions
from middo.files import read_json, read_jsonl, write_jsonl
from middo.program import UserError

# The folder of a run's results has the model's name in its path.
MODEL = "checkpoint"
# Both need no more of a prompt than this, and a server needs no more memory for its cache.
CONTEXT = 16384
# Who speaks in a prompt. Without it OpenCompass's backends each have a reading of their own: one adds an empty line to
# every question, the other makes one text of all turns.
_ROLES = {
    "round": [{"role": "HUMAN", "api_role": "HUMAN"}, {"role": "BOT", "api_role": "BOT", "generate": True}],
    "reserved_roles": [{"role": "SYSTEM", "api_role": "SYSTEM"}],
}
# In one process: each further process would spend as long on imports as a small evaluation takes.
_ONE_PROCESS = """
infer = dict(
    partitioner=dict(type="opencompass.partitioners.NaivePartitioner", n=1000),
    runner=dict(
        type="opencompass.runners.LocalRunner", debug=True, task=dict(type="opencompass.tasks.OpenICLInferTask")
    ),
)
eval = dict(
    partitioner=dict(type="opencompass.partitioners.NaivePartitioner", n=1000),
    runner=dict(
        type="opencompass.runners.LocalRunner", debug=True, task=dict(type="opencompass.tasks.OpenICLEvalTask")
    ),
)
"""


@dataclass(frozen=True)
class Measurement:
    """One line of eval.json: a benchmark, or a file of own questions."""

    name: str
    config: str
    """Official config name, or the file's path."""
    metric: str
    questions: dict[str, int]
    """OpenCompass's name of each subset -> number of questions."""


def measurements(evaluation: dict[str, Any]) -> list[Measurement]:
    """What an evaluation asks, in the config's order.

    Raises UserError where a file of own questions is not in its form.
    """
    limit = evaluation["limit"]
    official = [
        Measurement(name, name, BENCHMARKS[name].metric, questions(name, evaluation["data"], limit))
        for name in evaluation["benchmarks"]
    ]
    own = [
        Measurement(own["name"], own["path"], "accuracy", {own["name"]: len(read_questions(own)[:limit])})
        for own in evaluation["custom"]
    ]
    names = [subset for measurement in official + own for subset in measurement.questions]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(
            f"evaluation.custom: the name {', '.join(twice)} is OpenCompass's for a benchmark; take another."
        )
    return official + own


def read_questions(custom: dict[str, str]) -> list[dict[str, str]]:
    """The questions of {name, path, type}: question and answer, for mcq the options A, B, … too; all as text.

    Raises UserError naming file and line of the first fault.
    """
    path = Path(custom["path"])
    if not path.is_file():
        raise UserError(f"evaluation.custom: {path} does not exist.")
    try:
        rows = read_jsonl(path)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not JSON Lines in UTF-8: {error}.") from error
    if not rows:
        raise UserError(f"{path} holds no question.")
    options = _options(rows[0]) if custom["type"] == "mcq" else []
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise UserError(f"{path}, question {number}: not a JSON object.")
        for field in ["question", *options, "answer"]:
            if isinstance(row.get(field), bool) or not isinstance(row.get(field), str | int | float):
                raise UserError(f"{path}, question {number}: field '{field}' is missing or no text.")
        if custom["type"] == "mcq" and (len(options) < 2 or _options(row) != options or row["answer"] not in options):
            raise UserError(
                f"{path}, question {number}: every mcq question needs the same options A, B, … (two at least) "
                "and one of these letters as its answer."
            )
    return [{field: str(row[field]) for field in ["question", *options, "answer"]} for row in rows]


def _options(row: Any) -> list[str]:
    """The letters A, B, … that `row` has, up to the first that it lacks."""
    letters = []
    for letter in string.ascii_uppercase:
        if letter not in row:
            break
        letters.append(letter)
    return letters


def write_config(path: Path, evaluation: dict[str, Any], model: dict[str, Any], longest_answer: int) -> None:
    """Write OpenCompass's config file: the official datasets by import, own ones beside it as normalized copies.

    An official config's own bound on the answer stays where it is below `longest_answer` (tokens).
    """
    imports = [
        f"    from opencompass.configs.datasets.{BENCHMARKS[name].folder}.{name} import {BENCHMARKS[name].variable}"
        for name in evaluation["benchmarks"]
    ]
    lines = ["from mmengine.config import read_base", "", "with read_base():", *imports, ""] if imports else []
    lines.append(f"datasets = {pformat([_custom(path.parent, own) for own in evaluation['custom']], width=118)}")
    for name in evaluation["benchmarks"]:
        lines.append(f"datasets += {BENCHMARKS[name].variable}")
    unlimited = [
        subset for name in evaluation["benchmarks"] if BENCHMARKS[name].whole for subset in BENCHMARKS[name].subsets
    ]
    lines += [
        "for dataset in datasets:",
        '    inferencer = dataset["infer_cfg"]["inferencer"]',
        f'    inferencer["max_out_len"] = min(inferencer.get("max_out_len", {longest_answer}), {longest_answer})',
    ]
    if evaluation["limit"] is not None:
        lines += [
            f'    if dataset["abbr"] not in {unlimited!r}:',
            f'        dataset["reader_cfg"]["test_range"] = "[0:{evaluation["limit"]}]"',
        ]
    lines += ["del dataset, inferencer", f"models = [{pformat(model, width=118)}]", _ONE_PROCESS]
    path.write_text("\n".join(lines), encoding="utf-8")


def _custom(folder: Path, own: dict[str, str]) -> dict[str, Any]:
    """A dataset of own questions: the prompts and scorers of OpenCompass's custom datasets (qa, mcq).

    Unlike theirs, white space around an answer does not count in qa: engines differ in it.
    """
    file = folder / f"{own['name']}.jsonl"
    rows = read_questions(own)
    write_jsonl(file, rows)
    options = _options(rows[0]) if own["type"] == "mcq" else []
    if options:
        human = "Question: {question}" + "".join(f"\n{letter}. {{{letter}}}" for letter in options)
        scorer = {
            "evaluator": {"type": "opencompass.datasets.custom.OptionSimAccEvaluator", "options": options},
        }
    else:
        human = "{question}"
        scorer = {
            "evaluator": {"type": "opencompass.openicl.icl_evaluator.AccEvaluator"},
            "pred_postprocessor": {"type": "builtins.str.strip"},
        }
    prompt = {"round": [{"role": "HUMAN", "prompt": human}, {"role": "BOT", "prompt": "{answer}"}]}
    return {
        "abbr": own["name"],
        "type": "opencompass.datasets.custom.CustomDataset",
        "path": str(file),
        "reader_cfg": {"input_columns": ["question", *options], "output_column": "answer"},
        "infer_cfg": {
            "prompt_template": {
                "type": "opencompass.openicl.icl_prompt_template.PromptTemplate",
                "template": prompt,
            },
            "retriever": {"type": "opencompass.openicl.icl_retriever.ZeroRetriever"},
            "inferencer": {"type": "opencompass.openicl.icl_inferencer.GenInferencer"},
        },
        "eval_cfg": {**scorer, "pred_role": "BOT"},
    }


def hugging_face(checkpoint: Path, device: str, batch_size: int, room: int) -> dict[str, Any]:
    """The model as OpenCompass's Hugging Face backend loads it; prompts longer than `room` tokens lose their start."""
    return {
        "abbr": MODEL,
        "type": "opencompass.models.HuggingFacewithChatTemplate",
        "path": str(checkpoint),
        # Without a dtype it would be float16, and its default trusts code that comes with a model.
        "model_kwargs": {
            "device_map": device,
            "torch_dtype": "torch.float32" if device == "cpu" else "torch.bfloat16",
            "trust_remote_code": False,
        },
        "tokenizer_kwargs": {"trust_remote_code": False},
        "generation_kwargs": {"do_sample": False},
        "meta_template": _ROLES,
        "max_seq_len": room,
        "batch_size": batch_size,
        "run_cfg": {"num_gpus": int(device == "cuda")},
    }


def server_client(checkpoint: Path, port: int, served_name: str, concurrency: int, room: int) -> dict[str, Any]:
    """The model behind a vLLM server on this machine; prompts longer than `room` tokens lose their start."""
    return {
        "abbr": MODEL,
        "type": "opencompass.models.OpenAISDK",
        # OpenCompass sends other parameters to a model whose name holds o1, o3 or o4, be it a path.
        "path": served_name,
        "tokenizer_path": str(checkpoint),
        "meta_template": _ROLES,
        "openai_api_base": f"http://127.0.0.1:{port}/v1",
        "key": "none",
        "temperature": 0.0,
        "openai_extra_kwargs": {"top_p": 1.0},
        # Special tokens stay in the text, as in the Hugging Face backend's.
        "extra_body": {"top_k": -1, "truncate_prompt_tokens": room, "skip_special_tokens": False},
        # The server bounds prompts exactly; OpenCompass's own bound, an estimate, never binds.
        "max_seq_len": 10**9,
        "query_per_second": 10000,
        "max_workers": concurrency,
        "batch_size": concurrency,
        "retry": 3,
    }


def drop_broken(run: Path) -> None:
    """Prepare an interrupted run for its second start: whole predictions stay, all else is made again."""
    for file in sorted((run / "predictions" / MODEL).glob("*.json")):
        try:
            read_json(file)
        except (json.JSONDecodeError, UnicodeDecodeError):
            file.unlink()
    for file in sorted((run / "results" / MODEL).glob("*.json")):
        file.unlink()


def answered(run: Path, subset: str, asked: int) -> int:
    """How many of the `asked` questions of `subset` have an answer on disk by now."""
    folder = run / "predictions" / MODEL
    if (folder / f"{subset}.json").is_file():
        return asked
    partial = folder / f"tmp_{subset}.jsonl"
    return partial.read_bytes().count(b"\n") if partial.is_file() else 0


def read_score(run: Path, measurement: Measurement) -> float:
    """The score in percent: the plain mean over its subsets.

    Raises UserError where a subset has no number or not as many predictions as questions; OpenCompass itself ends
    with success then.
    """
    scores = []
    for subset, asked in measurement.questions.items():
        predictions = run / "predictions" / MODEL / f"{subset}.json"
        result = run / "results" / MODEL / f"{subset}.json"
        for file, what in ((predictions, "no predictions"), (result, "no result")):
            if not file.is_file():
                raise UserError(f"OpenCompass left {what} for {subset} ({measurement.config}).")
        found = len(read_json(predictions))
        if found != asked:
            raise UserError(f"{subset} ({measurement.config}): {asked} questions, but OpenCompass predicted {found}.")
        score = read_json(result).get(measurement.metric)
        if not isinstance(score, int | float) or not 0 <= score <= 100:
            raise UserError(f"{subset} ({measurement.config}): OpenCompass gave no {measurement.metric}; see {result}.")
        scores.append(float(score))
    return sum(scores) / len(scores)
