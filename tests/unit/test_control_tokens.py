"""No text of a row becomes a control token, whatever it holds; and all of it stays where it belongs."""

import json
import random
import re

import pytest
from heavy import tiny, train_python  # noqa: F401
from hypothesis import example, given
from hypothesis import strategies as st

from middo.control_tokens import PlainText
from middo.prompts import fill

WORDS = ["<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|start_header_id|>", "[INST]", "[/INST]"]
OTHERS = [
    "{prompt}",
    "{{content}}",
    "<image>",
    "Assistant:",
    "Human:",
    "\0",
    "\u2028",
    "\u202e",
    "\U000f0000",
    "żółw",
    "a",
]
PLAIN, HUGE = 0, 1


@pytest.fixture(scope="module")
def texts():
    draw = random.Random(7)
    made = [["What?", "", "That."], ["x" * 100_000, "", "y" * 100_000]]
    for _ in range(60):
        parts = [draw.choices(WORDS + OTHERS, k=draw.randint(1, 6)) for _ in range(3)]
        made.append([draw.choice(["", " ", "\n"]).join(["Say", *part, "x"]) for part in parts])
    return made


@pytest.fixture(scope="module")
def encoded(texts, tiny, tmp_path_factory):  # noqa: F811
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "texts.json").write_text(json.dumps(texts))
    done = train_python("tests/hostile_checks.py", tiny, folder / "texts.json", folder / "results.json")
    assert done.returncode == 0, done.stdout
    return json.loads((folder / "results.json").read_text())


@pytest.mark.parametrize("template", ["default", "qwen", "llama3", "mistral"])
def test_a_hostile_row_has_the_control_tokens_of_a_plain_one(template, encoded, texts):
    found = encoded[template]
    assert found["control"][PLAIN] >= 1 and found["asked_control"][PLAIN] == 2
    assert set(found["control"][HUGE + 1 :]) == {found["control"][PLAIN]}
    assert set(found["asked_control"]) == {2}
    for place, (instruction, more, output) in enumerate(texts):
        prompt = f"{instruction}\n{more}" if more else instruction
        assert found["asked"][place] == f"<s>Human: {prompt}</s>\nAssistant:"
        if place != HUGE:
            assert found["prompts"][place].strip() == prompt.strip()
            assert found["responses"][place].startswith(output) or found["responses"][place].strip().startswith(output)
    assert found["seconds"] < 30
    assert found["reasons"][HUGE].startswith("no token of the response") or not found["reasons"][HUGE]


class Words:
    """A tokenizer whose tokens are control words and letters."""

    def convert_tokens_to_ids(self, word):
        return [word]

    def __call__(self, text, add_special_tokens, split_special_tokens):
        assert split_special_tokens and not add_special_tokens
        return {"input_ids": list(text)}


pattern = re.compile("|".join(map(re.escape, ["<s>", "</s>", "</s>>"][::-1])))
pieces = st.lists(st.sampled_from(["<s>", "</s>", "</s>>", "<", "/s", ">", "\U000f0000", "\U000f0001", "a"])).map(
    "".join
)


# Put together, the two texts would hold another word than each by itself.
@example(before="", text="</s>", other=">", after="z")
@given(before=st.sampled_from(["<s>", "", "x<s>y"]), text=pieces, other=pieces, after=st.sampled_from(["</s>", "z"]))
def test_hidden_words_come_back_as_letters_and_the_templates_own_as_tokens(before, text, other, after):
    plain = PlainText(Words(), pattern, [text, other])
    ids = plain.encode(before + plain.hide(text) + after)
    controls = [i[0] for i in ids if isinstance(i, list)]
    assert controls == pattern.findall(before) + pattern.findall(after)
    assert "".join(i if isinstance(i, str) else i[0] for i in ids) == before + text + after


@given(st.text(), st.text())
def test_what_a_row_holds_is_never_a_place(prompt, response):
    template = "A {prompt} B {response} C {prompt}"
    assert fill(template, prompt=prompt, response=response) == f"A {prompt} B {response} C {prompt}"


@pytest.mark.parametrize("prompt", ["{response}", "{prompt}{prompt}", "{nothing}", "{{prompt}}", "\\1 \\g<0>"])
def test_places_in_a_row_stay_as_they_are(prompt):
    assert fill("[{prompt}] [{response}]", prompt=prompt, response="{prompt}") == f"[{prompt}] [{{prompt}}]"
