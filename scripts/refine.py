"""Let the teacher rewrite the selected rows and answer what it wrote: refined.jsonl, rejected.jsonl, refine.json.

Hard rows are simplified, low rows improved, sparse rows extended with their neighbours as hints (method sections 1
and 3): two calls each, driven by DataDreamer, sent by the openai client. Every answer is stored before it counts, and
one that is stored is never asked for again: an interrupted run goes on where it was. A reply that cannot be parsed is
asked for again up to `attempts` times; then the row is rejected, with the reason and the reply, and stays as it is.

Each line of refined.jsonl and rejected.jsonl names the stored requests behind it (`requests`).

    python scripts/refine.py --dataset seed/dataset.jsonl --selection middo/iter1/selection.parquet \\
        --neighbors seed/neighbors.parquet --prompts config/prompts/{simplify,improve,extend,answer}.md \\
        --teacher '{"model": "gpt-4o-mini", "base_url": "https://api.openai.com/v1", "temperature": 1.0, \\
        "top_p": 1.0, "max_tokens": 4096, "attempts": 3}' --access '{"api_key_env": "OPENAI_API_KEY", \\
        "max_concurrency": 32, "timeout": 120, "max_retries": 8, "command": null, "prices": null, "max_cost": null, \\
        "max_requests": null}' --iteration 1 \\
        --answers results/teacher_answers/mine/middo/iter1.jsonl --answers-root results/teacher_answers \\
        --refined middo/iter1/refined.jsonl --rejected middo/iter1/rejected.jsonl --report middo/iter1/refine.json

Before the first request it says how many calls and tokens that will be, and what they cost where teacher.prices are
given; with --estimate nothing else. Where teacher.max_requests or max_cost is reached it stops.
"""

import argparse
import json
import os
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from middo import program
from middo.actions import ORIGIN, planned_actions
from middo.answers import Answers
from middo.budget import Budget, CapReached, cost_of
from middo.files import write_json, write_jsonl
from middo.program import UserError, say
from middo.prompts import fill, quote_hints, read_template
from middo.questions import Outcome, follow
from middo.replies import KINDS, is_refusal, tokens_counted
from middo.rows import check_same_ids, prompt_text, read_dataset, with_ids
from middo.served import read_key, served
from middo.work import clear_work, work_folder

CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True)
class Action:
    """A row to act on, the origin of the row to make from it, its hint rows (extended only), the rewrite's prompt."""

    row: dict[str, Any]
    origin: str
    hints: tuple[str, ...]
    prompt: str


def arguments() -> argparse.ArgumentParser:
    made = program.parser(__doc__)
    made.add_argument("--dataset", type=Path, required=True, help="dataset.jsonl of the predecessor")
    made.add_argument("--selection", type=Path, required=True, help="selection.parquet")
    program.optional_file(made, "--neighbors", "neighbors.parquet of the predecessor, where rows are sparse")
    made.add_argument(
        "--prompts", type=Path, nargs=4, required=True, metavar=("SIMPLIFY", "IMPROVE", "EXTEND", "ANSWER")
    )
    made.add_argument("--overlap", choices=["both", "complexity_first"], default="both", help="rows both hard and low")
    made.add_argument("--teacher", type=json.loads, required=True, help="what is asked, and how, as JSON")
    made.add_argument("--access", type=json.loads, required=True, help="how the endpoint is reached, as JSON")
    made.add_argument("--iteration", type=int, required=True, help="number of the version that is made")
    made.add_argument("--answers", type=Path, required=True, help="file that this run's answers are appended to")
    made.add_argument("--answers-root", type=Path, required=True, help="folder in which all answers are looked up")
    made.add_argument("--refined", type=Path, required=True, help="refined.jsonl to write")
    made.add_argument("--rejected", type=Path, required=True, help="rejected.jsonl to write")
    made.add_argument("--report", type=Path, required=True, help="refine.json to write")
    made.add_argument("--estimate", action="store_true", help="say what would be asked, and stop")
    return made


def read_templates(paths: list[Path]) -> dict[str, str]:
    """The prompts by origin, and that for `answer`; `paths` in the order simplify, improve, extend, answer."""
    names = ("simplified", "improved", "extended", "answer")
    return {
        name: read_template(path, {"prompt", "hints"} if name == "extended" else {"prompt"})
        for name, path in zip(names, paths, strict=True)
    }


