"""Measure a checkpoint with OpenCompass: zero-shot, greedy, by generation (method section 4).

Reads a checkpoint and the questions; writes eval.json (per benchmark the score in percent, the number of questions,
the config; the mean; model, engine, seconds) and a folder with every prediction and OpenCompass's own results.

Benchmarks are OpenCompass's official configs by name, their data below `data` (nothing is downloaded); own questions
are JSON Lines: question and answer (`qa`: the answer must be met exactly but for white space around it), or question,
A, B, … and answer (`mcq`). The model answers through a vLLM server that is started here (`--engine vllm`, the default
on a GPU), or through transformers (`hf`, the default on a CPU). A task that failed makes this program fail, although
OpenCompass ends with success then. An interrupted evaluation goes on behind the answers that it has.

MBPP and HumanEval run code that the model wrote: each program in a sandbox of its own (middo/sandbox.py). Where this
machine has none they are refused before anything runs, unless --allow-unisolated-code is given.

    python scripts/evaluate.py --checkpoint results/x/seed/checkpoint --sha256 results/x/seed/checkpoint.sha256 \\
        --evaluation '{"benchmarks": ["gsm8k_gen_1d7fe4"], "custom": [], "data": "benchmarks", "max_out_len": 4096,
                       "limit": 100}' --out eval.json --details eval --device cuda --server-python python
"""

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from middo import code_judge, opencompass, program
from middo.benchmarks import BENCHMARKS, check_data, check_sentences, data_files
from middo.child import run_child, safe_environment
from middo.files import read_json, sha256_file, write_json
from middo.opencompass import Measurement, answered, measurements, read_score
from middo.program import Progress, UserError, say
from middo.sandbox import check_isolation
from middo.server import serving
from middo.work import finish, restored, work_folder

