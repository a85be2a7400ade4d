"""What a teacher's reply holds: the final prompt of a rewrite, the text of an answer. Strict; never a guess."""

import re
from typing import Any

LABEL = "Step 4, final prompt:"

# The label on a line of its own; a heading or bold marks around it are all that is allowed besides.
_LABEL_LINE = re.compile(rf"(?:#{{1,6}} )?(\*\*)?{re.escape(LABEL)}(?(1)\*\*)[ \t\r]*")
_MARKUP = " \t#*_>`-"


def read_reply(step: str, response: Any) -> tuple[str | None, str | None]:
    """(text, None) where the response can be used, (None, reason) where it cannot.

    `step` is `rewrite` (the text is the final prompt, method section 3) or `answer` (the text is the whole reply).
    `response` is the body that the endpoint sent.
    """
    text, reason = _whole_text(response)
    if text is None or step == "answer":
        return text, reason
    return _final_prompt(text)


def raw_text(response: Any) -> str:
    """The reply as it came, for people to read: content or refusal, empty where there is neither."""
    message = response["choices"][0]["message"]
    text = message.get("content") or message.get("refusal") or ""
    return text if isinstance(text, str) else repr(text)


def tokens_used(response: Any) -> tuple[int, int]:
    """(prompt, completion) tokens that the endpoint counted; 0 where it says nothing."""
    usage = response.get("usage") or {}
    prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
    return (prompt if isinstance(prompt, int) else 0, completion if isinstance(completion, int) else 0)


def _whole_text(response: Any) -> tuple[str | None, str | None]:
    """The reply's stripped content, or why it does not count."""
    choice = response["choices"][0]
    content = choice["message"].get("content")
    finish = choice.get("finish_reason")
    if choice["message"].get("refusal"):
        return None, "refusal"
    if finish == "length":
        return None, "cut off by max_tokens"
    if finish == "content_filter":
        return None, "stopped by the content filter"
    if finish != "stop":
        return None, f"finish_reason is {finish}"
    if content is None:
        return None, "null content"
    if not isinstance(content, str):
        return None, "content is no text"
    if any("\ud800" <= character <= "\udfff" for character in content):
        return None, "lone surrogate"
    return (content.strip(), None) if content.strip() else (None, "empty")


def _final_prompt(text: str) -> tuple[str | None, str | None]:
    """What follows the one line that holds the label."""
    lines = text.split("\n")
    labels = [number for number, line in enumerate(lines) if line.lstrip(_MARKUP).startswith(LABEL)]
    if not labels:
        return None, "no label"
    if len(labels) > 1:
        return None, "label more than once"
    if not _LABEL_LINE.fullmatch(lines[labels[0]]):
        return None, "label not alone on its line"
    prompt = "\n".join(lines[labels[0] + 1 :]).strip()
    return (prompt, None) if prompt else (None, "empty final prompt")
