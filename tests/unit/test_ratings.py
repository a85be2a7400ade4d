"""From a model's probabilities to ratings; from prompt files and chat templates to questions."""

import itertools
import math
import re

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from middo import ratings
from middo.program import UserError

FILES = sorted((ROOT / "config" / "prompts").glob("*_*.md"))
DIGITS = tuple((digit,) for digit in range(10))
# Ways in which vocabularies cut the answers; token ids are small numbers, 10 to 12 being other tokens.
WHOLE = (*DIGITS, (10,))
PAIRS = (*DIGITS, (1, 0))
LED = tuple((12, *tokens) for tokens in PAIRS)
SPACED = ((12, 0), (11,), *((12, digit) for digit in range(2, 10)), (11, 0))
VOCABULARIES = {"whole": WHOLE, "pairs": PAIRS, "led": LED, "spaced": SPACED}
TOKENS = 13

weights = st.lists(st.floats(0.01, 1), min_size=TOKENS, max_size=TOKENS)


def next_token(path, first, second):
    """A model with a memory of one token: its distribution after `path`."""
    row = np.array(second if path else first) * (1 + (np.arange(TOKENS) * (sum(path) + 1)) % 5)
    return row / row.sum()


def enumerated(answers, first, second):
    """The distribution over the answers, by going through every text of three tokens and reading its longest answer."""
    mass = np.zeros(11)
    for text in itertools.product(range(TOKENS), repeat=3):
        begun = [number for number, tokens in enumerate(answers) if text[: len(tokens)] == tokens]
        if begun:
            longest = max(begun, key=lambda number: len(answers[number]))
            mass[longest] += math.prod(next_token(text[:place], first, second)[text[place]] for place in range(3))
    return mass / mass.sum()


def asked(answers, first, second):
    return {
        path: {token: math.log(next_token(path, first, second)[token]) for token in following}
        for path, following in ratings.questions(answers).items()
    }


@pytest.mark.parametrize("answers", VOCABULARIES.values(), ids=VOCABULARIES)
def test_probabilities_equal_an_enumeration_of_texts(answers):
    rng = np.random.default_rng(5)
    for _ in range(3):
        first, second = rng.uniform(0.01, 1, size=(2, TOKENS))
        computed = ratings.answer_probabilities(answers, asked(answers, first, second))
        np.testing.assert_allclose(computed, enumerated(answers, first, second), rtol=1e-10)


@given(st.sampled_from(list(VOCABULARIES.values())), weights, weights)
def test_ratings_lie_in_range_and_follow_from_the_distribution(answers, first, second):
    probabilities = ratings.answer_probabilities(answers, asked(answers, first, second))
    assert probabilities.shape == (11,) and (probabilities >= 0).all() and math.isclose(probabilities.sum(), 1)
    expected = ratings.rating(probabilities, "expected")
    greedy = ratings.rating(probabilities, "greedy")
    assert 0 <= expected <= 10
    assert math.isclose(expected, sum(number * p for number, p in enumerate(probabilities)), abs_tol=1e-12)
    assert greedy in range(11) and probabilities[int(greedy)] == max(probabilities)


@given(weights, st.floats(-600, 0))
def test_only_what_the_eleven_have_among_themselves_counts(first, shift):
    logs = {token: math.log(first[token]) for token in range(11)}
    plain = ratings.answer_probabilities(WHOLE, {(): logs})
    shifted = ratings.answer_probabilities(WHOLE, {(): {token: value + shift for token, value in logs.items()}})
    np.testing.assert_allclose(plain, shifted, rtol=1e-9)


def test_two_token_ten():
    logs = {(): dict.fromkeys(range(10), math.log(0.1)), (1,): {0: math.log(0.75)}}
    computed = ratings.answer_probabilities(PAIRS, logs)
    np.testing.assert_allclose(computed, [0.1, 0.025, *[0.1] * 8, 0.075])
    logs[(1,)] = {0: 1e-9}
    assert ratings.answer_probabilities(PAIRS, logs)[1] == 0


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
@pytest.mark.parametrize("place", [((), 4), ((1,), 0)])
def test_no_rating_where_a_probability_is_not_finite(wrong, place):
    logs = {(): dict.fromkeys(range(10), -2.0), (1,): {0: -1.0}}
    logs[place[0]][place[1]] = wrong
    assert ratings.answer_probabilities(PAIRS, logs) is None


def test_no_rating_where_no_answer_is_possible():
    assert ratings.answer_probabilities(WHOLE, {(): dict.fromkeys(range(11), -math.inf)}) is None
    assert ratings.rating(None, "expected") is None and ratings.rating(None, "greedy") is None


def test_greedy_takes_the_smaller_of_equals():
    assert ratings.rating(np.array([0, 0, 0.4, 0, 0.4, 0.2, 0, 0, 0, 0, 0]), "greedy") == 2


