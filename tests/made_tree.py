"""A small experiment made by the loop's own programs, without any model: signals drawn at random, and a teacher whose
answers are written here and stored by the real store."""

import hashlib
import json
import os
from contextlib import contextmanager
from pathlib import Path

import assemble
import hash_base_model
import import_seed
import leaks
import numpy as np
import polars as pl
import refine
import select_rows
from conftest import ROOT

from middo.answers import Answers, encode_record
from middo.prompts import fill
from middo.questions import follow
from middo.rows import read_dataset

PROMPTS = [f"config/prompts/{name}.md" for name in ("simplify", "improve", "extend", "answer")]
M = {"complexity": 0.25, "diversity": -0.5, "quality": -0.5}
AXES, MORE = list(M), {"diversity": {"k": 2}, "quality": {"reading": "expected"}}
TEACHER = {
    "model": "small-teacher",
    "base_url": "http://127.0.0.1:9/v1",
    "temperature": 1.0,
    "top_p": 1.0,
    "max_tokens": 64,
    "attempts": 2,
}
ACCESS = {"api_key_env": None, "max_concurrency": 1, "timeout": 1, "max_retries": 0, "command": None}
ACCESS |= {"prices": {"input": 0.5, "output": 2.0}, "max_cost": None, "max_requests": None}


OWN = {"name": "own", "path": "own.jsonl", "type": "qa"}


@contextmanager
def working_in(folder):
    """Paths in manifests are relative to where the workflow runs."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def call(program, *words):
    program.main(program.arguments().parse_args([str(word) for word in words]))


def reply(text, finish="stop"):
    return {
        "model": "small-teacher-2",
        "choices": [{"message": {"content": text}, "finish_reason": finish}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3},
    }


def teacher_says(step, prompt, attempt):
    """A usable reply to most prompts; one in five only to the second attempt, one in five never."""
    luck = int(hashlib.sha256(f"{step} {prompt}".encode()).hexdigest(), 16) % 5
    if luck == 0 or (luck == 1 and attempt == 1):
        return reply("There is nothing that I can say.", finish="length" if step == "answer" else "stop")
    digest = hashlib.sha256(prompt.encode()).hexdigest()[:6]
    question = f"Where only what there is may count and {digest} stands for it, what ïs nothing else?"
    return reply(f"Step 4, final prompt:\n{question}" if step == "rewrite" else f"It is {digest}.\n\nSurely.")


def answer_all(arguments):
    """Store the teacher's answers to everything that refine.py would ask."""
    args = refine.arguments().parse_args([str(word) for word in arguments])
    templates = refine.read_templates(args.prompts)
    answers = Answers(args.answers, args.answers_root)

    def settle(prompt, step):
        while request := (outcome := follow(answers, args.teacher, prompt, step)).next_request:
            answers.add([encode_record(request, teacher_says(step, prompt, request["attempt"]))])
        return outcome.text

    with answers.writing():
        for action in refine.read_actions(args, templates):
            if rewritten := settle(action.prompt, "rewrite"):
                settle(fill(templates["answer"], prompt=rewritten), "answer")


def make_signals(folder, seed):
    """What diagnosing leaves of a version: random losses, neighbours and ratings, one rating missing; a checkpoint."""
    ids = [row["id"] for row in read_dataset(folder / "dataset.jsonl")]
    random = np.random.default_rng(seed)
    float32 = {pl.Float64: pl.Float32}
    losses = {"loss_pre": random.gamma(2, 1, len(ids)), "loss_post": random.gamma(2, 0.5, len(ids))}
    pl.DataFrame({"id": ids, **losses}).cast(float32).write_parquet(folder / "losses.parquet")
    near = [[ids[(place + 1) % len(ids)], ids[(place + 2) % len(ids)]] for place in range(len(ids))]
    spread = {"neighbors": near, "diversity": random.beta(8, 2, len(ids))}
    pl.DataFrame({"id": ids, **spread}).cast(float32).write_parquet(folder / "neighbors.parquet")
    quality = [None, *random.uniform(2, 9, len(ids) - 1)]
    pl.DataFrame({"id": ids, "quality": quality}).cast(float32).write_parquet(folder / "scores.parquet")
    (folder / "checkpoint.sha256").write_text(f"{hashlib.sha256(str(seed).encode()).hexdigest()}  model.safetensors\n")


def settings(strategy, axes, overlap, on_leak, like):
    return {
        "base_model": {"path": "model", "revision": "main"},
        "dataset": {"path": "data/seed.json", "format": "alpaca", "on_invalid": "drop", "on_unencodable": "error"},
        "training": {"template": "default", "cutoff_len": 64, "bf16": False},
        "seed": 42,
        "strategy": {"name": strategy, "axes": axes} | ({"like": like} if like else {}),
        **{axis: {"m": M[axis]} | MORE.get(axis, {}) for axis in axes},
        "overlap": overlap,
        "teacher": TEACHER,
        "like": {"name": like, "axes": axes} if like else None,
        "new_rows": {"on_near_copy": "list", "on_leak": on_leak},
        "method": {"assemble": 1},
    }


