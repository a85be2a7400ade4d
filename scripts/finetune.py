"""Finetune the base model on one dataset version with LLaMA-Factory: all parameters, always from the base model.

Before training, every row is encoded by LLaMA-Factory's own code. A row that it cannot train on (its template refuses
the text, or truncation at cutoff_len leaves no token of the response) is an error that names its id, or with
`--on-unencodable drop` a line in --dropped (id, reason). Afterwards LLaMA-Factory's records of rows and optimizer steps
are held against what the dataset calls for.

Training saves its whole state every --save-steps updates in a work folder beside the checkpoint, keyed by dataset, base
model, options, seed, number of processes and library versions. Started again, it goes on from the last whole state and
ends with the weights of an uninterrupted run. On SIGTERM or Ctrl-C it saves a state at the end of the step that is
under way and ends with exit status 143. Only one program at a time trains in a work folder.

With --nodes above 1 this program runs once, in a Slurm job of so many nodes but in no step of it, and starts the
training on all of them by srun. srun kills its tasks when Slurm ends a job, so to save a state in time let Slurm send a
signal to the steps before, for instance by sbatch's --signal=TERM@600.

--checkpoint gets the model in Hugging Face form without optimizer or trainer state; --sha256 a list of its files in the
form of `sha256sum`, with paths relative to the checkpoint folder (cd checkpoint && sha256sum -c ../checkpoint.sha256);
--report rows, steps, losses (last step's, and mean over steps) and seconds of the last start.

    python scripts/finetune.py --dataset results/demo/seed/dataset.jsonl --base-model results/demo/world/base_model \
        --training '{"stage": "sft", "finetuning_type": "full", "template": "default", "cutoff_len": 512,
                     "num_train_epochs": 1, "learning_rate": 0.001}' --device cpu \
        --checkpoint tuned/checkpoint --sha256 tuned/checkpoint.sha256 --report tuned/finetune.json \
        --dropped tuned/dropped.jsonl
"""

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from middo import launch, llamafactory, program
from middo.child import running, wait_for
from middo.files import read_json, sha256_file, sync_folder, write_json, write_jsonl, write_text
from middo.llamafactory import EncodedRow
from middo.lock import hold
from middo.program import Progress, UserError, say
from middo.rows import read_dataset
from middo.states import last_whole_state
from middo.trainer import SIGNALS, STOPPED
from middo.work import finish, restored, work_folder

# What a stopped training may take to end its step and to save its state, which for 8B parameters takes minutes.
STOP_SECONDS = 600.0
# A training whose program was killed may be at that still.
LOCK_SECONDS = STOP_SECONDS + 60.0
MODEL_FILES = ("*.safetensors", "*.json", "*.jinja", "*.model", "merges.txt", "vocab.txt")
NOT_THE_MODEL = ("trainer_state.json", "all_results.json", "train_results.json")


def arguments() -> argparse.ArgumentParser:
    made = program.parser(__doc__)
    made.add_argument("--dataset", type=Path, required=True, help="dataset.jsonl of the version")
    made.add_argument("--base-model", required=True, help="folder in Hugging Face form, or name on the hub")
    made.add_argument("--revision", help="commit of a hub model")
    made.add_argument("--training", required=True, help="LLaMA-Factory's options as a JSON object")
    made.add_argument("--seed", type=int, default=42)
    made.add_argument("--on-unencodable", choices=["error", "drop"], default="error")
    made.add_argument("--checkpoint", type=Path, required=True, help="folder to make")
    made.add_argument("--sha256", type=Path, required=True, help="checksums to write")
    made.add_argument("--report", type=Path, required=True, help="finetune.json to write")
    made.add_argument("--dropped", type=Path, required=True, help="dropped.jsonl to write")
    made.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    made.add_argument("--save-steps", type=int, default=100, help="updates between two saved states")
    made.add_argument("--processes", type=int, default=1, help="processes on each node; with cuda one per GPU")
    made.add_argument("--nodes", type=int, default=1, help="nodes; for more than one this must run as a Slurm job")
    return made


