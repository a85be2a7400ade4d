"""Make the data of the demo's little world from a seed number. For the demo alone; not a part of the method.

Writes the seed dataset with planted faults, a list of the faults that no step of the method reads, held-out questions
in OpenCompass's custom form, and the pretraining text of the base model (which includes the six rating prompts, filled
with good and bad samples).

    python scripts/demo/make_world.py --seed 1 --rows 400 --prompts config/prompts/*_{instruction,response}.md \
        --dataset seed.json --faults faults.jsonl --heldout heldout.jsonl --corpus corpus.jsonl
"""

import argparse
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from demo.corpus import corpus, sample
from demo.kinds import KINDS
from demo.world import World, answer, draw_heldout_question, make_world, parse

from middo import program
from middo.files import write_json, write_jsonl
from middo.program import say
from middo.ratings import read_prompts

# Share of the rows with each planted fault, wrong and unclear being the two of low quality.
FAULT_SHARES = {"hard": 0.08, "wrong": 0.06, "unclear": 0.06}
ROWS_OF_A_RARE_KIND = 4
HELDOUT_PER_KIND = 15

COMMON = [name for name in sorted(KINDS) if not KINDS[name].rare]
RARE = [name for name in sorted(KINDS) if KINDS[name].rare]


def seed_rows(world: World, rng: random.Random, rows: int) -> tuple[list[dict], list[dict]]:
    """The seed dataset in Alpaca form, and its planted faults by row number, counted from 0; no prompt stands twice."""
    plan = [
        (fault, COMMON if fault == "wrong" else sorted(KINDS))
        for fault in FAULT_SHARES
        for _ in range(round(FAULT_SHARES[fault] * rows))
    ]
    plan += [("rare", [kind]) for kind in RARE for _ in range(ROWS_OF_A_RARE_KIND)]
    plan += [("good", [COMMON[number % len(COMMON)]]) for number in range(rows - len(plan))]
    rng.shuffle(plan)
    dataset, faults, used = [], [], set()
    for row, (sort, kinds) in enumerate(plan):
        prompt, output = sample(world, rng, "good" if sort == "rare" else sort, kinds)
        while prompt in used:
            prompt, output = sample(world, rng, "good" if sort == "rare" else sort, kinds)
        used.add(prompt)
        instruction, _, data = prompt.partition("\n")
        dataset.append({"instruction": instruction, "input": data, "output": output})
        if sort != "good":
            question = parse(prompt)
            right = answer(world, question) if question.clear else None
            faults.append({"row": row, "instruction": instruction, "input": data, "fault": sort, "answer": right})
    return dataset, faults


def heldout_rows(world: World, rng: random.Random) -> list[dict]:
    """Questions kept from all training text: in this wording for facts, with this data for all others."""
    rows = []
    for kind in sorted(KINDS):
        asked: dict[str, str] = {}
        while len(asked) < HELDOUT_PER_KIND:
            prompt = draw_heldout_question(world, rng, kind)
            asked[prompt] = answer(world, parse(prompt))
        rows += [{"question": prompt, "answer": right} for prompt, right in asked.items()]
    return rows


def arguments() -> argparse.ArgumentParser:
    made = program.parser(__doc__)
    made.add_argument("--seed", type=int, required=True, help="number of the world")
    made.add_argument("--rows", type=int, required=True, help="rows of the seed dataset")
    made.add_argument("--prompts", type=Path, nargs="+", required=True, help="the six files of the rating prompts")
    made.add_argument("--dataset", type=Path, required=True, help="seed dataset to write (JSON)")
    made.add_argument("--faults", type=Path, required=True, help="list of its planted faults to write (JSON Lines)")
    made.add_argument("--heldout", type=Path, required=True, help="held-out questions to write (JSON Lines)")
    made.add_argument("--corpus", type=Path, required=True, help="pretraining text to write (JSON Lines)")
    return made


def main(args: argparse.Namespace) -> None:
    world = make_world(args.seed)
    dataset, faults = seed_rows(world, random.Random(f"dataset {args.seed}"), args.rows)
    heldout = heldout_rows(world, random.Random(f"heldout {args.seed}"))
    documents = corpus(world, random.Random(f"corpus {args.seed}"), read_prompts(args.prompts))
    write_json(args.dataset, dataset)
    write_jsonl(args.faults, faults)
    write_jsonl(args.heldout, heldout)
    write_jsonl(args.corpus, ({"text": document} for document in documents))
    say(f"{len(dataset)} rows, {len(faults)} labelled; {len(heldout)} held-out questions; {len(documents)} documents")


if __name__ == "__main__":
    program.run(main, arguments(), environment="driver")
