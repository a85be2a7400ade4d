"""The pretraining text of the demo's base model: what is true in the little world, questions with answers, ratings.

The base model shall know the world and be able to rate samples, but answer most questions in a sentence: to say the
answer alone is what fine-tuning has left to teach. The sentences of common kinds start alike, those of each rare kind
in their own way (kinds.py), so that what a model learns from common rows does not carry over to rare kinds.
"""

import random
from collections.abc import Iterator

from demo.kinds import KINDS
from demo.world import (
    Question,
    World,
    answer,
    draw_hard_question,
    draw_question,
    render_unclear,
    word_question,
)

from middo.prompts import fill
from middo.ratings import ASPECTS

END = "</s>\n"

# Documents of each sort.
STATEMENTS = 2000
CHATS = 40000
RATINGS = 5000

# Share of the chats in which the answer is a sentence, the first of its kind's statements.
SENTENCES, SENTENCES_OF_RARE = 0.6, 0.7

# Share of the wrong answers that are answers to something else.
OFF_TOPIC = 0.5

# Sorts of rated samples and how often they come; below, the lowest and highest rating by each aspect.
SAMPLES = {
    "good": 0.45,
    "wrong": 0.25,
    "unclear": 0.20,
    "hard": 0.10,
}
PARTS = ("instruction", "response")
# The prompt of a wrong sample is good; the base model shall not learn answers to hard ones.
PARTS_RATED = {"good": PARTS, "wrong": ("response",), "unclear": PARTS, "hard": ("instruction",)}
RATING_RANGES = {
    ("good", "instruction"): ((9, 10), (9, 10), (9, 10)),
    ("good", "response"): ((9, 10), (9, 10), (9, 10)),
    ("wrong", "response"): ((6, 8), (3, 5), (0, 2)),
    ("unclear", "instruction"): ((0, 3), (0, 3), (4, 7)),
    ("unclear", "response"): ((4, 7), (1, 4), (2, 5)),
    ("hard", "instruction"): ((8, 10), (9, 10), (9, 10)),
}


def corpus(world: World, rng: random.Random, templates: dict[str, str]) -> list[str]:
    """All documents, shuffled. `templates`: the six rating prompts by name, such as `clarity_response`."""
    documents = [*_statements(world, rng), *_chats(world, rng), *_ratings(world, rng, templates)]
    rng.shuffle(documents)
    return documents


def wrong_answer(world: World, rng: random.Random, kind: str, data: tuple[str, ...], right: str) -> str:
    """The answer to a question of another kind, or a plausible mistake: a near number, another fact, a wrong order."""
    while True:
        if rng.random() < OFF_TOPIC:
            other = rng.choice([other for other in sorted(KINDS) if other != kind])
            wrong = KINDS[other].solve(world, KINDS[other].draw(world, rng))
        elif kind == "pick":
            wrong = rng.choice(data[1].split())
        elif kind == "reverse":
            words = data[0].split()
            wrong = " ".join(rng.sample(words, len(words)))
        elif right.isdigit() and kind != "larger":
            wrong = str(max(0, int(right) + rng.randint(-5, 5)))
        elif kind == "larger":
            wrong = min(data, key=int)
        else:
            wrong = KINDS[kind].solve(world, KINDS[kind].draw(world, rng))
        if wrong != right:
            return wrong


def chat(prompt: str, reply: str) -> str:
    """A question and its answer in the form of LLaMA-Factory's template `default`."""
    return f"Human: {prompt}</s>\nAssistant:{reply}{END}"


def _statements(world: World, rng: random.Random) -> Iterator[str]:
    for _ in range(STATEMENTS):
        sentences = []
        for kind in rng.choices(sorted(KINDS), k=3):
            question = draw_question(world, rng, kind)
            values = dict(zip(KINDS[kind].places, question.data, strict=True))
            sentences.append(rng.choice(KINDS[kind].statements).format(**values, answer=answer(world, question)))
        yield " ".join(sentences) + END


def _chats(world: World, rng: random.Random) -> Iterator[str]:
    for kind in rng.choices(sorted(KINDS), k=CHATS):
        question = draw_question(world, rng, kind)
        yield chat(word_question(world, rng, question), _reply(world, rng, question))


def _reply(world: World, rng: random.Random, question: Question) -> str:
    kind, right = KINDS[question.kind], answer(world, question)
    if rng.random() >= (SENTENCES_OF_RARE if kind.rare else SENTENCES):
        return right
    return kind.statements[0].format(**dict(zip(kind.places, question.data, strict=True)), answer=right)


def _ratings(world: World, rng: random.Random, templates: dict[str, str]) -> Iterator[str]:
    for sort in rng.choices(list(SAMPLES), list(SAMPLES.values()), k=RATINGS):
        part = rng.choice(PARTS_RATED[sort])
        place = rng.randrange(len(ASPECTS))
        prompt, response = sample(world, rng, sort, sorted(KINDS))
        values = {"prompt": prompt, "response": response} if part == "response" else {"prompt": prompt}
        rating = rng.randint(*RATING_RANGES[sort, part][place])
        yield chat(fill(templates[f"{ASPECTS[place]}_{part}"], **values), str(rating))


def sample(world: World, rng: random.Random, sort: str, kinds: list[str]) -> tuple[str, str]:
    """A prompt and a response of this sort (good, wrong, unclear or hard), about one of `kinds`."""
    if sort == "hard":
        question = draw_hard_question(world, rng, rng.choice([kind for kind in kinds if kind != "letter"]))
        return word_question(world, rng, question), answer(world, question)
    kind = rng.choice(kinds)
    question = draw_question(world, rng, kind)
    right = answer(world, question)
    if sort == "unclear":
        return render_unclear(world, rng, kind), right
    reply = right if sort == "good" else wrong_answer(world, rng, kind, question.data, right)
    return word_question(world, rng, question), reply