# No question ever leaves the machine.
OFFLINE = {
    "HF_EVALUATE_OFFLINE": "1",
    "NO_PROXY": "127.0.0.1",
    "no_proxy": "127.0.0.1",
    "PYTHONUTF8": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def arguments() -> argparse.ArgumentParser:
    made = program.parser(__doc__)
    made.add_argument("--checkpoint", type=Path, required=True, help="model folder in Hugging Face form")
    made.add_argument(
        "--sha256", type=Path, required=True, help="list of the checkpoint's checksums; its hash names it"
    )
    made.add_argument(
        "--evaluation", type=json.loads, required=True, help="section `evaluation` of the config, as JSON"
    )
    made.add_argument("--out", type=Path, required=True, help="eval.json to write")
    made.add_argument(
        "--details", type=Path, required=True, help="folder to write: predictions and OpenCompass's results"
    )
    made.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    made.add_argument("--engine", choices=["auto", "hf", "vllm"], default="auto", help="auto: vllm on cuda, hf on cpu")
    made.add_argument("--server-python", default=sys.executable, help="interpreter that has vLLM, for --engine vllm")
    made.add_argument("--max-num-seqs", type=int, default=64, help="questions that are answered at once")
    made.add_argument(
        "--allow-unisolated-code",
        type=json.loads,
        default=False,
        help="true: run generated code without a sandbox",
    )
    return made


def main(args: argparse.Namespace) -> None:
    started = time.monotonic()
    evaluation = absolute(args.evaluation)
    engine = {"auto": "vllm" if args.device == "cuda" else "hf"}.get(args.engine, args.engine)
    check_data(evaluation["benchmarks"], evaluation["data"])
    check_sentences(evaluation["benchmarks"], evaluation["data"], evaluation["limit"])
    asked = measurements(evaluation)
    cli = opencompass_program(evaluation["benchmarks"], args.allow_unisolated_code)
    context, answer = lengths(args.checkpoint, evaluation["max_out_len"])

    model = sha256_file(args.sha256)
    # OpenCompass works in this folder, so that its name must hold from there.
    work = work_folder(args.out, "evaluate", identity(evaluation, model, engine, args.device)).resolve()
    if restored(work, [args.out, args.details]):
        return
    run = work / "run"
    opencompass.drop_broken(run)
    config = work / "config.py"
    with answering(args, engine, model, work, context, answer) as backend:
        opencompass.write_config(config, evaluation, backend, answer)
        run_opencompass(cli, config, run, evaluation["data"], asked, args.log)

    scores = {measurement.name: read_score(run, measurement) for measurement in asked}
    keep(run, args.details)
    result = {
        "benchmarks": {
            measurement.name: {
                "score": scores[measurement.name],
                "rows": sum(measurement.questions.values()),
                "config": as_given(args.evaluation, measurement),
                "metric": measurement.metric,
            }
            for measurement in asked
        },
        "mean": sum(scores.values()) / len(scores),
        "model": model,
        "engine": engine,
        "seconds": round(time.monotonic() - started, 1),
    }
    write_json(args.out, result)
    finish(work, [args.out, args.details])
    say(", ".join(f"{name}: {score:.2f} %" for name, score in scores.items()) + f"; mean {result['mean']:.2f} %")


def absolute(evaluation: dict[str, Any]) -> dict[str, Any]:
    """The settings with absolute paths: OpenCompass works in another folder."""
    return {
        **evaluation,
        "data": evaluation["data"] and str(Path(evaluation["data"]).resolve()),
        "custom": [{**own, "path": str(Path(own["path"]).resolve())} for own in evaluation["custom"]],
    }


def as_given(evaluation: dict[str, Any], measurement: Measurement) -> str:
    """The config name, or the path as the settings have it."""
    return next((own["path"] for own in evaluation["custom"] if own["name"] == measurement.name), measurement.config)


def identity(evaluation: dict[str, Any], model: str, engine: str, device: str) -> dict[str, Any]:
    """What an answer depends on, so that an interrupted run goes on only with answers of its own kind."""
    files = [*data_files(evaluation["benchmarks"], evaluation["data"]), *(own["path"] for own in evaluation["custom"])]
    return {
        "evaluation": evaluation,
        "files": [sha256_file(Path(file)) for file in files],
        "model": model,
        "engine": engine,
        "device": device,
    }


def lengths(checkpoint: Path, max_out_len: int) -> tuple[int, int]:
    """Tokens of prompt and answer together, and of the answer alone, that the model has room for.

    Raises UserError where the checkpoint lacks what both engines need, or brings code of its own.
    """
    settings = {}
    for name in ("config.json", "tokenizer_config.json"):
        if not (checkpoint / name).is_file():
            raise UserError(f"{checkpoint} is no checkpoint: it has no {name}.")
        settings[name] = read_json(checkpoint / name)
        if "auto_map" in settings[name]:
            raise UserError(f"{checkpoint / name} names code to run (auto_map). Such models are not evaluated.")
    if (
        not settings["tokenizer_config.json"].get("chat_template")
        and not (checkpoint / "chat_template.jinja").is_file()
    ):
        raise UserError(f"{checkpoint}: the tokenizer has no chat template, so questions cannot be put to the model.")
    context = min(settings["config.json"]["max_position_embeddings"], opencompass.CONTEXT)
    if max_out_len > context // 2:
        say(f"answers end at {context // 2} tokens: half of the {context} that the model has for prompt and answer")
    return context, min(max_out_len, context // 2)


@contextmanager
def answering(
    args: argparse.Namespace, engine: str, model: str, work: Path, context: int, answer: int
) -> Iterator[dict[str, Any]]:
    """The model as OpenCompass is told to ask it; with vLLM its server runs as long as the block does."""
    checkpoint, room = args.checkpoint.resolve(), context - answer
    if engine == "hf":
        yield opencompass.hugging_face(checkpoint, args.device, args.max_num_seqs, room)
        return
    served_name = f"checkpoint-{model[:12]}"
    with serving(
        args.server_python, checkpoint, served_name, args.device, context, args.max_num_seqs, work / "server.log"
    ) as port:
        yield opencompass.server_client(checkpoint, port, served_name, args.max_num_seqs, room)


def opencompass_program(benchmarks: list[str], allow_unisolated_code: bool) -> list[str]:
    """OpenCompass as arguments of the interpreter; with generated code in the sandbox where `benchmarks` run any.

    Raises UserError where there is no sandbox on this machine and it must not go without.
    """
    plain = ["-m", "opencompass.cli.main"]
    if not any(BENCHMARKS[name].group == "code" for name in benchmarks):
        return plain
    if allow_unisolated_code:
        say("warning: code that the model wrote runs without isolation (execution.allow_unisolated_code)")
        return plain
    check_isolation()
    return [code_judge.__file__]


def run_opencompass(
    cli: list[str], config: Path, run: Path, data: str | None, asked: list[Measurement], log: Path | None
) -> None:
    """Run OpenCompass on `config` into the folder `run`; its output goes to our log.

    Raises UserError with the end of its output where it fails.
    """
    work = run.parent
    environment = {name: value for name, value in safe_environment().items() if name != "DATASET_SOURCE"}
    # A cache of its own: evaluations that run side by side would write the same files.
    environment |= OFFLINE | {"COMPASS_DATA_CACHE": data or str(work), "HF_HOME": str(work / "cache")}
    environment["NLTK_DATA"] = os.pathsep.join(
        [str(Path(environment["COMPASS_DATA_CACHE"]) / "data" / "nltk_data"), environment.get("NLTK_DATA", "")]
    )
    environment["PYTHONSAFEPATH"] = "1"
    command = [sys.executable, *cli, str(config), "-w", str(work), "-r", run.name, "--debug"]
    for measurement in asked:
        note = " (its scorer wants all: no limit)" if is_whole(measurement) else ""
        say(f"evaluating {measurement.name}: {sum(measurement.questions.values())} questions{note}")
    output = work / "opencompass.log"
    with open(output, "w", encoding="utf-8") as stream:
        status = run_child(command, environment, output=stream, cwd=work, watch=Watch(run, asked), every=1.0)
    text = output.read_text(encoding="utf-8", errors="replace")
    if log:
        print(text, file=sys.stderr, flush=True)
    if status:
        raise UserError(f"OpenCompass failed (exit status {status}). The end of its output:\n" + tail(text))


def is_whole(measurement: Measurement) -> bool:
    return measurement.name in BENCHMARKS and BENCHMARKS[measurement.name].whole


def tail(text: str, lines: int = 12) -> str:
    """The last lines that say something, progress bars left out."""
    said = [line.rpartition("\r")[2] for line in text.splitlines() if line.strip()]
    return "\n".join(f"  {line}" for line in said[-lines:])


class Watch:
    """Counts the answers on disk while OpenCompass works and tells how far it is."""

    def __init__(self, run: Path, asked: list[Measurement]) -> None:
        self.run, self.asked = run, asked
        self.progress = Progress(sum(sum(m.questions.values()) for m in asked), "questions", done=self.count())

    def count(self) -> int:
        """Answers that are on disk by now."""
        return sum(answered(self.run, *subset) for m in self.asked for subset in m.questions.items())

    def __call__(self) -> None:
        new = self.count() - self.progress.done
        if new > 0:
            self.progress.advance(new)


def keep(run: Path, details: Path) -> None:
    """Copy predictions and results to `details`, which appears at once and whole."""
    temporary = details.with_name(f".{details.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    for part in ("predictions", "results", "summary"):
        shutil.copytree(run / part, temporary / part, ignore=shutil.ignore_patterns("tmp_*", "*.bak"))
    if details.exists():
        shutil.rmtree(details)
    os.replace(temporary, details)


if __name__ == "__main__":
    program.run(main, arguments(), environment="evaluate")
