"""Near-copies and leaks against a comparison of all with all, and the two programs on rows of every kind."""

import json
import random

import leaks as leaks_program
import near_copies as near_copies_program
import pytest
from hypothesis import given
from hypothesis import strategies as st

from middo.benchmark_texts import question_files, question_texts
from middo.benchmarks import data_files
from middo.ngrams import leaks, near_copies, words_of
from middo.program import UserError
from middo.rows import with_ids, write_dataset

words = st.lists(st.sampled_from("abc"), max_size=14).map(" ".join)


def grams(text, length):
    """Runs of words as texts; a shorter text is one run."""
    parts = text.split()
    return {" ".join(parts[i : i + length]) for i in range(max(len(parts) - length + 1, 1))} - {""}


def jaccard(one, other):
    first, second = grams(one, 5), grams(other, 5)
    return len(first & second) / len(first | second) if first | second else 0


@given(new=st.dictionaries(st.integers(), words, max_size=6), old=st.dictionaries(st.integers(), words, max_size=12))
def test_near_copies_equal_a_comparison_of_all_pairs(new, old):
    expected = {(n, o): jaccard(new[n], old[o]) for n in new for o in old}
    found = {(n, o): similarity for n, o, similarity in near_copies(new, old)}
    assert found == {pair: value for pair, value in expected.items() if value >= 0.8}


def test_near_copies_of_long_texts_equal_a_comparison_of_all_pairs():
    draw = random.Random(2)
    old = {n: " ".join(draw.choices([f"w{i}" for i in range(60)], k=draw.randint(3, 90))) for n in range(60)}
    new = {}
    for n, text in old.items():
        parts = text.split()
        for _ in range(draw.randint(0, 3)):
            parts[draw.randrange(len(parts))] = "other"
        new[n] = " ".join(parts)
    found = {(n, o) for n, o, _ in near_copies(new, old)}
    assert found == {(n, o) for n in new for o in old if jaccard(new[n], old[o]) >= 0.8}
    assert 20 < len(found) < 60


long = st.lists(st.sampled_from("ab"), max_size=30).map(" ".join)


@given(rows=st.lists(st.tuples(long, long), max_size=4), questions=st.lists(long, max_size=4, unique=True))
def test_leaks_equal_a_search_for_each_question(rows, questions):
    found = {row for row, _, _ in leaks(dict(enumerate(rows)), dict(enumerate(questions)))}
    expected = set()
    for place, texts in enumerate(rows):
        for question in questions:
            length = min(len(question.split()), 13)
            if length >= 8:
                hit = any(gram in f" {text} " for text in texts for gram in (f" {g} " for g in grams(question, length)))
            else:
                hit = length > 0 and texts[0].split() == question.split()
            expected |= {place} if hit else set()
    assert found == expected


SENTENCE = "one two three four five six seven eight nine ten eleven twelve thirteen"


@pytest.mark.parametrize(
    ("prompt", "response", "question", "leak"),
    [
        (f"Well: {SENTENCE}, and so on", "x", f"{SENTENCE} fourteen", True),
        ("x", SENTENCE.upper().replace(" ", ", "), f"Zero {SENTENCE}.", True),
        (SENTENCE.replace("seven", "7"), "x", SENTENCE, False),
        (SENTENCE[:-9], "x", SENTENCE, False),
        ("a b c d e f g h and more", "x", "A b c d e f g h?", True),
        ("What is a leak?", "x", "what is a leak", True),
        ("What is a leak? Say it.", "What is a leak", "what is a leak", False),
        ("…", "", "?!", False),
    ],
)
def test_what_counts_as_a_leak(prompt, response, question, leak):
    assert bool(list(leaks({"row": (prompt, response)}, {"q": question}))) == leak


def test_hostile_texts_have_words_too():
    assert words_of("a" * 100_000) == ["a" * 100_000] and words_of("\0 \u202e…") == []
    assert list(near_copies({1: "", 2: "…"}, {3: "", 4: "?"})) == []


def row(instruction, output, origin="seed", parents=(), iteration=0):
    texts = {"instruction": instruction, "input": "", "output": output}
    return {**texts, "origin": origin, "parents": list(parents), "iteration": iteration}


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def run(program, *arguments):
    program.main(program.arguments().parse_args([str(argument) for argument in arguments]))


