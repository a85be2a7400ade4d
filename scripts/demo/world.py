"""The demo's little world: questions whose right answers a program knows. Pure functions, standard library only.

world = make_world(seed=1)
question = parse("What is 3 plus 4? Then multiply the answer by 12.")
answer(world, question)  # "84"
"""

import random
import re
from dataclasses import dataclass, replace

from demo.kinds import KINDS, PLACES, Data
from demo.words import CITY_ENDINGS, COUNTRY_ENDINGS, NOUNS, OPPOSITES, SYLLABLES


@dataclass(frozen=True)
class World:
    """What is true in the world with number `seed`: plurals, opposites, capitals by country, countries by capital."""

    seed: int
    nouns: dict[str, str]
    opposites: dict[str, str]
    capitals: dict[str, str]
    countries: dict[str, str]


@dataclass(frozen=True)
class Question:
    """A question without its wording.

    `then` makes it a composition: "backwards", or a number to multiply the answer by. `clear` is false where the
    text leaves out data or does not say what to do; `data` is empty then.
    """

    kind: str
    data: Data
    then: str = ""
    clear: bool = True


COMPOSED = {
    "backwards": ("Then spell the answer backwards.", "After that, write the answer from its end to its start."),
    "times": ("Then multiply the answer by {n}.", "After that, take the answer {n} times."),
}
WORD_KINDS = ("opposite", "capital", "pick", "reverse", "plural", "country")
HELDOUT_SHARE = 0.15


def make_world(seed: int) -> World:
    """The world with this number: some nouns, pairs of opposites, eighteen invented countries with their capitals."""
    rng = random.Random(f"world {seed}")
    nouns = {noun: NOUNS[noun] for noun in rng.sample(sorted(NOUNS), 24)}
    pairs = [(word, OPPOSITES[word]) for word in rng.sample(sorted(OPPOSITES), 12)]
    opposites = dict(pairs) | {second: first for first, second in pairs}
    stems = rng.sample(SYLLABLES, 18)
    capitals = {}
    for stem in stems:
        country = stem + rng.choice(SYLLABLES) + rng.choice(COUNTRY_ENDINGS)
        city = rng.choice(SYLLABLES) + stem[0] + rng.choice("aeiou") + rng.choice(CITY_ENDINGS)
        while city.capitalize() in capitals.values():
            city = rng.choice(SYLLABLES) + stem[0] + rng.choice("aeiou") + rng.choice(CITY_ENDINGS)
        capitals[country.capitalize()] = city.capitalize()
    return World(seed, nouns, opposites, capitals, {city: country for country, city in capitals.items()})


def answer(world: World, question: Question) -> str:
    """The right answer, one to six words.

    Raises ValueError for an unclear question, KeyError for what this world does not hold.
    """
    if not question.clear:
        raise ValueError(f"an unclear question has no answer: {question}")
    simple = KINDS[question.kind].solve(world, question.data)
    if not question.then:
        return simple
    return simple[::-1] if question.then == "backwards" else str(int(simple) * int(question.then))


def is_known(world: World, question: Question) -> bool:
    """Whether the world knows an answer."""
    if not question.clear:
        return False
    try:
        answer(world, question)
    except (KeyError, ValueError, IndexError):
        return False
    return True


def draw_question(world: World, rng: random.Random, kind: str) -> Question:
    """A clear question of this kind, free for training: no wording of it is kept for the held-out set alone."""
    while True:
        question = Question(kind, KINDS[kind].draw(world, rng))
        if KINDS[kind].fact or not heldout_wordings(world, question):
            return question


def draw_heldout_question(world: World, rng: random.Random, kind: str) -> str:
    """A clear question of this kind as text, kept for the held-out set."""
    while True:
        question = Question(kind, KINDS[kind].draw(world, rng))
        wordings = heldout_wordings(world, question)
        if wordings:
            return render(question, rng.choice(wordings), rng)


def draw_hard_question(world: World, rng: random.Random, kind: str) -> Question:
    """A question of this kind that is too hard for a small model: a composition, or a sum of large numbers."""
    if kind in ("sum", "difference") and rng.random() < 0.5:
        a, b = sorted(rng.sample(range(100, 1000), 2), reverse=True)
        return Question(kind, (str(a), str(b)))
    then = "backwards" if kind in WORD_KINDS else str(rng.randint(12, 99))
    return replace(draw_question(world, rng, kind), then=then)


