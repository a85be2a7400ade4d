"""Sample text is never read as a model's control tokens.

A tokenizer takes "</s>" or "<|im_end|>" for the end of a turn wherever it stands, also inside a row's text, which could
so end its turn and begin another one. Where a text holds such words, each is replaced by a character that stands in
for it while the chat template is filled; then the template's own control tokens are encoded as such, and all else as
plain text. Texts without such words are encoded as they always were.
"""

import re
from collections.abc import Iterable
from itertools import islice
from typing import Any


def control_words(tokenizer: Any) -> re.Pattern | None:
    """Matches every control token of a Hugging Face tokenizer in a text, the longest first; None without any."""
    words = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    words |= set(tokenizer.all_special_tokens)
    return re.compile("|".join(map(re.escape, sorted(words, key=len, reverse=True)))) if words else None


class PlainText:
    """A tokenizer for the filled template of one row: what `hide` has hidden is encoded as plain text.

    All else is the tokenizer's own.
    """

    def __init__(self, tokenizer: Any, words: re.Pattern, texts: Iterable[str]) -> None:
        """`words` as `control_words` gives them; `texts` are all texts of the row."""
        self._tokenizer, self._words = tokenizer, words
        texts = list(texts)
        found, used = sorted({word for text in texts for word in words.findall(text)}), set("".join(texts))
        # For private use, so that no standard gives them a meaning, and none that the row has itself.
        free = (character for character in map(chr, range(0xF0000, 0x10FFFE)) if character not in used)
        self._hidden = dict(zip(found, islice(free, len(found)), strict=True))
        self._shown = str.maketrans({character: word for word, character in self._hidden.items()})

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def hide(self, text: str) -> str:
        """`text` with a character in place of each control token."""
        return self._words.sub(lambda match: self._hidden[match[0]], text)

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        """Token ids of a piece of the filled template; those of no control token where `hide` has hidden one."""
        ids, start = [], 0
        for match in self._words.finditer(text):
            ids += self._plain(text[start : match.start()])
            ids.append(self._tokenizer.convert_tokens_to_ids(match[0]))
            start = match.end()
        return ids + self._plain(text[start:])

    def _plain(self, text: str) -> list[int]:
        if not text:
            return []
        shown = text.translate(self._shown)
        return self._tokenizer(shown, add_special_tokens=False, split_special_tokens=True)["input_ids"]
