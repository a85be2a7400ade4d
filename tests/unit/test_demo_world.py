"""The demo's world: its questions, their answers by other computations, its planted faults, its held-out set."""

import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from demo.corpus import wrong_answer
from demo.kinds import KINDS
from demo.world import (
    Question,
    answer,
    draw_hard_question,
    draw_question,
    make_world,
    parse,
    render,
    render_unclear,
    word_question,
)

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("instruction", "response")
RATING_PROMPTS = [path for part in PARTS for path in sorted((ROOT / "config/prompts").glob(f"*_{part}.md"))]
WORLD = make_world(1)

# The right answer of each kind, computed another way than the world does.
ORACLES = {
    "sum": lambda a, b: len("x" * int(a) + "x" * int(b)),
    "difference": lambda a, b: len(range(int(b), int(a))),
    "larger": lambda a, b: a if int(a) > int(b) else b,
    "opposite": lambda word: (WORLD.opposites | {v: k for k, v in WORLD.opposites.items()})[word],
    "capital": lambda country: next(city for c, city in WORLD.capitals.items() if c == country),
    "pick": lambda which, words: words.split(" ")[{"first": 0, "last": words.count(" ")}[which]],
    "count": lambda words: words.count(" ") + 1,
    "reverse": lambda words: " ".join(words.split()[::-1]),
    "letter": lambda letter: chr(ord(letter) + 1),
    "plural": lambda noun: WORLD.nouns[noun],
    "country": lambda city: next(c for c, name in WORLD.capitals.items() if name == city),
    "double": lambda a: int(a) + int(a),
}


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("seed", [1, 2])
def test_every_wording_is_read_back_and_answered_rightly(kind, seed):
    world, rng = make_world(seed), random.Random(seed)
    for wording in range(len(KINDS[kind].wordings)):
        for _ in range(25):
            question = draw_question(world, rng, kind)
            assert parse(render(question, wording, rng)) == question
            if seed == WORLD.seed:
                assert answer(world, question) == str(ORACLES[kind](*question.data))
            assert 1 <= len(answer(world, question).split()) <= 6


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"letter"}))
def test_compositions_are_read_back_and_answered_rightly(kind):
    rng = random.Random(kind)
    for _ in range(50):
        question = draw_hard_question(WORLD, rng, kind)
        assert parse(word_question(WORLD, rng, question)) == question
        inner = str(ORACLES[kind](*question.data))
        if question.then == "backwards":
            assert answer(WORLD, question) == "".join(reversed(inner))
        elif question.then:
            assert int(answer(WORLD, question)) == sum([int(inner)] * int(question.then))
        else:
            assert answer(WORLD, question) == inner and len(question.data[0]) == 3


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_unclear_wordings_are_recognised_and_have_no_answer(kind):
    rng = random.Random(kind)
    for _ in range(50):
        question = parse(render_unclear(WORLD, rng, kind))
        assert question == Question(kind, (), clear=False)
        with pytest.raises(ValueError):
            answer(WORLD, question)


def test_no_text_of_a_kind_is_read_as_another():
    rng = random.Random(0)
    texts = {}
    for kind in KINDS:
        for text in {*KINDS[kind].unclear, *(render_unclear(WORLD, rng, kind) for _ in range(20))}:
            assert texts.setdefault(text, kind) == kind


@pytest.mark.parametrize("text", ["", "Write a poem.", "What is the plural of Cats?", "What is 1 plus 2? And 3?"])
def test_other_text_is_not_a_question_of_the_world(text):
    assert parse(text) is None


def test_wrong_answers_are_wrong():
    rng = random.Random(0)
    for kind in sorted(KINDS):
        for _ in range(50):
            question = draw_question(WORLD, rng, kind)
            right = answer(WORLD, question)
            assert wrong_answer(WORLD, rng, kind, question.data, right) != right


FILES = ("dataset", "faults", "heldout", "corpus")