def test_questions_are_asked_where_answers_part():
    assert ratings.questions(WHOLE) == {(): tuple(range(11))}
    assert ratings.questions(PAIRS) == {(): tuple(range(10)), (1,): (0,)}
    assert ratings.questions(LED) == {(12,): tuple(range(10)), (12, 1): (0,)}
    assert ratings.questions(SPACED) == {(): (11, 12), (11,): (0,), (12,): (0, *range(2, 10))}


@given(st.lists(st.one_of(st.none(), st.floats(0, 10)), min_size=6, max_size=6))
def test_quality_is_the_mean_of_six_or_nothing(values):
    computed = ratings.quality(values)
    if None in values:
        assert computed is None
    else:
        assert math.isclose(computed, sum(values) / 6, abs_tol=1e-9)


def test_prompt_files_ask_six_questions_with_a_shared_start():
    templates = ratings.read_prompts(FILES)
    row = {"instruction": "Add {response}.", "input": "2 and 3", "output": "It is {prompt}."}
    questions = ratings.questions_of(row, templates)
    assert len(set(questions)) == 6
    for three, shared in ((questions[:3], "Add {response}.\n2 and 3"), (questions[3:], "It is {prompt}.")):
        start = three[0][: three[0].index(shared) + len(shared)]
        assert all(question.startswith(start) for question in three)
    assert "It is" not in "".join(questions[:3]) and all("Add {response}." in question for question in questions)
    assert questions[0].split("Add")[0] == questions[3].split("Add")[0]


def test_prompt_files_are_checked(tmp_path):
    with pytest.raises(UserError, match="six files"):
        ratings.read_prompts(FILES[1:])
    for file in FILES:
        (tmp_path / file.name).write_text(file.read_text().replace("{response}", "the response"))
    with pytest.raises(UserError, match=r"clarity_response\.md.*\{response\}"):
        ratings.read_prompts(sorted(tmp_path.iterdir()))


class Tokenizer:
    """Letters as tokens; like SentencePiece it marks the start of a text, but not what follows a special token."""

    bos_token, eos_token, unk_token_id = "<s>", "</s>", 0
    all_special_tokens, added_tokens_decoder = ("<s>", "</s>"), {}

    def __init__(self, chat_template="{user}|{assistant}", unknown=""):
        self.chat_template, self.unknown = chat_template, unknown

    def apply_chat_template(self, messages, tokenize, add_generation_prompt=False):
        assert tokenize is False
        user, _, assistant = self.chat_template.partition("|")
        whole = user.format(user=messages[0]["content"])
        return whole + (assistant.format(assistant=messages[1]["content"]) if len(messages) > 1 else "")

    def __call__(self, text, add_special_tokens, split_special_tokens=False):
        assert add_special_tokens is False
        if isinstance(text, list):
            return {"input_ids": [self(each, add_special_tokens=False)["input_ids"] for each in text]}
        pattern = "." if split_special_tokens else r"</?s>|."
        pieces = re.findall(pattern, text if text.startswith("<") else "_" + text, flags=re.DOTALL)
        return {"input_ids": [0 if piece in self.unknown else sum(map(ord, piece)) for piece in pieces]}


def ids(*texts):
    return [token for text in texts for token in Tokenizer()(text, add_special_tokens=False)["input_ids"]]


def test_a_turn_is_encoded_piece_by_piece_as_in_training():
    tokenizer = Tokenizer("<s>Human: {user}</s>\nAssistant:|{assistant}</s>\n")
    chat = ratings.chat_format(tokenizer)
    encoded = ratings.encode_users(tokenizer, chat, ["What?", "Why</s>so?"])
    assert encoded[0] == ids("<s>", "Human: What?", "</s>", "\nAssistant:")
    letters = [ord(letter) for letter in "_Human: Why</s>so?"]
    assert encoded[1] == [*ids("<s>"), *letters, *ids("</s>", "\nAssistant:")], "no control token in the user's text"
    assert chat.answers == tuple(tuple(ids(str(number))) for number in range(11))
    assert ratings.shared_start(chat.answers) == (ord("_"),)


def test_what_the_template_puts_before_the_reply_belongs_to_every_answer():
    chat = ratings.chat_format(Tokenizer("[{user}]| then {assistant}</s>"))
    assert chat.answers[7] == tuple(ids(" then 7"))


def test_templates_and_vocabularies_that_cannot_be_used_are_refused():
    with pytest.raises(UserError, match="no chat template"):
        ratings.chat_format(Tokenizer(None))
    with pytest.raises(UserError, match="chat template"):
        ratings.chat_format(Tokenizer("no place for the user|{assistant}"))
    with pytest.raises(UserError, match="can't be told apart"):
        ratings.chat_format(Tokenizer(unknown="7"))
    with pytest.raises(UserError, match="can't be told apart"):
        ratings.answer_tokens(lambda answer: (ord(answer[0]),), None)
