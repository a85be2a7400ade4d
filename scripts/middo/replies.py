"""What a teacher's reply holds: the final prompt of a rewrite, the text of an answer. Strict; never a guess."""

import re
from typing import Any

LABEL = "Step 4, final prompt:"
KINDS = ("prompt", "completion")

# The label on a line of its own; a heading or bold marks around it are all that is allowed besides.
_LABEL_LINE = re.compile(rf"(?:#{{1,6}} )?(\*\*)?{re.escape(LABEL)}(?(1)\*\*)[ \t\r]*")
_MARKUP = " \t#*_>`-"


def refusal(status: int, said: str) -> dict[str, Any]:
    """What is stored where the endpoint refused a request: its HTTP status, and what it said."""
    return {"status": status, "error": said}


def is_refusal(response: Any) -> bool:
    """Whether the stored response is no reply but `refusal`."""
    return isinstance(response, dict) and "choices" not in response


def read_reply(step: str, prompt: str, response: Any) -> tuple[str | None, str | None]:
    """(text, None) where the response can be used, (None, reason) where it cannot.

    `step` is `rewrite` (the text is the final prompt, method section 3) or `answer` (the text is the whole reply).
    `prompt` is what was asked, `response` the body that the endpoint sent, or `refusal`.

    Whether a reply is one to its question is told by its form alone: a rewrite has the label, an answer has none.
    """
    text, reason = _whole_text(response)
    if text is None:
        return None, reason
    if step == "rewrite":
        return _final_prompt(text)
    if LABEL not in prompt and _labels(text.split("\n")):
        return None, "a rewrite in place of an answer"
    return text, None


def raw_text(response: Any) -> str:
    """The reply as it came, for people to read: content or refusal, empty where there is neither."""
    if is_refusal(response):
        return response["error"]
    message = response["choices"][0]["message"]
    text = message.get("content") or message.get("refusal") or ""
    return text if isinstance(text, str) else repr(text)


def tokens_counted(response: Any) -> dict[str, int]:
    """{prompt, completion: tokens that the endpoint counted, 0 where it says nothing; uncounted: 1 where it should
    have}."""
    usage = response.get("usage") if isinstance(response, dict) else None
    counted = {kind: usage.get(f"{kind}_tokens") if isinstance(usage, dict) else None for kind in KINDS}
    known = {kind: count if isinstance(count, int) and count >= 0 else 0 for kind, count in counted.items()}
    return known | {"uncounted": int(known != counted and not is_refusal(response))}


def _whole_text(response: Any) -> tuple[str | None, str | None]:
    """The reply's stripped content, or why it does not count."""
    if is_refusal(response):
        return None, f"refused with status {response['status']}"
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
    labels = _labels(lines)
    if not labels:
        return None, "no label"
    if len(labels) > 1:
        return None, "label more than once"
    if not _LABEL_LINE.fullmatch(lines[labels[0]]):
        return None, "label not alone on its line"
    prompt = "\n".join(lines[labels[0] + 1 :]).strip()
    return (prompt, None) if prompt else (None, "empty final prompt")


def _labels(lines: list[str]) -> list[int]:
    """The numbers of the lines that begin with the label."""
    return [number for number, line in enumerate(lines) if line.lstrip(_MARKUP).startswith(LABEL)]
