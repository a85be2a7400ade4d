"""Self-ratings: six questions about a row, eleven answers, and the numbers that a model's probabilities make of them.

A rating is read from the model's own next-token probabilities, never from text that it wrote (method.md, sections 2
and 6). The probability of an answer is that of a text that begins with its tokens and is not a longer answer. Where
"10" is two tokens, "1" and "0", that means

    P("10") = P("1") * P("0" | "1")        P("1") = P("1") * (1 - P("0" | "1"))

and the model is asked twice: after the prompt, and after the prompt with "1". Where "10" is one token of its own, one
question is enough. `questions` and `answer_probabilities` hold for both and for any other way in which a vocabulary
may cut the answers.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from middo.control_tokens import PlainText, control_words
from middo.program import UserError
from middo.prompts import fill, read_template
from middo.rows import prompt_text

ASPECTS = ("clarity", "completeness", "factuality")
# The columns of scores.parquet, and the order of a row's questions: those that share most stand together.
RATINGS = tuple(f"{aspect}_{part}" for part in ("instruction", "response") for aspect in ASPECTS)
ANSWERS = tuple(str(number) for number in range(11))

Tokens = tuple[int, ...]


class ChatFormat(NamedTuple):
    """How a checkpoint's chat template turns the user's text into token ids; `answers` are those of `ANSWERS`."""

    head: Tokens
    before: str
    after: str
    tail: Tokens
    answers: tuple[Tokens, ...]


def read_prompts(paths: Sequence[Path]) -> dict[str, str]:
    """The templates of the six ratings by name, from files named `<rating>.md`.

    Raises UserError where one is missing, none of the six, or lacks one of its places.
    """
    by_name = {Path(path).stem: Path(path) for path in paths}
    if sorted(by_name) != sorted(RATINGS):
        raise UserError(f"--prompts: the six files of {', '.join(RATINGS)} are needed; given: {', '.join(by_name)}.")
    return {
        name: read_template(by_name[name], {"prompt", "response"} if name.endswith("_response") else {"prompt"})
        for name in RATINGS
    }


def questions_of(row: dict, templates: Mapping[str, str]) -> list[str]:
    """The six user turns about a row, in the order of `RATINGS`."""
    return [fill(templates[name], prompt=prompt_text(row), response=row["output"]) for name in RATINGS]


def chat_format(tokenizer: Any) -> ChatFormat:
    """The chat format of a Hugging Face tokenizer.

    Raises UserError where there is no template, or where the eleven answers can't be told apart in this vocabulary.
    """
    if not tokenizer.chat_template:
        raise UserError("The checkpoint's tokenizer has no chat template, so its prompts can't be written.")
    asked, replied = "\ue000question\ue000", "\ue000reply\ue000"
    turn = {"role": "user", "content": asked}
    user = tokenizer.apply_chat_template([turn], tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template([turn, {"role": "assistant", "content": replied}], tokenize=False)
    if user.count(asked) != 1 or whole.count(replied) != 1 or not whole.startswith(user):
        raise UserError(
            "The checkpoint's chat template doesn't write a user's turn with the assistant's turn after it."
        )
    lead = whole[len(user) : whole.index(replied)]
    head, (before, after), tail = _around(user, asked, (tokenizer.bos_token, tokenizer.eos_token))

    def encode(text: str) -> Tokens:
        return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])

    return ChatFormat(
        head=tuple(token for piece in head for token in encode(piece)),
        before=before,
        after=after,
        tail=tuple(token for piece in tail for token in encode(piece)),
        answers=answer_tokens(lambda answer: encode(lead + answer), tokenizer.unk_token_id),
    )


def _around(text: str, marker: str, special: Sequence[str | None]) -> tuple[list[str], list[str], list[str]]:
    """Cut `text` at the special tokens; the pieces before the one with the marker, its two sides, the pieces after.

    LLaMA-Factory encodes each such piece by itself, which a vocabulary that marks the start of a text can tell.
    """
    pieces = [text]
    for token in filter(None, special):
        pieces = [part for piece in pieces for part in _split_keeping(piece, token)]
    place = next(number for number, piece in enumerate(pieces) if marker in piece)
    return pieces[:place], pieces[place].split(marker), pieces[place + 1 :]


def _split_keeping(text: str, token: str) -> list[str]:
    if text == token:
        return [text]
    parts = [part for piece in text.split(token) for part in (token, piece)][1:]
    return [part for part in parts if part]


def answer_tokens(encode: Callable[[str], Tokens], unknown: int | None) -> tuple[Tokens, ...]:
    """The token ids of the eleven answers as training writes them at the start of the assistant's turn.

    Raises UserError where two are the same or one holds the token for unknown text.
    """
    answers = tuple(tuple(encode(answer)) for answer in ANSWERS)
    if len(set(answers)) < len(ANSWERS) or any(not tokens or unknown in tokens for tokens in answers):
        listed = "; ".join(f"{answer} is {list(tokens)}" for answer, tokens in zip(ANSWERS, answers, strict=True))
        raise UserError(f"The answers 0 to 10 can't be told apart in this checkpoint's vocabulary: {listed}.")
    return answers


def encode_users(tokenizer: Any, chat: ChatFormat, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text as the user's turn, up to where the assistant's begins.

    What the text holds is never read as control tokens (middo/control_tokens.py).
    """
    filled = [chat.before + text + chat.after for text in texts]
    encoded = tokenizer(filled, add_special_tokens=False)["input_ids"]
    words = control_words(tokenizer)
    for place, text in enumerate(texts):
        if words and words.search(text):
            plain = PlainText(tokenizer, words, [text])
            encoded[place] = plain.encode(chat.before + plain.hide(text) + chat.after)
    return [[*chat.head, *tokens, *chat.tail] for tokens in encoded]


