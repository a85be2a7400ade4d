"""What the demo's teacher says: right answers and sensible rewrites for the little world, plain ones for other text.

Pure functions of the message; `rng` is seeded by the request, so that the same request always gets the same reply.
"""

import random
import re
from dataclasses import replace

from demo.world import (
    Question,
    World,
    answer,
    draw_question,
    is_hard,
    is_known,
    parse,
    word_question,
)

LABELS = ("Step 1, methods:", "Step 2, plan:", "Step 3, rewritten prompt:", "Step 4, final prompt:")
METHODS = {
    "simplify": "Ask for one step only; use smaller numbers or fewer words; say it in plain words.",
    "improve": "Say what is to be done; give all that is needed; ask for one thing.",
}


def template_pattern(template: str) -> re.Pattern:
    """Matches a filled prompt file and gives back what stands in its places."""
    parts = re.split(r"\{([a-z]+)\}", template)
    return re.compile("".join(f"(?P<{p}>.*?)" if i % 2 else re.escape(p) for i, p in enumerate(parts)), re.DOTALL)


def reply_to(message: str, patterns: dict[str, re.Pattern], world: World, rng: random.Random) -> str:
    """The teacher's reply to a user message: a rewrite for simplify, improve and extend, else an answer."""
    for step in ("simplify", "improve", "extend"):
        found = patterns[step].fullmatch(message)
        if found:
            rewritten = _rewrite(step, found["prompt"].strip(), world, rng)
            return _labelled(step, rewritten)
    return _answer(message.strip(), world)


def _labelled(step: str, prompt: str) -> str:
    if step == "extend":
        return f"{LABELS[-1]}\n{prompt}"
    texts = (METHODS[step], "Apply the first of these that fits.", prompt, prompt)
    return "\n".join(f"{label}\n{text}" for label, text in zip(LABELS, texts, strict=True))


def _rewrite(step: str, prompt: str, world: World, rng: random.Random) -> str:
    question = parse(prompt)
    if question is None:
        return _rewrite_anything(step, prompt)
    if step == "simplify":
        question = _easier(question, world, rng)
    elif step == "improve" and not is_known(world, question):
        question = draw_question(world, rng, question.kind)
    elif step == "extend":
        core = question
        question = draw_question(world, rng, core.kind)
        while question == replace(core, then=""):
            question = draw_question(world, rng, core.kind)
    return word_question(world, rng, question)


def _easier(question: Question, world: World, rng: random.Random) -> Question:
    """One step instead of two; else other data of the usual size; a question that is easy already stays."""
    single = replace(question, then="")
    return single if is_known(world, single) and not is_hard(single) else draw_question(world, rng, question.kind)


def _answer(prompt: str, world: World) -> str:
    question = parse(prompt)
    if question is not None and is_known(world, question):
        return answer(world, question)
    return f"A short answer on {_start_of(prompt, 8)}."


def _rewrite_anything(step: str, prompt: str) -> str:
    """A rewrite of text that is not of the little world: well formed, and about the same thing."""
    subject = _start_of(prompt, 12)
    forms = {
        "simplify": "In one sentence, what is this about: {}?",
        "improve": "Explain the following clearly and completely: {}.",
        "extend": "Name one less known fact about this: {}.",
    }
    return forms[step].format(subject)


def _start_of(text: str, words: int) -> str:
    """The first words of a text on one line; without marks that would end a sentence in the middle."""
    return " ".join(re.findall(r"[^\s.!?:]+", text)[:words]) or "nothing"
