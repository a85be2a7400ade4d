"""Refining against the plain openai async client: the same requests, the same server without faults, the same bound.

Prints requests per second of both, measured in turn from the journal of the server: all requests but the first, by the
time between the first and the last reply. Start-up is left out of both; storing every answer is not, nor is the wait
between rewrites and answers.

    .venvs/refine/bin/python tests/benchmarks/bench_teacher.py --rows 2000 --latency 0 0.1
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import openai
import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from middo.files import read_jsonl, write_jsonl
from middo.rows import with_ids

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def endpoint(journal, latency):
    """The URL of a server that notes every reply in `journal`."""
    server_file = ROOT / "tests" / "faults" / "fault_server.py"
    words = [sys.executable, server_file, "--journal", journal, "--latency", str(latency)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
        finally:
            server.terminate()


def make_world(folder, count):
    """A dataset of `count` rows of about 150 words, all hard."""
    text = "Explain in simple words what a lighthouse keeper does on a stormy night. " * 12
    rows = with_ids(
        dict(instruction=f"{text}{number}", input="", output="old", origin="seed", parents=[], iteration=0)
        for number in range(count)
    )
    write_jsonl(folder / "dataset.jsonl", rows)
    table = {"id": [row["id"] for row in rows], "hard": True, "low": False, "sparse": False}
    pl.DataFrame(table).write_parquet(folder / "selection.parquet")


def refine(world, out, url, bound):
    """Run refine.py; what the store then holds was asked."""
    teacher = dict(model="m", base_url=url, temperature=1.0, top_p=1.0, max_tokens=100, attempts=1)
    access = dict(api_key_env=None, max_concurrency=bound, timeout=60, max_retries=0, command=None)
    access |= dict(prices=None, max_cost=None, max_requests=None)
    answers = out / "answers" / "bench" / "iter1.jsonl"
    words = [
        *(sys.executable, ROOT / "scripts" / "refine.py", "--dataset", world / "dataset.jsonl"),
        *("--selection", world / "selection.parquet", "--prompts"),
        *(ROOT / "config" / "prompts" / f"{name}.md" for name in ("simplify", "improve", "extend", "answer")),
        *("--teacher", json.dumps(teacher), "--access", json.dumps(access), "--iteration", "1"),
        *("--answers", answers, "--answers-root", out / "answers", "--log", out / "refine.log"),
        *("--refined", out / "refined.jsonl", "--rejected", out / "rejected.jsonl", "--report", out / "refine.json"),
    ]
    subprocess.run(words, check=True, stderr=subprocess.DEVNULL)
    return [record["request"] for record in read_jsonl(answers)]


async def plain(requests, url, bound):
    """The plain client: all requests at once, a semaphore, the text of each reply kept in a list."""
    limits = httpx.Limits(max_connections=bound, max_keepalive_connections=bound)
    http_client = openai.DefaultAsyncHttpxClient(limits=limits)
    gate = asyncio.Semaphore(bound)
    async with openai.AsyncOpenAI(api_key="none", base_url=url, http_client=http_client) as client:

        async def ask(request):
            asked = {name: value for name, value in request.items() if name not in ("endpoint", "attempt")}
            async with gate:
                reply = await client.chat.completions.create(**asked)
            return reply.choices[0].message.content

        return await asyncio.gather(*map(ask, requests))


def rate(journal):
    """Requests per second, from the first reply to the last."""
    times = sorted(line["time"] for line in read_jsonl(journal))
    return (len(times) - 1) / (times[-1] - times[0])


def compare(world, latency, args):
    """Both ways in turn, `args.rounds` times; print their medians and the ratio."""
    found = {"plain client": [], "refine.py": []}
    for _ in range(args.rounds):
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            out = Path(folder)
            with endpoint(out / "ours.jsonl", latency) as url:
                requests = refine(world, out, url, args.concurrency)
            with endpoint(out / "plain.jsonl", latency) as url:
                asyncio.run(plain(requests, url, args.concurrency))
            found["refine.py"].append(rate(out / "ours.jsonl"))
            found["plain client"].append(rate(out / "plain.jsonl"))
    print(f"replies after {latency} s, {2 * args.rows} requests, {args.concurrency} at a time:")
    for name, rates in found.items():
        print(f"  {name:12} {statistics.median(rates):8.1f} requests/s (median of {args.rounds})")
    ratios = [ours / theirs for theirs, ours in zip(*found.values(), strict=True)]
    print(f"  ratio {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})", flush=True)


def main():
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--rows", type=int, default=1000, help="two requests each")
    made.add_argument("--latency", type=float, nargs="*", default=[0.0, 0.1], help="seconds before each reply")
    made.add_argument("--concurrency", type=int, default=32)
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--folder", help="where the results lie; the disk counts")
    args = made.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=args.folder) as world:
        make_world(Path(world), args.rows)
        for latency in args.latency:
            compare(Path(world), latency, args)
    print(f"{time.monotonic() - started:.0f} s in all")


if __name__ == "__main__":
    main()