def is_hard(question: Question) -> bool:
    """Whether it is a composition, or a sum or difference of large numbers."""
    return bool(question.then) or (question.kind in ("sum", "difference") and any(int(n) >= 100 for n in question.data))


def heldout_wordings(world: World, question: Question) -> tuple[int, ...]:
    """Wordings in which this question may stand in the held-out set alone.

    Of a fact, one wording: the fact itself must be learned somewhere. Of anything else all wordings, for a fixed share
    of the questions, and none for the others. Hard questions are not held out.
    """
    kind = KINDS[question.kind]
    if is_hard(question):
        return ()
    rng = random.Random(f"heldout {world.seed} {question.kind} {question.data}")
    if kind.fact:
        return (rng.randrange(len(kind.wordings)),)
    return tuple(range(len(kind.wordings))) if rng.random() < HELDOUT_SHARE else ()


def training_wordings(world: World, question: Question) -> tuple[int, ...]:
    """Wordings in which this question may be used for training; for a composition only those that end a sentence."""
    kept = heldout_wordings(world, question)
    wordings = KINDS[question.kind].wordings
    free = [number for number in range(len(wordings)) if number not in kept]
    if not question.then:
        return tuple(free)
    return tuple(number for number in free if wordings[number].partition("\n")[0].endswith((".", "?")))


def word_question(world: World, rng: random.Random, question: Question) -> str:
    """A clear question as text, in one of the wordings free for training."""
    return render(question, rng.choice(training_wordings(world, question)), rng)


def render(question: Question, wording: int, rng: random.Random) -> str:
    """A clear question as text in the wording with this number; `rng` chooses how a composition goes on."""
    kind = KINDS[question.kind]
    text = kind.wordings[wording].format(**dict(zip(kind.places, question.data, strict=True)))
    if not question.then:
        return text
    suffixes = COMPOSED["backwards" if question.then == "backwards" else "times"]
    suffix = rng.choice(suffixes).format(n=question.then)
    instruction, newline, data = text.partition("\n")
    return f"{instruction} {suffix}{newline}{data}"


def render_unclear(world: World, rng: random.Random, kind: str) -> str:
    """A text that leaves out data, or does not say what to do, of this kind."""
    asked = KINDS[kind]
    data = asked.draw(world, rng)
    return rng.choice(asked.unclear).format(**dict(zip(asked.places, data, strict=True)))


def parse(text: str) -> Question | None:
    """The question that `text` asks, in any wording of any kind; None where it is not of this world's form."""
    text = text.strip()
    for suffix, then in _SUFFIXES:
        found = suffix.search(text)
        if found:
            inner = parse(text[: found.start()] + text[found.end() :])
            if inner is None or not inner.clear or inner.then:
                return None
            return replace(inner, then=then or found["n"])
    # Unclear ones first: "Write it in the plural." is not about the noun "it".
    for name, pattern in _UNCLEAR:
        if pattern.fullmatch(text):
            return Question(name, (), clear=False)
    for name, pattern in _CLEAR:
        found = pattern.fullmatch(text)
        if found:
            return Question(name, tuple(found[place] for place in KINDS[name].places))
    return None


def _pattern(wording: str) -> re.Pattern:
    parts = re.split(r"\{([a-z]+)\}", wording)
    return re.compile("".join(f"(?P<{p}>{PLACES[p]})" if i % 2 else re.escape(p) for i, p in enumerate(parts)))


_CLEAR = [(name, _pattern(wording)) for name, kind in KINDS.items() for wording in kind.wordings]
_UNCLEAR = [(name, _pattern(wording)) for name, kind in KINDS.items() for wording in kind.unclear]
_SUFFIXES = [
    (
        re.compile(" " + re.escape(suffix).replace(r"\{n\}", "(?P<n>[0-9]{1,4})")),
        "backwards" if name == "backwards" else "",
    )
    for name, suffixes in COMPOSED.items()
    for suffix in suffixes
]