def test_a_rewrite_may_be_near_its_ancestors_and_nothing_else(tmp_path):
    seed = with_ids(
        [
            row("Name the seven largest rivers of this old continent", "They are a b c d e f g h i j."),
            row("Say how far the moon is from the earth today", "Far away from us."),
            row("Tell", "A short one."),
        ]
    )
    first = with_ids([row(seed[0]["instruction"] + " now", "New.", "improved", [seed[0]["id"]], 1)])
    write_dataset(tmp_path / "seed.jsonl", seed)
    write_dataset(tmp_path / "one.jsonl", [*seed[1:], *first])
    new = with_ids(
        [
            # Of its parent, and of the seed row that this was made from: no copy of another row.
            row(first[0]["instruction"], "Newer.", "simplified", [first[0]["id"]], 2),
            # Its parent with other punctuation.
            row("say how far, the Moon is; from the earth today!", "far away from us", "improved", [seed[1]["id"]], 2),
            # An added row must be another one than its core, which is no rewriting.
            row(seed[1]["instruction"], "Another answer altogether.", "extended", [seed[1]["id"], seed[2]["id"]], 2),
            row("Say how far the moon is from the earth today", "x y", "simplified", [seed[2]["id"]], 2),
            row("Something else that nobody has ever said before", "Indeed so.", "extended", [seed[2]["id"]], 2),
        ]
    )
    (tmp_path / "refined.jsonl").write_text("".join(json.dumps(r) + "\n" for r in new))
    earlier = [tmp_path / "seed.jsonl", tmp_path / "one.jsonl"]
    run(
        near_copies_program,
        "--refined",
        tmp_path / "refined.jsonl",
        "--earlier",
        *earlier,
        "--out",
        tmp_path / "n.jsonl",
    )
    moon = {"kind": "near_copy", "with": seed[1]["id"], "similarity": 1.0}
    expected = [(1, "row"), (2, "prompt"), (3, "prompt")]
    assert lines(tmp_path / "n.jsonl") == [{"id": new[place]["id"], "part": part, **moon} for place, part in expected]


RECORDS = {
    "mmlu_zero_shot_gen_47e2c0": '"{q}",one,two,three,four,B\n',
    "IFEval_gen_3321a3": '{{"key": 1, "prompt": "{q}", "instruction_id_list": [], "kwargs": []}}\n',
    "gsm8k_gen_1d7fe4": '{{"question": "{q}", "answer": "#### 1"}}\n',
    "math_gen_265cce": '{{"0": {{"problem": "{q}", "solution": "1"}}}}',
    "humaneval_gen_8e312c": '{{"task_id": "HumanEval/0", "prompt": "{q}"}}\n',
    "mbpp_gen_830460": '{{"text": "{q}", "code": ""}}\n',
    "hellaswag_gen_6faab5": '{{"query": "Topic: {q}", "choices": [], "gold": 0}}\n',
    "gpqa_openai_simple_evals_gen_5aeece": ",,,,,,,{q},1,2,3,4\n",
}


@pytest.mark.parametrize("name", RECORDS)
def test_the_questions_of_every_benchmark_are_read(name, tmp_path):
    before = {"mbpp_gen_830460": 10, "gpqa_openai_simple_evals_gen_5aeece": 1}.get(name, 0)
    for file in map(tmp_path.joinpath, data_files([name], tmp_path)):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(RECORDS[name].format(q="no question") * before + RECORDS[name].format(q=SENTENCE))
    (tmp_path / "own.jsonl").write_text('{"question": "what is this", "answer": "a"}\n')
    custom = [{"name": "own", "path": str(tmp_path / "own.jsonl"), "type": "qa"}]
    evaluation = {"benchmarks": [name], "custom": custom, "data": str(tmp_path)}
    texts = question_texts(evaluation)
    assert texts["own 0"] == "what is this" and set(list(texts.values())[:-1]) == {SENTENCE}
    assert str(tmp_path / "own.jsonl") in question_files(evaluation)
    rows = with_ids([row(f"Please: {SENTENCE}", "x"), row("What is this?", "x"), row("What?", "No leak.")])
    (tmp_path / "refined.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    files = ["--refined", tmp_path / "refined.jsonl", "--out", tmp_path / "leaks.jsonl"]
    run(leaks_program, *files, "--evaluation", json.dumps(evaluation))
    first = next(iter(texts))
    assert lines(tmp_path / "leaks.jsonl") == [
        {"id": rows[0]["id"], "kind": "leak", "with": first, "text": SENTENCE},
        {"id": rows[1]["id"], "kind": "leak", "with": "own 0", "text": "what is this"},
    ]


def test_a_file_that_is_another_is_named(tmp_path):
    path = tmp_path / "data/gsm8k/test.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text('{"problem": "?"}\n')
    with pytest.raises(UserError, match=r"gsm8k/test\.jsonl is not the file of gsm8k_gen_1d7fe4"):
        question_texts({"benchmarks": ["gsm8k_gen_1d7fe4"], "custom": [], "data": str(tmp_path)})
