"""Let a version's model rate each row of a shard of its dataset six times, with vLLM.

Clarity, completeness and factuality, of the prompt alone and of the prompt with its response; quality is their mean
(method.md, section 2). A rating is read from the model's own probabilities of the eleven answers 0 to 10
(middo/ratings.py). Where a prompt doesn't fit into the model's context the rating is null, and so is the quality.

All is asked in one start of the engine. Rows are rated in parts; a part that is done survives a restart. Writes a
parquet file with id, the six ratings and quality (float32, null where there is none); scripts/scores.py puts the shards
together.

    python scripts/scores_shard.py --dataset dataset.jsonl --checkpoint checkpoint --sha256 checkpoint.sha256 \\
        --prompts config/prompts/{clarity,completeness,factuality}_{instruction,response}.md --shard 1-of-2 \\
        --out 1-of-2.parquet
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from middo import program, shards
from middo.files import atomic, read_jsonl, sha256_file, sha256_json, write_jsonl
from middo.program import Progress, UserError, say
from middo.ratings import (
    RATINGS,
    ChatFormat,
    answer_probabilities,
    chat_format,
    encode_users,
    quality,
    questions,
    questions_of,
    rating,
    read_prompts,
)
from middo.rows import check_same_ids, read_dataset
from middo.work import finish, restored, work_folder

ENVIRONMENTS = {"cpu": "score-cpu", "cuda": "score"}


class Rater(NamedTuple):
    """A started engine with all that is needed to ask it."""

    engine: Any
    tokenizer: Any
    chat: ChatFormat
    templates: dict[str, str]
    reading: str


def arguments() -> argparse.ArgumentParser:
    made = program.parser(__doc__)
    made.add_argument("--dataset", type=Path, required=True, help="dataset.jsonl")
    made.add_argument("--checkpoint", type=Path, required=True, help="Hugging Face model folder")
    made.add_argument("--sha256", type=Path, help="checksum file of the checkpoint; else its files are hashed")
    made.add_argument("--prompts", type=Path, nargs="+", required=True, help="the six prompt files")
    made.add_argument("--reading", choices=["expected", "greedy"], default="expected")
    shards.add_argument(made)
    made.add_argument("--out", type=Path, required=True, help="parquet file to write")
    made.add_argument("--device", choices=list(ENVIRONMENTS), default="cpu")
    made.add_argument("--max-num-seqs", type=int, default=256, help="prompts that the engine holds at a time")
    made.add_argument("--part-rows", type=int, default=256, help="rows rated between two saves")
    return made


def main(args: argparse.Namespace) -> None:
    rows = args.shard.of(read_dataset(args.dataset))
    templates = read_prompts(args.prompts)
    if not (args.checkpoint / "config.json").is_file():
        raise UserError(f"--checkpoint {args.checkpoint}: this is no model folder, it has no config.json.")
    key = {
        "dataset": sha256_file(args.dataset),
        "checkpoint": checkpoint_hash(args.checkpoint, args.sha256),
        "prompts": templates,
        "reading": args.reading,
        # Precision differs between the two.
        "device": args.device,
        "part_rows": args.part_rows,
        "rows": [row["id"] for row in rows],
    }
    work = work_folder(args.out, "scores", key)
    if restored(work, [args.out]):
        return
    parts = {
        work / f"part-{start:09d}.jsonl": rows[start : start + args.part_rows]
        for start in range(0, len(rows), args.part_rows)
    }
    rate_parts({path: part for path, part in parts.items() if not path.exists()}, rows, templates, args)
    rated = [record for path in parts for record in read_jsonl(path)]
    write_scores(args.out, rows, rated)
    finish(work, [args.out])


def checkpoint_hash(folder: Path, recorded: Path | None) -> str:
    """What the checkpoint holds, as one hash: that of its checksum file where there is one, else of its files."""
    if recorded:
        return sha256_file(recorded)
    files = sorted(p for p in folder.iterdir() if p.suffix in {".safetensors", ".json", ".jinja", ".model"})
    return sha256_json({path.name: sha256_file(path) for path in files})


def rate_parts(
    parts: dict[Path, list[dict]], rows: list[dict], templates: dict[str, str], args: argparse.Namespace
) -> None:
    """Rate the rows of every part and save it as JSON lines: id and six ratings, null where there is none."""
    if not parts:
        return
    progress = Progress(len(rows), done=len(rows) - sum(map(len, parts.values())))
    if progress.done:
        say(f"{progress.done} of {len(rows)} rows were rated before")
    prepare_process(args.device)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(args.checkpoint, trust_remote_code=False)
    chat = chat_format(tokenizer)
    say(f"starting vLLM on {args.device} for {len(rows)} rows × {len(RATINGS)} ratings")
    engine = start_engine(args, longest_prompt(rows, templates, tokenizer, chat) + longest_answer(chat))
    rater = Rater(engine, tokenizer, chat, templates, args.reading)
    for path, part in parts.items():
        write_jsonl(path, rate(rater, part))
        progress.advance(len(part))


def prepare_process(device: str) -> None:
    """Settings that vLLM reads when it is imported."""
    os.environ.update(
        VLLM_NO_USAGE_STATS="1",
        DO_NOT_TRACK="1",
        # The engine in this process: killed with it, and nothing of it left behind.
        VLLM_ENABLE_V1_MULTIPROCESSING="0",
    )
    if device == "cpu":
        os.environ.update(TORCHDYNAMO_DISABLE="1", VLLM_CPU_OMP_THREADS_BIND="nobind")
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")


def longest_prompt(rows: list[dict], templates: dict[str, str], tokenizer: Any, chat: ChatFormat) -> int:
    """The greatest number of tokens of any prompt. Of all rows, so that a restart starts the same engine."""
    longest = 0
    for start in range(0, len(rows), 1000):
        texts = [text for row in rows[start : start + 1000] for text in questions_of(row, templates)]
        longest = max(longest, *map(len, encode_users(tokenizer, chat, texts)))
    return longest


def longest_answer(chat: ChatFormat) -> int:
    """Tokens of the longest of the eleven answers."""
    return max(map(len, chat.answers))


def start_engine(args: argparse.Namespace, needed: int) -> Any:
    """The checkpoint in a vLLM engine that takes sequences of `needed` tokens, or of its context if that is shorter."""
    from transformers import AutoConfig
    from vllm import LLM

    config = AutoConfig.from_pretrained(args.checkpoint, trust_remote_code=False).get_text_config()
    context = getattr(config, "max_position_embeddings", None)
    # No longer than needed: a context of 131,072 tokens would ask for more memory than the ratings do. A power of two,
    # so that most versions share what vLLM compiles.
    length = min(context, 1 << max(needed - 1, 1).bit_length()) if context else None
    of_device = (
        dict(dtype="float32", enforce_eager=True, block_size=32, distributed_executor_backend="uni")
        if args.device == "cpu"
        else dict(dtype="auto")
    )
    return LLM(
        model=str(args.checkpoint),
        generation_config="vllm",
        trust_remote_code=False,
        max_model_len=length,
        max_num_seqs=args.max_num_seqs,
        enable_prefix_caching=True,
        seed=0,
        **of_device,
    )


def rate(rater: Rater, rows: list[dict]) -> list[dict]:
    """Rate `rows`: for each, in order, its id and six ratings, 0 to 10; None where a prompt is too long for the model.

    What comes out depends on `rows` alone: the cache of earlier parts, which a restart doesn't have, is emptied.
    """
    texts = [text for row in rows for text in questions_of(row, rater.templates)]
    prompts = encode_users(rater.tokenizer, rater.chat, texts)
    room = rater.engine.llm_engine.model_config.max_model_len - longest_answer(rater.chat)
    fitting = [number for number, prompt in enumerate(prompts) if len(prompt) <= room]
    rater.engine.reset_prefix_cache()
    distributions = dict(zip(fitting, ask(rater, [prompts[number] for number in fitting]), strict=True))
    values = [rating(distributions.get(number), rater.reading) for number in range(len(prompts))]
    width = len(RATINGS)
    return [
        {"id": row["id"], **dict(zip(RATINGS, values[width * place : width * (place + 1)], strict=True))}
        for place, row in enumerate(rows)
    ]


def ask(rater: Rater, prompts: Sequence[list[int]]) -> list:
    """The model's distribution over the eleven answers after each prompt, or None where it isn't finite."""
    from vllm import SamplingParams, TokensPrompt

    answers = rater.chat.answers
    asked = questions(answers)
    # One list for all questions: in a batch of several, vLLM pads the shorter ones with token 0.
    tokens = sorted({token for following in asked.values() for token in following})
    sampling = SamplingParams(
        max_tokens=1, temperature=0.0, logprobs=len(tokens), logprob_token_ids=tokens, detokenize=False
    )
    requests = [TokensPrompt(prompt_token_ids=[*prompt, *path]) for prompt in prompts for path in asked]
    outputs = rater.engine.generate(requests, sampling, use_tqdm=False)
    if len(outputs) != len(requests):
        raise RuntimeError(f"vLLM was asked {len(requests)} questions and answered {len(outputs)}")
    distributions = []
    for first in range(0, len(outputs), len(asked)):
        logprobs = {
            path: {token: output.outputs[0].logprobs[0][token].logprob for token in following}
            for (path, following), output in zip(asked.items(), outputs[first : first + len(asked)], strict=True)
        }
        distributions.append(answer_probabilities(answers, logprobs))
    return distributions


def write_scores(path: Path, rows: list[dict], rated: list[dict]) -> None:
    """Write id, six ratings and quality of `rows`, joined by id."""
    import polars as pl

    check_same_ids([row["id"] for row in rows], [record["id"] for record in rated], "rating")
    by_id = {record["id"]: record for record in rated}
    records = [{**by_id[row["id"]], "quality": quality([by_id[row["id"]][name] for name in RATINGS])} for row in rows]
    columns = {"id": pl.String, **dict.fromkeys([*RATINGS, "quality"], pl.Float32)}
    with atomic(path) as temporary:
        pl.DataFrame(records, schema=columns).write_parquet(temporary)


if __name__ == "__main__":
    program.run(main, arguments(), environment=ENVIRONMENTS[arguments().parse_args().device])
