"""Encode hostile rows by LLaMA-Factory's templates; what tests/unit/test_control_tokens.py asserts about, as JSON.

    .venvs/train/bin/python tests/hostile_checks.py <folder of tiny_model.py> <texts.json> <results.json>

texts.json: [[instruction, input, output], …].
"""

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
from middo import llamafactory
from middo.ratings import chat_format, encode_users
from middo.rows import prompt_text, with_ids

TEMPLATES = ["default", "qwen", "llama3", "mistral"]


def main(folder, texts, results):
    rows = with_ids(
        {
            **dict(zip(("instruction", "input", "output"), text, strict=True)),
            "origin": "seed",
            "parents": [],
            "iteration": 0,
        }
        for text in json.loads(texts.read_text())
    )
    found = {}
    for template in TEMPLATES:
        training = {"template": template, "cutoff_len": 4096}
        started = time.monotonic()
        encoded = llamafactory.encode_rows(rows, training, str(folder / "base"))
        seconds = time.monotonic() - started
        # With the template's own control tokens, as the checkpoint will have it.
        tokenizer = llamafactory._processor(training, str(folder / "base"), None).tokenizer
        tokenizer.model_max_length = 10**9
        tokenizer.chat_template = (
            "{% for m in messages %}{% if m['role'] == 'user' %}{{ '<s>Human: ' + m['content'] + '</s>\nAssistant:' }}"
            "{% else %}{{ m['content'] + '</s>\n' }}{% endif %}{% endfor %}"
        )
        asked = encode_users(tokenizer, chat_format(tokenizer), [prompt_text(row) for row in rows])
        control = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        found[template] = {
            "seconds": seconds,
            "control": [sum(i in control for i in row.ids) for row in encoded],
            "prompts": [tokenizer.decode(row.ids[slice(*row.prompt)]) for row in encoded],
            "responses": [tokenizer.decode([i for i in row.labels if i >= 0]) for row in encoded],
            "reasons": [row.reason for row in encoded],
            "asked": [tokenizer.decode(ids) for ids in asked],
            "asked_control": [sum(i in control for i in ids) for ids in asked],
        }
    results.write_text(json.dumps(found))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
