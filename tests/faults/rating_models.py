"""Tiny models that rate, and their ratings computed without vLLM and without the workflow's code. Runs in `train`.

    python rating_models.py FOLDER PROMPTS

FOLDER holds dataset.jsonl. Made in it: two checkpoints, whole/ ("10" is one token) and pairs/ (it is two), and for each
whole.json and pairs.json: by row id and rating, the probabilities of the eleven answers.
"""

import json
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CONTEXT = 256
# What LLaMA-Factory writes for its template `default`, the system turn left out.
TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ 'Human: ' + message['content'] + '</s>"
    "\nAssistant:' }}{% else %}{{ message['content'] + '</s>\n' }}{% endif %}{% endfor %}"
)
NAMES = [
    f"{aspect}_{part}" for part in ("instruction", "response") for aspect in ("clarity", "completeness", "factuality")
]


def make(folder):
    for name in ("whole", "pairs"):
        tokenizer = Tokenizer(models.BPE())
        cut = [pre_tokenizers.Digits(individual_digits=True)] if name == "pairs" else []
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*cut, pre_tokenizers.ByteLevel(add_prefix_space=False)])
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=["<s>", "</s>", "<pad>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        words = ["Rate the prompt from 0 to 10. How clear is it? 10: all that it says is true. 10,10 10"] * 50
        tokenizer.train_from_iterator(words, trainer)
        wrapped = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", chat_template=TEMPLATE
        )
        wrapped.save_pretrained(folder / name)
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=400,
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=CONTEXT,
            initializer_range=0.15,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=2,
        )
        LlamaForCausalLM(config).save_pretrained(folder / name)


def rate(checkpoint, prompts, dataset, out):
    """For each row and rating the probabilities of the eleven answers, or null where prompt and "10" don't fit."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    plain = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    answers = [tokenizer.encode(str(number), add_special_tokens=False) for number in range(11)]
    rated = {}
    for line in dataset.read_text().rstrip("\n").split("\n"):
        row = json.loads(line)
        text = row["instruction"] + ("\n" + row["input"] if row["input"] else "")
        rated[row["id"]] = {}
        for name in NAMES:
            # The response first: what the prompt says about places is not a place.
            before, _, after = (prompts / f"{name}.md").read_text().rstrip("\n").partition("{prompt}")
            turn = before + text + after.replace("{response}", row["output"])
            # What the row says about control tokens is no control token.
            plain.encode_special_tokens = True
            asked = plain.encode(f"Human: {turn}", add_special_tokens=False).ids
            plain.encode_special_tokens = False
            whole = tokenizer.apply_chat_template([{"role": "user", "content": turn}], add_generation_prompt=True)
            ids = [*asked, 1, *plain.encode("\nAssistant:", add_special_tokens=False).ids]
            assert ids == whole or "</s>" in turn
            fits = len(ids) + len(answers[10]) <= CONTEXT
            rated[row["id"]][name] = distribution(model, ids, answers) if fits else None
    out.write_text(json.dumps(rated))


@torch.no_grad()
def distribution(model, ids, answers):
    def after(tokens):
        return model(torch.tensor([tokens])).logits[0, -1].double().softmax(0)

    first = after(ids)
    masses = [first[tokens[0]] for tokens in answers]
    if len(answers[10]) == 2:
        zero = after([*ids, answers[10][0]])[answers[10][1]]
        masses[10] = masses[1] * zero
        masses[1] = masses[1] * (1 - zero)
    total = sum(masses)
    return [float(mass / total) for mass in masses]


if __name__ == "__main__":
    made, prompts = map(Path, sys.argv[1:])
    torch.set_num_threads(1)
    make(made)
    for model in ("whole", "pairs"):
        rate(made / model, prompts, made / "dataset.jsonl", made / f"{model}.json")