def make(folder: Path, seed: int = 1) -> dict[str, bytes]:
    paths = {name: folder / f"{name}.json" for name in FILES}
    program = [sys.executable, str(ROOT / "scripts/demo/make_world.py"), "--seed", str(seed), "--rows", "400"]
    outputs = [word for name, path in paths.items() for word in (f"--{name}", str(path))]
    subprocess.run([*program, *outputs, "--prompts", *map(str, RATING_PROMPTS)], check=True, capture_output=True)
    return {name: path.read_bytes() for name, path in paths.items()}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make(tmp_path_factory.mktemp("world"))


def lines(text: bytes) -> list[dict]:
    return [json.loads(line) for line in text.decode().splitlines()]


def prompt_of(row: dict) -> str:
    return row["instruction"] + ("\n" + row["input"] if row["input"] else "")


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(made, tmp_path):
    assert make(tmp_path / "again") == made
    assert all(make(tmp_path / "other", seed=2)[name] != made[name] for name in FILES)


def test_planted_faults_are_faults_and_all_other_rows_are_right(made):
    rows = json.loads(made["dataset"])
    faults = {fault["row"]: fault for fault in lines(made["faults"])}
    assert len(rows) == 400 and len({prompt_of(row) for row in rows}) == 400
    common = Counter()
    for number, row in enumerate(rows):
        question = parse(prompt_of(row))
        fault = faults.get(number, {"fault": "none"})
        if fault["fault"] == "unclear":
            assert not question.clear and fault["answer"] is None
            continue
        right = answer(WORLD, question)
        assert (row["output"] == right) == (fault["fault"] != "wrong")
        hard = bool(question.then) or any(place.isdigit() and int(place) >= 100 for place in question.data)
        assert hard == (fault["fault"] == "hard")
        assert fault["fault"] == "none" or (fault["answer"], fault["instruction"]) == (right, row["instruction"])
        common[question.kind, fault["fault"]] += 1
    planted = Counter(fault["fault"] for fault in faults.values())
    assert 28 <= planted["hard"] <= 36 and 44 <= planted["wrong"] + planted["unclear"] <= 52
    for kind in KINDS:
        assert common[kind, "rare" if KINDS[kind].rare else "none"] <= 6 or not KINDS[kind].rare
        assert KINDS[kind].rare or common[kind, "none"] >= 30


def test_heldout_questions_are_right_and_stand_in_no_training_text(made):
    heldout = lines(made["heldout"])
    trained = {prompt_of(row) for row in json.loads(made["dataset"])}
    corpus = "\n".join(line["text"] for line in lines(made["corpus"]))
    for row in heldout:
        assert row["answer"] == answer(WORLD, parse(row["question"]))
        assert row["question"] not in trained
        assert f"Human: {row['question']}</s>" not in corpus and f"Prompt: {row['question']}\n" not in corpus
    assert Counter(parse(row["question"]).kind for row in heldout) == dict.fromkeys(KINDS, 15)


def test_facts_of_the_heldout_set_stand_in_the_pretraining_text(made):
    corpus = made["corpus"].decode()
    capitals = [row for row in lines(made["heldout"]) if parse(row["question"]).kind == "capital"]
    for row in capitals:
        assert f"The capital of {parse(row['question']).data[0]} is {row['answer']}." in corpus


def test_the_pretraining_text_rates_good_samples_above_bad_ones(made):
    ratings = {"good": [], "unclear": []}
    for line in lines(made["corpus"]):
        prompt, _, reply = line["text"].partition("</s>\nAssistant:")
        if "How clear is the prompt?" in prompt:
            asked = parse(prompt.partition("\nPrompt: ")[2].partition("\nHow clear")[0])
            ratings["good" if asked.clear else "unclear"].append(int(reply.removesuffix("</s>\n")))
    assert min(ratings["good"]) > max(ratings["unclear"]) and len(ratings["unclear"]) > 50