def main(args: argparse.Namespace) -> None:
    started = time.monotonic()
    training = llamafactory.training_options(args.training)
    options = launch.launch_options(training, args.base_model, args.revision, args.seed, args.device)
    options["save_steps"] = args.save_steps
    # Beside the checkpoint: what is finished there is moved, not copied.
    work = work_folder(args.checkpoint.with_name("finetune"), "finetune", _work_key(args, training))
    outputs = [args.checkpoint, args.sha256, args.report, args.dropped]
    with hold(work / "lock", str(work), LOCK_SECONDS) as lock:
        if not restored(work, outputs):
            encoded = llamafactory.encode_rows(read_dataset(args.dataset), training, args.base_model, args.revision)
            kept, dropped = _split(encoded, args)
            _train(args, options, kept, work, lock)
            report = _check(args, options, kept, work / "run")
            _publish(work / "run", work / "model", args.checkpoint)
            write_text(args.sha256, _checksums(args.checkpoint))
            write_jsonl(args.dropped, dropped)
            report |= {"dropped": len(dropped), "seconds": round(time.monotonic() - started, 1)}
            write_json(args.report, report | {"processes": _world_size(args), "base_model": args.base_model})
        finish(work, outputs)


def _work_key(args: argparse.Namespace, training: dict[str, Any]) -> dict[str, Any]:
    return {
        "dataset": sha256_file(args.dataset),
        "model": llamafactory.model_identity(args.base_model, args.revision),
        "training": training,
        "deepspeed": llamafactory.deepspeed_identity(training),
        "seed": args.seed,
        "on_unencodable": args.on_unencodable,
        "device": args.device,
        "world_size": _world_size(args),
        "libraries": llamafactory.library_versions(),
    }


def _split(encoded: list[EncodedRow], args: argparse.Namespace) -> tuple[list[EncodedRow], list[dict]]:
    """Rows to train on, and what --dropped lists; UserError for rows that must not be dropped, or if none stay."""
    kept = [row for row in encoded if not row.reason]
    dropped = [{"id": row.id, "reason": row.reason} for row in encoded if row.reason]
    if dropped and args.on_unencodable == "error":
        named = "\n".join(f"  - {row['id']}: {row['reason']}" for row in dropped[:10])
        more = f"\n  and {len(dropped) - 10} more" if len(dropped) > 10 else ""
        raise UserError(
            f"{args.dataset}: LLaMA-Factory cannot train on {len(dropped)} of {len(encoded)} rows:\n{named}{more}\n"
            "Raise training.cutoff_len, mend the rows, or set dataset.on_unencodable to drop."
        )
    if not kept:
        raise UserError(f"{args.dataset}: there is no row to train on.")
    return kept, dropped


def _train(args: argparse.Namespace, options: dict[str, Any], kept: list[EncodedRow], work: Path, lock: int) -> None:
    """Run LLaMA-Factory to its end in work/run, from the last whole state if there is one."""
    run = work / "run"
    state = last_whole_state(run, _world_size(args))
    if state is None:
        shutil.rmtree(run, ignore_errors=True)
    llamafactory.save_tokenized(kept, work / "tokenized")
    paths = {"output_dir": str(run), "tokenized_path": str(work / "tokenized")}
    if state:
        paths["resume_from_checkpoint"] = str(state.folder)
        say(f"going on from the state after {state.step} steps")
    write_text(work / "options.yaml", yaml.safe_dump(options | paths))
    steps = _steps(args, options, len(kept), options.get("per_device_train_batch_size", 8))
    watch = _follow(run / "trainer_log.jsonl", steps, state.step if state else 0)
    say(f"training on {len(kept)} rows in {steps} steps")
    status = _run(args, work, lock, watch)
    if status in (STOPPED, *(-kind for kind in SIGNALS)):
        state = last_whole_state(run, _world_size(args))
        say(f"stopped by a signal; training goes on from step {state.step if state else 0} when started again")
        sys.exit(STOPPED)
    if status:
        raise UserError(f"LLaMA-Factory ended with exit status {status}.{_tail(args.log)}")
    watch()


def _run(args: argparse.Namespace, work: Path, lock: int, watch: Callable[[], None]) -> int:
    """Exit status of LLaMA-Factory; STOPPED where SIGTERM or Ctrl-C stopped this program, once a state is saved."""
    command = launch.launch_command(work / "options.yaml", args.nodes)
    environment = launch.launch_environment(args.device, args.processes, args.nodes)
    # Again and again, since one that comes while torchrun starts its workers reaches none.
    stopping = {"stop": launch.STOP_SIGNAL, "grace": STOP_SECONDS, "again": 5.0}
    try:
        with running(command, environment, hold=[lock], **stopping) as child:
            try:
                return wait_for(child, watch)
            except (SystemExit, KeyboardInterrupt):
                say("asked to stop: training saves its state at the end of this step")
                raise
    except (SystemExit, KeyboardInterrupt):
        return STOPPED


