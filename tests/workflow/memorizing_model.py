"""Make a tiny model that answers given questions with given answers, right or wrong: a test then knows its score.

    python tests/workflow/memorizing_model.py pairs.json folder

pairs.json: [[question, answer], …]. Run in the environment `evaluate`; takes some seconds.
"""

import json
import sys

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ 'Human: ' + message['content'] + '</s>\n"
    "Assistant:' }}{% else %}{{ message['content'] + '</s>\n' }}{% endif %}{% endfor %}"
)


def make_tokenizer(texts):
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "</s>", "<pad>"]
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        model_input_names=["input_ids", "attention_mask"],
        chat_template=TEMPLATE,
    )


def train(model, tokenizer, texts, most_steps=400):
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    labels = batch.input_ids.masked_fill(batch.attention_mask == 0, -100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    # Left of "Assistant:" nothing needs to be learned.
    marker = tokenizer("\nAssistant:").input_ids
    for row, ids in enumerate(batch.input_ids.tolist()):
        end = next(i for i in range(len(ids)) if ids[i : i + len(marker)] == marker) + len(marker)
        labels[row, :end] = -100
    for _ in range(most_steps):
        loss = model(**batch, labels=labels).loss
        if loss < 0.005:
            return
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    raise SystemExit(f"not memorized: loss {loss:.3f}")


def main(pairs, folder):
    torch.manual_seed(0)
    with open(pairs, encoding="utf-8") as stream:
        texts = [f"Human: {question}</s>\nAssistant:{answer}</s>" for question, answer in json.load(stream)]
    tokenizer = make_tokenizer(texts)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=1,
            max_position_embeddings=512,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=2,
        )
    )
    train(model, tokenizer, texts)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
