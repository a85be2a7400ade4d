"""Make a random Llama of 150,000 parameters, its tokenizer and a dataset of 240 rows; in the train environment.

.venvs/train/bin/python tests/tiny_model.py <folder>
"""

import random
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
from middo.rows import with_ids, write_dataset

WORDS = ["apple", "river", "stone", "cloud", "seven", "winter", "paper", "green", "music", "quiet", "number", "garden"]


def make_rows(count: int) -> list[dict]:
    """Rows of very different lengths, with and without an input; a cutoff of 64 leaves the last no answer."""
    draw = random.Random(0)
    rows = []
    for number in range(count - 1):
        words = [draw.choice(WORDS) for _ in range(draw.randint(2, 16))]
        rows.append(
            {
                "instruction": f"Sort these {len(words)} words by their first letter, please ({number}).",
                "input": ", ".join(words) if number % 3 else "",
                "output": "\n".join(f"{place}. {word}" for place, word in enumerate(sorted(words), start=1)),
            }
        )
    rows.append({"instruction": "Repeat: " + "stone " * 9000, "input": "", "output": "stone " * 60})
    return with_ids({**row, "origin": "seed", "parents": [], "iteration": 0} for row in rows)


def make_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=512, special_tokens=["<s>", "</s>", "<pad>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        model_input_names=["input_ids", "attention_mask"],
        model_max_length=1024,
    )


def main(folder: Path) -> None:
    rows = make_rows(240)
    write_dataset(folder / "dataset.jsonl", rows)
    tokenizer = make_tokenizer([row[field] for row in rows for field in ("instruction", "input", "output")])
    tokenizer.save_pretrained(folder / "base")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=64,
        intermediate_size=176,
        num_hidden_layers=2,
        num_attention_heads=1,
        num_key_value_heads=1,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "base")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