def _follow(log: Path, steps: int, done: int) -> Callable[[], None]:
    """A function that reports the steps which LLaMA-Factory has written to its log since the last call."""
    position = log.stat().st_size if log.is_file() else 0
    progress = None

    def watch() -> None:
        nonlocal position, progress
        if not log.is_file() or log.stat().st_size == position:
            return
        # From the first step on: loading takes its own time and says nothing about the steps.
        progress = progress or Progress(steps, unit="steps", done=done)
        with open(log, "rb") as stream:
            stream.seek(position)
            lines = stream.read().rpartition(b"\n")[0]
        position += len(lines) + 1 if lines else 0
        for line in map(json.loads, lines.splitlines()):
            step = line["current_steps"]
            if step > progress.done:
                progress.advance(step - progress.done, f"loss {line['loss']:.3f}" if "loss" in line else "")

    return watch


def _tail(log: Path | None) -> str:
    if log is None:
        return ""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:]
    return f" The end of {log}:\n" + "\n".join(lines)


def _steps(args: argparse.Namespace, options: dict[str, Any], rows: int, batch_size: int) -> int:
    return llamafactory.expected_steps(rows, options, batch_size, _world_size(args))


def _world_size(args: argparse.Namespace) -> int:
    """Processes of this training on all machines."""
    return args.processes * args.nodes


def _check(args: argparse.Namespace, options: dict[str, Any], kept: list[EncodedRow], run: Path) -> dict[str, Any]:
    """Rows, steps and losses from LLaMA-Factory's records; UserError where they are not what the dataset calls for."""
    state, results = read_json(run / "trainer_state.json"), read_json(run / "train_results.json")
    steps = _steps(args, options, len(kept), state["train_batch_size"])
    if state["global_step"] != steps:
        raise UserError(f"LLaMA-Factory made {state['global_step']} steps where {len(kept)} rows call for {steps}.")
    if options.get("max_steps", -1) <= 0:
        rate, seconds = results["train_samples_per_second"], results["train_runtime"]
        rows = rate * seconds / options.get("num_train_epochs", 3.0)
        # Its records are rounded: the rate to three digits, the time to four.
        if abs(rows - len(kept)) > 0.5 + 0.0006 * seconds + 0.0001 * rate:
            raise UserError(f"LLaMA-Factory trained on about {rows:.0f} rows where {len(kept)} were given.")
    losses = [(entry["step"], entry["loss"]) for entry in state["log_history"] if "loss" in entry]
    starts = [0, *(step for step, _ in losses)]
    total = sum(loss * (step - start) for (step, loss), start in zip(losses, starts, strict=False))
    return {
        "rows": len(kept),
        "steps": steps,
        "rows_per_update": state["train_batch_size"]
        * options.get("gradient_accumulation_steps", 1)
        * _world_size(args),
        "final_loss": losses[-1][1] if losses else None,
        "mean_loss": total / losses[-1][0] if losses else None,
    }


def _publish(run: Path, model: Path, checkpoint: Path) -> None:
    """Move the model's files from `run` to `checkpoint`, which appears whole.

    A kill in between loses nothing: training then goes on from its last state, which is its end, and saves them again.
    """
    shutil.rmtree(model, ignore_errors=True)
    model.mkdir()
    files = {path for pattern in MODEL_FILES for path in run.glob(pattern) if path.name not in NOT_THE_MODEL}
    for path in files:
        os.replace(path, model / path.name)
    if not list(model.glob("*.safetensors")) or not (model / "config.json").is_file():
        raise UserError(f"LLaMA-Factory left no safetensors and config.json in {run}; see training.save_safetensors.")
    shutil.rmtree(checkpoint, ignore_errors=True)
    os.replace(model, checkpoint)
    sync_folder(checkpoint.parent)


def _checksums(folder: Path) -> str:
    return "".join(f"{sha256_file(path)}  {path.name}\n" for path in sorted(folder.iterdir()))


if __name__ == "__main__":
    program.run(main, arguments(), environment="train")
