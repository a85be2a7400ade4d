"""Replies are parsed strictly: one label, one way to be right, a named reason for everything else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from middo.replies import LABEL, raw_text, read_reply, refusal, tokens_counted

STEPS = "Step 1, methods:\n- shorter\nStep 2, plan:\nshorten it\nStep 3, rewritten prompt:\nrough\n"


def response(content, finish="stop", **message):
    return {"choices": [{"message": {"content": content, **message}, "finish_reason": finish}]}


def test_the_final_prompt_is_what_follows_the_label():
    content = f"{STEPS}{LABEL}\n\n  Name two\n\nrivers.  \n"
    assert read_reply("rewrite", "Simplify this.", response(content)) == ("Name two\n\nrivers.", None)


@pytest.mark.parametrize("line", [LABEL, f"**{LABEL}**", f"### {LABEL}", f"## **{LABEL}**", f"{LABEL}  ", f"{LABEL}\r"])
def test_marks_that_a_label_may_have(line):
    assert read_reply("rewrite", "Simplify this.", response(f"{STEPS}{line}\nName a river.")) == ("Name a river.", None)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("Name a river.", "no label"),
        (f"{STEPS}step 4, final prompt:\nName a river.", "no label"),
        (f"{STEPS}So, {LABEL}\nName a river.", "no label"),
        (f"{STEPS}{LABEL}\nName a river.\n{LABEL}\nName a lake.", "label more than once"),
        (f"{STEPS}{LABEL}\nName a river.\n**{LABEL} Name a lake.", "label more than once"),
        (f"{STEPS}{LABEL} Name a river.", "label not alone on its line"),
        (f"{STEPS}**{LABEL}\nName a river.", "label not alone on its line"),
        (f"{STEPS}> {LABEL}\nName a river.", "label not alone on its line"),
        (f"{STEPS}{LABEL}\n \n", "empty final prompt"),
        (f"{STEPS}{LABEL}", "empty final prompt"),
        ("", "empty"),
        (" \n", "empty"),
        (None, "null content"),
        ([{"type": "text", "text": "Name a river."}], "content is no text"),
        (f"{LABEL}\nName a \ud800 river.", "lone surrogate"),
    ],
)
def test_what_is_unusable_has_a_named_reason(content, reason):
    assert read_reply("rewrite", "Simplify this.", response(content)) == (None, reason)


@pytest.mark.parametrize(
    ("finish", "reason"),
    [
        ("length", "cut off by max_tokens"),
        ("content_filter", "stopped by the content filter"),
        ("tool_calls", "finish_reason is tool_calls"),
        (None, "finish_reason is None"),
    ],
)
@pytest.mark.parametrize("step", ["rewrite", "answer"])
def test_only_a_reply_that_ended_by_itself_counts(step, finish, reason):
    assert read_reply(step, "Do it.", response(f"{LABEL}\nName a river.", finish)) == (None, reason)


def test_a_refusal_is_a_refusal_whatever_else_it_says():
    refused = response(None, refusal="I cannot help with that.")
    assert read_reply("answer", "How?", refused) == (None, "refusal")
    assert raw_text(refused) == "I cannot help with that."


def test_an_answer_is_the_whole_reply():
    content = f'So "{LABEL}" is said.\n\n  Twice. \n'
    assert read_reply("answer", "What is said?", response(content)) == (content.strip(), None)


def test_a_rewrite_does_not_pass_for_an_answer_unless_the_prompt_speaks_of_the_label():
    content = f"The label is\n**{LABEL}**\n{LABEL}\n"
    assert read_reply("answer", "How?", response(content)) == (None, "a rewrite in place of an answer")
    assert read_reply("answer", f"What follows {LABEL}", response(content)) == (content.strip(), None)


def test_what_the_endpoint_refused_has_its_status_as_the_reason():
    refused = refusal(400, "too long")
    assert read_reply("rewrite", "Simplify this.", refused) == (None, "refused with status 400")
    assert raw_text(refused) == "too long"
    assert tokens_counted(refused) == {"prompt": 0, "completion": 0, "uncounted": 0}


@given(prompt=st.text().filter(lambda text: text.strip() and LABEL not in text), before=st.text())
def test_any_prompt_comes_back_as_it_was(prompt, before):
    before = before.replace(LABEL, "")
    assert read_reply("rewrite", "Simplify this.", response(f"{before}\n{LABEL}\n{prompt}")) == (prompt.strip(), None)


@given(prompt=st.text(min_size=1), echoed=st.text())
def test_a_second_label_line_always_spoils_a_rewrite(prompt, echoed):
    text, reason = read_reply("rewrite", "Simplify this.", response(f"{LABEL}\n{prompt}\n{LABEL}{echoed}"))
    assert (text, reason) == (None, "label more than once")


@given(
    content=st.one_of(st.none(), st.integers(), st.text(st.characters()), st.lists(st.text())),
    finish=st.one_of(st.none(), st.text()),
    step=st.sampled_from(["rewrite", "answer"]),
)
def test_whatever_comes_there_is_either_a_text_or_a_reason(content, finish, step):
    text, reason = read_reply(step, "Do it.", response(content, finish))
    assert (text is None) != (reason is None)
    assert isinstance(raw_text(response(content, finish)), str)


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 4}, (3, 4, 0)),
        ({"prompt_tokens": 3}, (3, 0, 1)),
        ({"prompt_tokens": "3", "completion_tokens": -4}, (0, 0, 1)),
        (None, (0, 0, 1)),
    ],
)
def test_tokens_that_the_endpoint_counted(usage, tokens):
    counted = tokens_counted({"choices": [], "usage": usage})
    assert counted == dict(zip(("prompt", "completion", "uncounted"), tokens, strict=True))
