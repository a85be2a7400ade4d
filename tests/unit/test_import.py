"""Import: what is read comes back, and each kind of broken input is named by line and field."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from middo.alpaca import read_alpaca
from middo.program import UserError

text = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30).filter(lambda s: s.strip())
row = st.fixed_dictionaries(
    {"instruction": text, "output": text},
    optional={"input": st.text(st.characters(codec="utf-8"), max_size=20), "note": st.integers() | text | st.none()},
)


@given(rows=st.lists(row, min_size=1, max_size=8), indent=st.sampled_from([None, 2]), lines=st.booleans())
def test_what_is_written_is_read(tmp_path_factory, rows, indent, lines):
    path = tmp_path_factory.mktemp("alpaca") / "data"
    ascii_only = indent is None
    dumped = (
        "\n".join(json.dumps(r, ensure_ascii=ascii_only) for r in rows)
        if lines
        else json.dumps(rows, indent=indent, ensure_ascii=ascii_only)
    )
    path.write_bytes(dumped.encode())
    parsed, rejects = read_alpaca(path, drop_empty=False)
    assert not rejects
    for given_row, read in zip(rows, parsed, strict=True):
        assert read.texts == {f: given_row.get(f, "") for f in ("instruction", "input", "output")}
        assert read.extras == {k: v for k, v in given_row.items() if k not in read.texts}
        if lines:
            assert json.loads(dumped.split("\n")[read.line - 1]) == given_row


GOOD = '{"instruction": "a", "input": "", "output": "b"}'


@pytest.mark.parametrize(
    ("content", "place", "message"),
    [
        ("", "line 1, file", "no row"),
        ("[]", "line 1, file", "no row"),
        ("  \n\n", "line 1, file", "no row"),
        (GOOD + "\n{oops", "line 2, row", "not JSON"),
        (f"[\n{GOOD},\n{GOOD}\n{GOOD}]", "line 4, file", "must follow"),
        (f"[\n{GOOD},\n]", "line 3, row", "not JSON"),
        (f"[{GOOD}]\nmore", "line 2, file", "goes on"),
        (f"[{GOOD},", "line 1, row", "not JSON"),
        (f'{GOOD}\n["x"]', "line 2, row", "a list, not an object"),
        (f'{GOOD}\n{{"input": "", "output": "b"}}', "line 2, instruction", "missing"),
        ('{"instruction": "a"}', "line 1, output", "missing"),
        ('{"instruction": 3, "output": "b"}', "line 1, instruction", "a number, not a text"),
        ('{"instruction": "a", "output": null}', "line 1, output", "null, not a text"),
        ('{"instruction": "a", "input": ["x"], "output": "b"}', "line 1, input", "a list, not a text"),
        ('{"instruction": " \\n", "output": "b"}', "line 1, instruction", "empty"),
        ('{"instruction": "a", "output": "\\ud83d"}', "line 1, output", "surrogate"),
        ('{"instruction": "a", "output": "b", "note": {"x": ["\\udc00"]}}', "line 1, note", "surrogate"),
        ('{"instruction": "a", "output": "b", "output": "c"}', "line 1, row", "'output' stands twice"),
        ('{"instruction": "a", "output": "b", "n": NaN}', "line 1, row", "NaN is not JSON"),
        ('{"instruction": "a", "output": "b", "n": 1e999}', "line 1, row", "too large"),
        ('{"x": ' + "[" * 100_000, "line 1, row", "deep"),
    ],
)
def test_faults_are_named(tmp_path, content, place, message):
    path = tmp_path / "data.json"
    path.write_text(content)
    with pytest.raises(UserError) as caught:
        read_alpaca(path, drop_empty=False)
    assert str(path) in str(caught.value) and place in str(caught.value) and message in str(caught.value)


def test_invalid_utf8_names_the_line(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_bytes(GOOD.encode() + b"\n" + GOOD.encode().replace(b"a", b"\xff"))
    with pytest.raises(UserError, match="line 2, file: is not UTF-8 .*0xff"):
        read_alpaca(path, drop_empty=True)


def test_ten_faults_are_shown_and_the_rest_counted(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(['{"instruction": "a"}'] * 25))
    with pytest.raises(UserError) as caught:
        read_alpaca(path, drop_empty=False)
    assert str(caught.value).count("output: is missing") == 10 and "and 15 more" in str(caught.value)


def test_drop_writes_empty_rows_aside_and_only_those(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text(f'{GOOD}\n{{"instruction": "a", "output": ""}}\n{GOOD}')
    rows, rejects = read_alpaca(path, drop_empty=True)
    assert [r.line for r in rows] == [1, 3]
    assert rejects == [{"line": 2, "reason": "output is empty", "row": {"instruction": "a", "output": ""}}]
    path.write_text(f'{GOOD}\n{{"instruction": "", "output": 1}}')
    with pytest.raises(UserError, match="output: is a number"):
        read_alpaca(path, drop_empty=True)


def test_a_byte_order_mark_is_no_fault(tmp_path):
    path = tmp_path / "data.json"
    path.write_bytes(b"\xef\xbb\xbf" + f"[{GOOD}]".encode())
    assert len(read_alpaca(path, drop_empty=False)[0]) == 1
