"""Rows, ids, files and prompts."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from middo.files import atomic, read_jsonl, write_jsonl
from middo.program import UserError
from middo.prompts import fill, read_template
from middo.rows import check_same_ids, prompt_text, read_dataset, with_ids, write_dataset

text = st.text(st.characters(codec="utf-8"), max_size=20)
content = st.fixed_dictionaries(
    {
        "instruction": text,
        "input": text,
        "output": text,
        "origin": st.sampled_from(["seed", "improved"]),
        "parents": st.lists(text, max_size=2),
        "iteration": st.integers(0, 3),
    }
)


@given(rows=st.lists(content, max_size=12))
def test_ids_are_unique_and_depend_on_content_alone(rows):
    made = with_ids(rows)
    assert len({row["id"] for row in made}) == len(rows)
    by_hash = {}
    for row, identified in zip(rows, made, strict=True):
        digest, number = identified["id"].split("-")
        same = by_hash.setdefault(digest, [])
        assert all(other == row for other in same) and int(number) == len(same)
        same.append(row)


@given(rows=st.lists(content, max_size=6))
def test_a_dataset_comes_back_as_written(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("rows") / "dataset.jsonl"
    made = with_ids(rows)
    write_dataset(path, made)
    assert read_dataset(path) == made
    assert path.read_bytes().count(b"\n") == len(rows)


def test_line_separators_inside_a_text_end_no_row(tmp_path):
    records = [{"a": "x\u2028y\x85z\r\n"}, {"a": ""}]
    write_jsonl(tmp_path / "x.jsonl", records)
    assert read_jsonl(tmp_path / "x.jsonl") == records


def test_a_row_without_a_field_or_with_a_used_id_is_named(tmp_path):
    path = tmp_path / "dataset.jsonl"
    row = with_ids([{"instruction": "i", "input": "", "output": "o", "origin": "seed", "parents": [], "iteration": 0}])[
        0
    ]
    path.write_text(json.dumps(row) + "\n" + json.dumps(row))
    with pytest.raises(UserError, match="line 2: id .* twice"):
        read_dataset(path)
    path.write_text('{"id": "x"}')
    with pytest.raises(UserError, match="line 1: no field instruction"):
        read_dataset(path)


def test_prompt_text_leaves_out_an_empty_input():
    assert prompt_text({"instruction": "a", "input": ""}) == "a"
    assert prompt_text({"instruction": "a", "input": "b"}) == "a\nb"


def test_missing_and_unknown_ids_are_named():
    check_same_ids(["a", "b"], ["b", "a"], "step")
    with pytest.raises(UserError, match="Missing: b. Not asked for: c"):
        check_same_ids(["a", "b"], ["a", "c"], "step")
    with pytest.raises(UserError, match="1 rows were given and 2 came back"):
        check_same_ids(["a"], ["a", "a"], "step")


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@given(prompt=st.text(max_size=40), response=st.text(max_size=40))
def test_places_in_a_sample_are_not_filled(prompt, response):
    filled = fill("A {prompt} B {response} C", prompt=prompt + "{response}", response=response)
    assert filled == f"A {prompt}{{response}} B {response} C"


def test_a_template_must_have_its_places(tmp_path):
    path = tmp_path / "prompt.md"
    path.write_text("Rate {prompt} and {this}\n")
    assert read_template(path, {"prompt", "this"}) == "Rate {prompt} and {this}"
    with pytest.raises(UserError, match=r"must have the places \{prompt\}; it has \{prompt\}, \{this\}"):
        read_template(path, {"prompt"})
