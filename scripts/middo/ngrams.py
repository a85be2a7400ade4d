"""Overlap of texts by their words: near-copies among rows, questions of a benchmark in a row.

Words are letters and digits, case and punctuation left out, as in GPT-3's check for contamination (Brown et al. 2020,
appendix C), whose 13 words in a row are the usual sign of a leak.
"""

import math
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from fractions import Fraction

LEAK_WORDS = 13
# A question of fewer words than 13 is looked for as a whole; below this number, as a row's whole prompt alone, since
# such a phrase stands everywhere (GPT-3 uses no shorter n-grams either).
SHORTEST = 8
COPY_WORDS = 5
COPY_JACCARD = Fraction(4, 5)

_WORD = re.compile(r"\w+")


def words_of(text: str) -> list[str]:
    """The words of a text, in their order."""
    return _WORD.findall(text.casefold())


def ngrams(words: Sequence[str], length: int) -> Iterator[tuple[str, ...]]:
    """All runs of `length` words; none where there are fewer."""
    return (tuple(words[start : start + length]) for start in range(len(words) - length + 1))


def leaks(
    rows: Mapping[str, tuple[str, str]], questions: Mapping[Hashable, str]
) -> Iterator[tuple[str, Hashable, str]]:
    """(row, question, shared words) for each question that a row shares 13 words in a row with; a pair stands once.

    `rows` are prompt and response by id, `questions` texts by name. Of questions that hold the same 13 words the first
    counts. Shorter questions: see `SHORTEST`.
    """
    found: dict[int, dict[int, Hashable]] = {}
    prompts: dict[tuple[str, ...], Hashable] = {}
    for name, text in questions.items():
        words = words_of(text)
        if len(words) < SHORTEST:
            prompts.setdefault(tuple(words), name)
            continue
        length = min(len(words), LEAK_WORDS)
        known = found.setdefault(length, {})
        for gram in ngrams(words, length):
            # Numbers instead of texts: a tenth of the memory; two texts in 2^64 have the same one.
            known.setdefault(hash(gram), name)
    prompts.pop((), None)
    for identity, texts in rows.items():
        hits: dict[Hashable, str] = {}
        for words in map(words_of, texts):
            for length, known in found.items():
                for gram in ngrams(words, length):
                    if (name := known.get(hash(gram))) is not None:
                        hits.setdefault(name, " ".join(gram))
        prompt = tuple(words_of(texts[0]))
        if prompt in prompts:
            hits.setdefault(prompts[prompt], " ".join(prompt))
        yield from ((identity, name, shared) for name, shared in hits.items())


def near_copies(new: Mapping[str, str], old: Mapping[str, str]) -> Iterator[tuple[str, str, float]]:
    """(new, old, similarity) of each pair of texts whose sets of 5 words in a row have a Jaccard index of 0.8 or more.

    A text of fewer words counts as one such run. Exact: every pair at or above the bound is found, without comparing
    all pairs. Of the runs of a new text at most a fifth may be missing in the old one, so one of its rarest fifth and
    one more must be there (prefix filtering, Bayardo et al. 2007).
    """
    wanted = {identity: _copy_grams(text) for identity, text in new.items()}
    asked = set().union(*wanted.values())
    holders: dict[int, list[int]] = {}
    names, sizes, shared = list(old), [], []
    for place, text in enumerate(old.values()):
        grams = _copy_grams(text)
        sizes.append(len(grams))
        shared.append(grams & asked)
        for gram in shared[-1]:
            holders.setdefault(gram, []).append(place)
    for identity, grams in wanted.items():
        rarest = sorted(grams, key=lambda gram: len(holders.get(gram, ())))
        prefix = rarest[: len(grams) - math.ceil(COPY_JACCARD * len(grams)) + 1] if grams else []
        for place in sorted({place for gram in prefix for place in holders.get(gram, ())}):
            common = len(grams & shared[place])
            similarity = common / (len(grams) + sizes[place] - common)
            if similarity >= COPY_JACCARD:
                yield identity, names[place], similarity


def _copy_grams(text: str) -> set[int]:
    words = words_of(text)
    if len(words) < COPY_WORDS:
        return {hash(tuple(words))} if words else set()
    return set(map(hash, ngrams(words, COPY_WORDS)))