def read_actions(args: argparse.Namespace, templates: dict[str, str]) -> list[Action]:
    """Every action, in dataset order, within a row simplified, improved, extended.

    Raises UserError where selection or neighbours do not hold exactly the ids of the dataset.
    """
    rows = {row["id"]: row for row in read_dataset(args.dataset)}
    selection = pl.read_parquet(args.selection)
    check_same_ids(rows, selection["id"].to_list(), str(args.selection))
    near = _read_neighbors(args.neighbors, rows) if selection["sparse"].any() else {}
    place = {identity: number for number, identity in enumerate(rows)}
    actions = []
    for identity, origin in sorted(planned_actions(selection, args.overlap), key=lambda action: place[action[0]]):
        hints = near[identity] if origin == "extended" else []
        quoted = quote_hints([rows[hint] for hint in hints])
        prompt = fill(templates[origin], prompt=prompt_text(rows[identity]), hints=quoted)
        actions.append(Action(rows[identity], origin, tuple(hints), prompt))
    return actions


def _read_neighbors(path: Path | None, rows: dict[str, dict]) -> dict[str, list[str]]:
    if path is None:
        raise UserError("--neighbors is needed: some selected rows are sparse, and their neighbors are the hints.")
    neighbors = pl.read_parquet(path, columns=["id", "neighbors"])
    check_same_ids(rows, neighbors["id"].to_list(), str(path))
    return dict(neighbors.iter_rows())


def estimate(answers: Answers, settings: dict[str, Any], templates: dict[str, str], actions: list[Action]) -> Counter:
    """Calls that the store does not answer, and the characters of their prompts, if every first attempt is usable.

    The prompt of an answer that waits for its rewrite is taken to be as long as the original.
    """
    found: Counter = Counter()
    waiting: dict[str, int] = {}
    known = set()
    for action in actions:
        rewrite, answer = follow_row(answers, settings, templates, action)
        if rewrite.next_request:
            waiting[action.prompt] = len(fill(templates["answer"], prompt=prompt_text(action.row)))
        elif answer and answer.next_request:
            known.add(answer.next_request["messages"][0]["content"])
    found["rewrites"] = len(waiting)
    found["answers"] = len(waiting) + len(known)
    found["characters"] = sum(map(len, waiting)) + sum(waiting.values()) + sum(map(len, known))
    return found


def say_estimate(found: Counter, settings: dict[str, Any], budget: Budget, rows: int) -> None:
    """What is still to be asked for `rows` rows, what it may cost, and what has been spent, in words."""
    calls = found["rewrites"] + found["answers"]
    prompt, completion = found["characters"] // CHARACTERS_PER_TOKEN, calls * settings["max_tokens"]
    say(f"{rows} rows to make; {found['rewrites']} rewrites and up to {found['answers']} answers to ask for")
    say(
        f"{calls} calls: about {prompt} prompt tokens ({CHARACTERS_PER_TOKEN} characters taken as one token), at most "
        f"{completion} completion tokens; what cannot be parsed is asked for up to {settings['attempts']} times"
    )
    if budget.prices:
        asking, writing = cost_of(budget.prices, prompt, 0), cost_of(budget.prices, 0, completion)
        say(f"cost of these calls: about {asking:.4f} for the prompts, at most {writing:.4f} for the replies")
    say(f"spent in this experiment so far: {budget.spent()}")


def ask(args: argparse.Namespace, budget: Budget, templates: dict[str, str], actions: list[Action]) -> None:
    """Let DataDreamer put every question that the store does not answer, first the rewrites, then the answers.

    Raises UserError where the endpoint refuses or stays silent, and CapReached.
    """
    budget.check()
    # DataDreamer would answer from what it finds here, whatever the endpoint.
    folder = work_folder(args.refined, "refine", {"made by": "datadreamer"}) / "steps"
    if folder.exists():
        shutil.rmtree(folder)
    with served(args.access["command"], args.teacher["base_url"]) as url:
        say("starting DataDreamer")
        # Nothing is fetched from a hub, and DataDreamer's libraries must not try.
        os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TRANSFORMERS_OFFLINE="1")
        from datadreamer import DataDreamer

        from middo.teacher import Teacher, run_step

        teacher = Teacher(args.teacher, args.access, url, budget.answers, budget)
        with DataDreamer(str(folder)):
            rewritten = run_step(teacher, "rewrite", [action.prompt for action in actions])
            run_step(teacher, "answer", [fill(templates["answer"], prompt=text) for text in rewritten.values() if text])
    say(f"{teacher.asked} requests answered in this run, {teacher.retries} sent again")
    say(f"spent in this experiment: {budget.spent()}")


def ask_within_caps(args: argparse.Namespace, budget: Budget, templates: dict[str, str], actions: list[Action]) -> None:
    """`ask`, and where a cap ends it, say what is left. Raises UserError."""
    try:
        ask(args, budget, templates, actions)
    except CapReached as cap:
        ends = [follow_row(budget.answers, args.teacher, templates, action) for action in actions]
        left = sum((answer or rewrite).next_request is not None for rewrite, answer in ends)
        raise UserError(
            f"The budget of this experiment is used up: {budget.spent()}. {left} of {len(actions)} rows are still to "
            f"be made. All answers are kept; raise {cap} and start again to go on."
        ) from cap