def make_version(results, before, strategy, iteration, axes=AXES, overlap="both", on_leak="list", like=None):
    """One round of the loop: select, refine, assemble."""
    earlier, folder = results / before, results / strategy / f"iter{iteration}"
    folder.mkdir(parents=True)
    selection, report = folder / "selection.parquet", folder / "selection.json"
    files = [word for name in ("losses", "neighbors", "scores") for word in (f"--{name}", earlier / f"{name}.parquet")]
    m = [word for axis in AXES for word in (f"--{axis}", M[axis])]
    dataset = earlier / "dataset.jsonl"
    if like:
        files = [
            "--like",
            results / like / f"iter{iteration}/selection.json",
            "--draw",
            f"42 {strategy}/iter{iteration}",
        ]
    call(select_rows, "--dataset", dataset, *files, "--axes", *axes, *m, "--selection", selection, "--report", report)
    made = ["--refined", folder / "refined.jsonl", "--rejected", folder / "rejected.jsonl"]
    store = results.parent / "teacher_answers"
    asked = [
        *("--dataset", dataset, "--selection", selection, "--neighbors", earlier / "neighbors.parquet"),
        *("--prompts", *PROMPTS, "--overlap", overlap, "--teacher", json.dumps(TEACHER), "--iteration", iteration),
        *("--access", json.dumps(ACCESS), "--answers", store / f"small/{strategy}/iter{iteration}.jsonl"),
        *("--answers-root", store, *made, "--report", folder / "refine.json"),
    ]
    answer_all(asked)
    call(refine, *asked)
    lists = list_leaks(folder) if on_leak == "drop" else []
    rest = {
        "teacher": ACCESS,
        "evaluation": {
            "benchmarks": [],
            "custom": [OWN],
            "data": None,
            "max_out_len": 8,
            "limit": None,
        },
        "execution": {
            "device": "cpu",
            "processes": 1,
            "nodes": 1,
            "shards": 1,
            "save_steps": 1,
            "token_budget": 64,
            "max_num_seqs": 1,
            "allow_unisolated_code": False,
        },
        "licenses": {"seed": None, "teacher": None},
    }
    call(
        assemble,
        *("--predecessor", dataset, "--selection", selection, "--selection-report", report, *made),
        *("--refine-report", folder / "refine.json", "--overlap", overlap, "--iteration", iteration),
        *("--predecessor-manifest", earlier / "manifest.json", "--checkpoint-sha256", earlier / "checkpoint.sha256"),
        *("--base-model-sha256", results / "base_model.sha256", "--prompts", *PROMPTS),
        *(
            "--environments",
            "driver",
            "train",
            "--settings",
            json.dumps(settings(strategy, axes, overlap, on_leak, like)),
        ),
        *("--drop", *lists, "--rest", json.dumps(rest), "--dataset", folder / "dataset.jsonl"),
        *("--manifest", folder / "manifest.json"),
    )


def list_leaks(folder):
    """leaks.jsonl, where the evaluation asks what the first new row asks."""
    first = json.loads((folder / "refined.jsonl").read_text().split("\n")[0])
    Path("own.jsonl").write_text(json.dumps({"question": first["instruction"], "answer": "?"}) + "\n")
    asked = json.dumps({"benchmarks": [], "custom": [OWN], "data": None})
    call(leaks, "--refined", folder / "refined.jsonl", "--evaluation", asked, "--out", folder / "leaks.jsonl")
    return [folder / "leaks.jsonl"]


def make_tree(root):
    """An experiment `small` under root/results: the seed, two iterations of `middo`, one of two others."""
    (root / "data").mkdir(parents=True)
    (root / "model").mkdir()
    (root / "config").symlink_to(ROOT / "config")
    for name in ("config.json", "tokenizer_config.json", "model.safetensors"):
        (root / "model" / name).write_text(name)
    rows = [
        {"instruction": f"Question {n % 30}?", "input": f"ünit {n}" * (n % 3), "output": f"A{n}"} for n in range(40)
    ]
    rows[3]["topic"], rows[5]["output"] = "numbers", ""
    rows.append(dict(rows[6]))
    (root / "data/seed.json").write_text(json.dumps(rows))
    results = root / "results/small"
    with working_in(root):
        seed = results.relative_to(root) / "seed"
        made = [word for name in ("extras", "rejects") for word in (f"--{name}", seed / f"{name}.jsonl")]
        made += ["--dataset", seed / "dataset.jsonl", "--manifest", seed / "manifest.json"]
        call(import_seed, "--source", "data/seed.json", "--on-invalid", "drop", *made)
        call(hash_base_model, "--base-model", "model", "--out", seed.parent / "base_model.sha256")
        make_signals(seed, 1)
        make_version(seed.parent, "seed", "middo", 1)
        make_signals(seed.parent / "middo/iter1", 2)
        make_version(seed.parent, "middo/iter1", "middo", 2)
        make_version(seed.parent, "seed", "few", 1, ["complexity", "quality"], "complexity_first", "drop")
        make_version(seed.parent, "seed", "random", 1, like="middo")
    return results


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def reseal(results, *versions):
    """What someone would do who changes files and knows what the manifests hold: make every hash fit again."""
    for version in versions:
        folder = results / version
        manifest = json.loads((folder / "manifest.json").read_text())
        rows = [json.loads(line) for line in (folder / "dataset.jsonl").read_text().splitlines()]
        manifest["dataset_sha256"] = sha256(folder / "dataset.jsonl")
        manifest["made_from"] = {name: sha256(folder / name) for name in manifest["made_from"]}
        counted = {o: sum(row["origin"] == o for row in rows) for o in ("seed", "simplified", "improved", "extended")}
        manifest["rows"] = {"total": len(rows), **counted}
        if version != "seed":
            strategy, _, iteration = version.partition("/iter")
            earlier = results / ("seed" if iteration == "1" else f"{strategy}/iter{int(iteration) - 1}")
            manifest["predecessor_sha256"] = sha256(earlier / "dataset.jsonl")
            manifest["predecessor_manifest_sha256"] = sha256(earlier / "manifest.json")
        write_manifest(folder / "manifest.json", manifest)


def write_manifest(path, manifest):
    """A manifest as the workflow writes it, its own hash renewed."""
    content = {key: value for key, value in manifest.items() if key != "sha256"}
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    manifest = {**content, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    path.write_text(json.dumps(manifest, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