def shared_start(answers: Sequence[Tokens]) -> Tokens:
    """The tokens that all answers begin with: whatever the model thinks of them, they don't tell answers apart."""
    length = 0
    while all(len(tokens) > length for tokens in answers) and len({tokens[length] for tokens in answers}) == 1:
        length += 1
    return tuple(answers[0][:length])


def questions(answers: Sequence[Tokens]) -> dict[Tokens, Tokens]:
    """Where the model must be asked: after which tokens of an answer, and about which next tokens; both in order."""
    start = shared_start(answers)
    following: dict[Tokens, set[int]] = {}
    for tokens in answers:
        for length in range(len(start), len(tokens)):
            following.setdefault(tokens[:length], set()).add(tokens[length])
    return {path: tuple(sorted(following[path])) for path in sorted(following, key=lambda path: (len(path), path))}


def answer_probabilities(
    answers: Sequence[Tokens], logprobs: Mapping[Tokens, Mapping[int, float]]
) -> np.ndarray | None:
    """The model's distribution over the answers, renormalised over them: float64 [11], sum 1.

    `logprobs` holds, for each key of `questions(answers)`, the natural log of the probability of each next token.
    None where a value is not a number or no answer has any probability.
    """
    start = len(shared_start(answers))
    logs = np.empty(len(answers))
    for number, tokens in enumerate(answers):
        logs[number] = sum(logprobs[tokens[:length]][tokens[length]] for length in range(start, len(tokens)))
        if tokens in logprobs:
            longer = sum(math.exp(value) for value in logprobs[tokens].values())
            # Rounding can bring the sum to 1 or a little above it: then nothing is left for the shorter answer.
            logs[number] += math.log1p(-longer) if longer < 1 else -math.inf if longer >= 1 else math.nan
    highest = logs.max()
    if not math.isfinite(highest):
        return None
    weights = np.exp(logs - highest)
    return weights / weights.sum()


def rating(probabilities: np.ndarray | None, reading: str) -> float | None:
    """One rating, 0 to 10, from the distribution over the eleven answers; None where there is none.

    `expected` is the mean of the distribution; `greedy` is its most probable answer, the smaller one on a tie. That is
    what decoding constrained to the eleven gives when it weighs whole answers. Token-wise decoding would settle on the
    token "1" before it knew whether a "0" follows, and so favour 1 and 10 where "10" is two tokens.
    """
    if probabilities is None:
        return None
    if reading == "greedy":
        return float(probabilities.argmax())
    return float(probabilities @ np.arange(len(ANSWERS)))


def quality(ratings: Sequence[float | None]) -> float | None:
    """The mean of a row's six ratings; None where one is missing: the mean of fewer would measure something else."""
    return None if any(value is None for value in ratings) else math.fsum(ratings) / len(ratings)
