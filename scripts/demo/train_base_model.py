"""Train the demo's base model from scratch on the little world's text. For the demo alone; not a part of the method.

A Llama of about one million parameters with a byte-level BPE tokenizer of its own, in the folder form of Hugging Face.
Plain PyTorch, deterministic for a given number of threads. It takes about two minutes on two cores and starts again
from the beginning when interrupted.

    python scripts/demo/train_base_model.py --corpus results/demo/world/corpus.jsonl --seed 1 --out base_model
"""

import argparse
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from middo import program
from middo.files import read_jsonl
from middo.program import Progress, UserError, say

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

VOCABULARY = 1024
POSITIONS = 512
MODEL = dict(
    hidden_size=128,
    intermediate_size=384,
    num_hidden_layers=4,
    num_attention_heads=2,
    num_key_value_heads=2,
    head_dim=64,
    max_position_embeddings=POSITIONS,
    rope_theta=10000.0,
    tie_word_embeddings=True,
    # About 1/sqrt(hidden_size): the usual 0.02, meant for wide models, costs so small a one most of its two minutes.
    initializer_range=0.08,
)
SEQUENCE = 256
BATCH_SEQUENCES = 6
# Muon for the weight matrices, AdamW for embeddings and norms: in two minutes AdamW alone learns little.
LEARNING_RATE_MATRICES = 0.02
LEARNING_RATE_OTHERS = 5e-3
WARMUP = 0.05


def make_tokenizer(documents: list[str]) -> "PreTrainedTokenizerFast":
    """A byte-level BPE of the documents: a token per digit; 10 alone is one too, so that every rating is one token."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    digits = pre_tokenizers.Split(Regex(r"(?<![0-9])10(?![0-9])|[0-9]"), "isolated")
    bpe.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<s>", "</s>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator((document.replace("</s>", "") for document in documents), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        model_max_length=POSITIONS,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )


def pack(encoded: list[list[int]]) -> list[list[list[int]]]:
    """Sequences of whole documents, in the given order, each of at most SEQUENCE tokens or of one longer document."""
    sequences: list[list[list[int]]] = []
    room = 0
    for document in encoded:
        if len(document) > room:
            sequences.append([])
            room = SEQUENCE
        sequences[-1].append(document)
        room -= len(document)
    return sequences


def tensors(sequences: list[list[list[int]]], end: int) -> dict[str, "torch.Tensor"]:
    """Inputs of the model and labels [sequences, longest]; documents do not see each other, each starts at position 0.

    Of a chat only the answer has labels: its question is of no use to anyone. -100 elsewhere.
    """
    import torch

    longest = max(sum(map(len, sequence)) for sequence in sequences)
    shape = (len(sequences), longest)
    tokens, positions, owner = (torch.zeros(shape, dtype=torch.long) for _ in range(3))
    labels = torch.full(shape, -100)
    for row, sequence in enumerate(sequences):
        start = 0
        for number, document in enumerate(sequence, start=1):
            place = slice(start, start + len(document))
            tokens[row, place] = torch.tensor(document)
            positions[row, place] = torch.arange(len(document))
            owner[row, place] = number
            # A chat has two end-of-sequence tokens, one after the question.
            first = document.index(end) if document.count(end) == 2 else 0
            labels[row, start + first : start + len(document) - 1] = torch.tensor(document[first + 1 :])
            start += len(document)
    seen = (owner[:, None, :, None] == owner[:, None, None, :]) & torch.ones(longest, longest, dtype=torch.bool).tril()
    mask = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
    return {"input_ids": tokens, "position_ids": positions, "attention_mask": mask, "labels": labels}


def make_model(tokenizer: "PreTrainedTokenizerFast", seed: int) -> "LlamaForCausalLM":
    """A Llama with random weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **MODEL,
    )
    return LlamaForCausalLM(config)


def train(model: "LlamaForCausalLM", sequences: list[list[list[int]]], end: int) -> None:
    """One pass over the sequences: next-token prediction, Muon and AdamW, cosine schedules after a short warm-up."""
    import torch
    from transformers import get_cosine_schedule_with_warmup

    matrices = [p for name, p in model.named_parameters() if p.dim() == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.dim() != 2 or "embed" in name]
    optimizers = [
        torch.optim.Muon(matrices, lr=LEARNING_RATE_MATRICES, weight_decay=0.01),
        torch.optim.AdamW(others, lr=LEARNING_RATE_OTHERS, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    batches = [sequences[at : at + BATCH_SEQUENCES] for at in range(0, len(sequences), BATCH_SEQUENCES)]
    warmup = round(WARMUP * len(batches))
    schedules = [get_cosine_schedule_with_warmup(optimizer, warmup, len(batches)) for optimizer in optimizers]
    progress = Progress(len(batches), "batches")
    model.train()
    mean = None
    for batch in batches:
        inputs = tensors(batch, end)
        labels = inputs.pop("labels")
        hidden = model.model(**inputs, use_cache=False).last_hidden_state
        logits = model.lm_head(hidden[labels != -100])
        loss = torch.nn.functional.cross_entropy(logits, labels[labels != -100])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for step in (*optimizers, *schedules):
            step.step()
        model.zero_grad(set_to_none=True)
        mean = loss.item() if mean is None else 0.98 * mean + 0.02 * loss.item()
        progress.advance(1, f"loss {mean:.3f}")


def save(model: "LlamaForCausalLM", tokenizer: "PreTrainedTokenizerFast", folder: Path) -> None:
    """Write the folder in one step, in place of an older one."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    model.save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


def arguments() -> argparse.ArgumentParser:
    made = program.parser(__doc__)
    made.add_argument("--corpus", type=Path, required=True, help="pretraining text, JSON Lines with `text`")
    made.add_argument("--seed", type=int, required=True, help="seed of weights and order")
    made.add_argument("--out", type=Path, required=True, help="model folder to write")
    return made


def main(args: argparse.Namespace) -> None:
    import torch

    torch.use_deterministic_algorithms(True)
    documents = [record["text"] for record in read_jsonl(args.corpus)]
    tokenizer = make_tokenizer(documents)
    encoded = tokenizer(documents, add_special_tokens=False)["input_ids"]
    longest = max(map(len, encoded))
    if longest > POSITIONS:
        raise UserError(
            f"{args.corpus}: a document has {longest} tokens; {POSITIONS} are allowed. Shorten the prompts?"
        )
    model = make_model(tokenizer, args.seed)
    say(f"{model.num_parameters():,} parameters, {sum(map(len, encoded)):,} tokens, {torch.get_num_threads()} threads")
    train(model, pack(encoded), tokenizer.eos_token_id)
    save(model.eval(), tokenizer, args.out)


if __name__ == "__main__":
    program.run(main, arguments(), environment="train")
