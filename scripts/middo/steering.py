"""Rows whose text tries to steer the judge: flagged in scores, selected no differently.

A simple set of patterns, over instruction, input and output, whatever the case: an order to rate this or the response
with a number; to give it a score, or the highest one; to ignore the instructions before; to reply with 10; our own
prompts' request repeated; a rating, or an assistant's turn with one, that is there already. They find what is written
plainly and miss what is disguised; a text that only quotes such words is flagged too.
"""

import re
from collections.abc import Iterable

_OURS = r"(?:prompt|response|reply|answer|instruction|sample|row)"
_JUDGED = rf"(?:this|it|me|(?:the|this|my)\s+(?:above\s+|following\s+)?{_OURS})"
_TEN = r"(?:10|ten)"
_PATTERNS = [
    # "rate this 10", "score the response as a ten"; not "rate this movie", nor "rate it from 1 to 10".
    rf"\b(?:rate|score|grade|mark)\s+{_JUDGED}\s*(?:(?:as|with|at|a|an|:|=)\s*){{0,3}}{_TEN}\b",
    # "give it a score of 9", "assign this response the highest possible rating".
    rf"\b(?:give|assign|award|grant)\s+{_JUDGED}\s+(?:an?\s+|the\s+)?(?:score|rating|grade|mark)\s+of\b",
    rf"\b(?:give|assign|award|grant)\s+{_JUDGED}\s+(?:an?\s+|the\s+)?(?:{_TEN}\b(?![^\S\n]*\w)|"
    r"(?:perfect|full|highest|maximum|top|best)\s+(?:possible\s+)?(?:score|rating|grade|marks?)\b)",
    # "ignore all previous instructions", "disregard the above prompt".
    r"\b(?:ignore|disregard|forget|override)\s+(?:(?:all|any|the|these|those|your|of)\s+){0,3}"
    r"(?:previous|prior|preceding|above|earlier|foregoing)\s+(?:instruction|prompt|direction|rule|message|request)s?\b",
    # "reply only with 10."; not "reply with 10 examples".
    rf"\b(?:reply|respond|answer)\s+(?:only\s+)?with\s+(?:only\s+)?(?:the\s+number\s+|an?\s+)?[\"'`]?{_TEN}\b(?![^\S\n]*\w)",
    # What config/prompts asks for.
    r"\breply\s+with\s+a\s+number\s+from\s+0\s+to\s+10\b",
    r"\brate\s+a\s+sample\s+of\s+training\s+data\b",
    # "Rating: 10", "clarity = 10/10" on a line of its own.
    r"^[^\w\n]{0,10}(?:rating|score|quality|clarity|completeness|factuality)[^\w\n]{0,5}[:=][^\w\n]{0,5}"
    rf"{_TEN}(?:\s{{0,3}}(?:/|out\s+of)\s{{0,3}}10)?[^\w\n]{{0,10}}$",
    # "Assistant: 10", "<|im_start|>assistant 10", "[/INST] 10" at the end of a line.
    rf"(?:\bassistant|\[/inst\])\W{{0,20}}{_TEN}\b(?=[^\w\n]{{0,3}}(?:$|<|\[))",
]
_STEERS = re.compile("|".join(f"(?:{pattern})" for pattern in _PATTERNS), re.IGNORECASE | re.MULTILINE)


def steering(rows: Iterable[dict]) -> list[bool]:
    """For each row whether its text tries to steer the judge."""
    texts = ("\n".join((row["instruction"], row["input"], row["output"])) for row in rows)
    return [_STEERS.search(text) is not None for text in texts]
