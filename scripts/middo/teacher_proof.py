"""That the teacher's rows are what its stored answers say, read again (a part of the audit, see `middo.audit`)."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from middo.budget import cost_of
from middo.lineage import Fault, StoredAnswers, Version
from middo.prompts import fill, quote_hints
from middo.questions import Outcome, follow
from middo.replies import KINDS, is_refusal, tokens_counted
from middo.rows import prompt_text

PROMPT = {"simplified": "simplify.md", "improved": "improve.md", "extended": "extend.md"}


def template(version: Version, name: str) -> str:
    """The text of a prompt as it was when the version was made."""
    return version.manifest["prompts"][name]["text"].removesuffix("\n")


def rewrite_prompt(version: Version, earlier: Version, origin: str, parents: list[str]) -> str:
    """What the teacher was asked in order to act on `parents[0]`, the other parents being hints."""
    rows = [earlier.rows[parent] for parent in parents]
    return fill(template(version, PROMPT[origin]), prompt=prompt_text(rows[0]), hints=quote_hints(rows[1:]))


def prove_teacher(version: Version, earlier: Version, answers: StoredAnswers) -> Iterator[Fault]:
    """Each refined row, each rejection and refine.json follow from the stored answers."""
    used: set[str] = set()
    for row in version.refined:
        if all(parent in earlier.rows for parent in row["parents"]):
            yield from _prove_refined(version, earlier, row, answers, used)
    for line in version.rejected:
        if line["id"] in earlier.rows:
            yield from _prove_rejected(version, earlier, line, answers, used)
    yield from _prove_report(version, answers, used)


def _ask_again(
    version: Version, rewriting: str, answers: StoredAnswers, used: set[str]
) -> tuple[Outcome, Outcome | None]:
    """Both questions of a new row, answered by the store alone; None where it did not come to the second."""
    settings = version.manifest["settings"]["teacher"]
    rewrite = follow(answers, settings, rewriting, "rewrite")
    answer = None
    if rewrite.text is not None:
        answer = follow(answers, settings, fill(template(version, "answer.md"), prompt=rewrite.text), "answer")
    used |= {*rewrite.requests, *(answer.requests if answer else [])}
    return rewrite, answer


def _prove_refined(
    version: Version, earlier: Version, row: dict[str, Any], answers: StoredAnswers, used: set[str]
) -> Iterator[Fault]:
    where = f"{version.folder / 'refined.jsonl'}, row {row['id']}"
    rewriting = rewrite_prompt(version, earlier, row["origin"], row["parents"])
    rewrite, answer = _ask_again(version, rewriting, answers, used)
    missing = [key for key in row["requests"] if answers.record(key) is None]
    if missing:
        yield Fault(where, f"there is no stored answer to its request {missing[0]} under {answers.root}")
    elif answer is None or answer.text is None:
        yield Fault(where, "the stored answers to what the teacher must have been asked do not lead to a row")
    else:
        parsed = {
            "instruction": rewrite.text,
            "input": "",
            "output": answer.text,
            "requests": [rewrite.requests[-1], answer.requests[-1]],
        }
        differing = [key for key, value in parsed.items() if row[key] != value]
        if differing:
            yield Fault(where, f"{', '.join(differing)}: not what the stored answers, read again, give")


def _prove_rejected(
    version: Version, earlier: Version, line: dict[str, Any], answers: StoredAnswers, used: set[str]
) -> Iterator[Fault]:
    where = f"{version.folder / 'rejected.jsonl'}, row {line['id']}"
    missing = [key for key in line["requests"] if answers.record(key) is None]
    if missing:
        yield Fault(where, f"there is no stored answer to its request {missing[0]} under {answers.root}")
        return
    # Which rows were hints is recorded only of rows that came to be; what was asked stands beside the answer.
    asked = answers.record(line["requests"][0])["request"]["messages"][0]["content"]
    if line["origin"] == "extended":
        fits = prompt_text(earlier.rows[line["id"]]) in asked
    else:
        fits = asked == rewrite_prompt(version, earlier, line["origin"], [line["id"]])
    rewrite, answer = _ask_again(version, asked, answers, used)
    last = answer or rewrite
    derived = {
        "step": "answer" if answer else "rewrite",
        "reason": last.reason,
        "reply": last.reply.encode("utf-8", "backslashreplace").decode("utf-8"),
        "attempts": len(last.requests),
        "requests": [outcome.requests[-1] for outcome in (rewrite, answer) if outcome and outcome.requests],
    }
    differing = [key for key, value in derived.items() if line[key] != value]
    if not fits or last.text is not None or differing:
        named = ", ".join(differing) or "its request"
        yield Fault(where, f"{named}: not what the stored answers, read again, give")


def _prove_report(version: Version, answers: StoredAnswers, used: set[str]) -> Iterator[Fault]:
    """refine.json counts what was asked and what it took."""
    responses = [response for response in map(answers.get, used) if response is not None]
    each = [tokens_counted(response) for response in responses]
    tokens = {kind: sum(counted[kind] for counted in each) for kind in KINDS}
    refined = Counter(row["origin"] for row in version.refined)
    lost = Counter(line["origin"] for line in version.rejected)
    said = version.refine_report
    counted = {
        "requests": len(used),
        "tokens": tokens,
        "cost": cost_of(said["prices"], **tokens),
        "teacher_models": sorted({str(reply.get("model")) for reply in responses if not is_refusal(reply)}),
    }
    wrong = [key for key, value in counted.items() if said[key] != value]
    for origin in PROMPT:
        numbers = (refined[origin] + lost[origin], refined[origin])
        if (said["rows"][origin]["asked"], said["rows"][origin]["refined"]) != numbers:
            wrong.append(f"rows.{origin}")
    if wrong:
        yield Fault(str(version.folder / "refine.json"), f"{', '.join(wrong)}: not what the stored answers add up to")