def follow_row(
    answers: Answers, settings: dict[str, Any], templates: dict[str, str], action: Action
) -> tuple[Outcome, Outcome | None]:
    """How far the store has settled a row's rewrite, and its answer where there is a rewrite."""
    rewrite = follow(answers, settings, action.prompt, "rewrite")
    if not rewrite.text:
        return rewrite, None
    return rewrite, follow(answers, settings, fill(templates["answer"], prompt=rewrite.text), "answer")


def finish(
    action: Action, rewrite: Outcome, answer: Outcome | None, iteration: int
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """(new row without its id, None), or (None, the line of rejected.jsonl)."""
    last = answer or rewrite
    if last.text is None:
        return None, {
            "id": action.row["id"],
            "origin": action.origin,
            "step": "answer" if answer else "rewrite",
            "reason": last.reason,
            # Of a lone surrogate, which UTF-8 cannot hold, only the escape is left.
            "reply": last.reply.encode("utf-8", "backslashreplace").decode("utf-8"),
            "attempts": len(last.requests),
            "requests": [rewrite.requests[-1], *([answer.requests[-1]] if answer else [])],
        }
    return {
        "instruction": rewrite.text,
        "input": "",
        "output": answer.text,
        "origin": action.origin,
        "parents": [action.row["id"], *action.hints],
        "iteration": iteration,
        "requests": [rewrite.requests[-1], answer.requests[-1]],
    }, None


def report(
    actions: list[Action], rejected: list[dict], responses: list[Any], prices: dict[str, float] | None
) -> dict[str, Any]:
    """refine.json: what was asked, what came of it, what it took. The same for every run on the same answers."""
    asked = Counter(action.origin for action in actions)
    lost = {origin: [line for line in rejected if line["origin"] == origin] for origin in ORIGIN.values()}
    used = [tokens_counted(response) for response in responses]
    tokens = {kind: sum(counted[kind] for counted in used) for kind in KINDS}
    return {
        "rows": {
            origin: {
                "asked": asked[origin],
                "refined": asked[origin] - len(lost[origin]),
                "rejected": dict(Counter(f"{line['step']}: {line['reason']}" for line in lost[origin])),
            }
            for origin in ORIGIN.values()
        },
        "requests": len(responses),
        "tokens": tokens,
        "prices": prices,
        "cost": cost_of(prices, **tokens),
        "teacher_models": sorted({str(response.get("model")) for response in responses if not is_refusal(response)}),
    }


def write_results(args: argparse.Namespace, answers: Answers, templates: dict[str, str], actions: list[Action]) -> None:
    """Make all rows from the stored answers and write the three files."""
    keys: set[str] = set()
    refined, rejected = [], []
    for action in actions:
        rewrite, answer = follow_row(answers, args.teacher, templates, action)
        if (answer or rewrite).next_request:
            raise UserError(f"Row {action.row['id']} ({action.origin}) is still without an answer. Start again.")
        keys |= {*rewrite.requests, *(answer.requests if answer else [])}
        row, line = finish(action, rewrite, answer, args.iteration)
        refined += [row] if row else []
        rejected += [line] if line else []
    ended = [(row["parents"][0], row["origin"]) for row in refined] + [
        (line["id"], line["origin"]) for line in rejected
    ]
    check_same_ids(
        (f"{action.row['id']} {action.origin}" for action in actions), (f"{i} {o}" for i, o in ended), "refine"
    )
    write_jsonl(args.refined, with_ids(refined))
    write_jsonl(args.rejected, rejected)
    write_json(args.report, report(actions, rejected, [answers.get(key) for key in keys], args.access["prices"]))
    say(f"{len(actions)} rows asked for: {len(refined)} refined, {len(rejected)} rejected, {len(keys)} requests in all")


def main(args: argparse.Namespace) -> None:
    templates = read_templates(args.prompts)
    actions = read_actions(args, templates)
    answers = Answers(args.answers, args.answers_root)
    budget = Budget(args.access, answers)
    found = estimate(answers, args.teacher, templates, actions)
    say_estimate(found, args.teacher, budget, len(actions))
    if args.estimate:
        return
    if found["answers"]:
        read_key(args.access["api_key_env"])
        with answers.writing():
            ask_within_caps(args, budget, templates, actions)
    write_results(args, answers, templates, actions)
    clear_work(args.refined)


if __name__ == "__main__":
    program.run(main, arguments(), environment="refine")
