"""A vLLM server of our own: started on a free port of this machine, gone when the block that uses it ends."""

import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from middo.child import running, safe_environment
from middo.program import UserError, say

# Settings under which vLLM works well on a CPU; the cache is in GiB.
CPU_ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "TORCHDYNAMO_DISABLE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}
CPU_OPTIONS = ["--enforce-eager", "--block-size", "32", "--distributed-executor-backend", "uni", "--dtype", "float32"]


@contextmanager
def serving(
    python: str, checkpoint: Path, name: str, device: str, context: int, max_num_seqs: int, log: Path
) -> Iterator[int]:
    """Serve `checkpoint` under `name` by vLLM's OpenAI-compatible server; yield its port once it answers.

    `python` is an interpreter that has vLLM; `context` bounds prompt and answer together, in tokens.
    Raises UserError where `python` is missing, and with the end of `log` where the server ends before it is ready.
    """
    if shutil.which(python) is None:
        raise UserError(
            f"There is no interpreter {python} to start vLLM from. It belongs to the environment `score`: build that "
            "with scripts/build_env.py, or with conda by `snakemake --sdm conda --conda-create-envs-only` for a target "
            "that includes scores."
        )
    port = free_port()
    command = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(checkpoint)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", name]
    command += ["--max-model-len", str(context), "--max-num-seqs", str(max_num_seqs), "--disable-uvicorn-access-log"]
    # Sampling defaults that come with a model would change the answers.
    command += ["--generation-config", "vllm"]
    command += ["--dtype", "bfloat16"] if device == "cuda" else CPU_OPTIONS
    environment = server_environment(python, device)
    with open(log, "w", encoding="utf-8") as stream, running(command, environment, output=stream) as server:
        wait_until_ready(server, port, python, log)
        yield port


def server_environment(python: str, device: str) -> dict[str, str]:
    """Environment variables of the server: no secrets, the commands of its own environment before ours."""
    environment = safe_environment() | {"VLLM_NO_USAGE_STATS": "1"}
    environment["PATH"] = os.pathsep.join([str(Path(python).parent), environment["PATH"]])
    return environment | (CPU_ENVIRONMENT if device == "cpu" else {})


def wait_until_ready(server: subprocess.Popen, port: int, python: str, log: Path) -> None:
    """Return once the server answers; raise UserError with the end of `log` where it ends before."""
    started = told = time.monotonic()
    while not answers(port):
        if server.poll() is not None:
            end = log.read_text(encoding="utf-8", errors="replace").splitlines()[-12:]
            raise UserError(
                f"The vLLM server of {python} ended with status {server.returncode}. The end of its output:\n"
                + "\n".join(f"  {line}" for line in end)
            )
        if time.monotonic() - told > 15:
            told = time.monotonic()
            say(f"waiting for the vLLM server ({told - started:.0f} s)")
        time.sleep(0.2)
    say(f"the vLLM server is ready after {time.monotonic() - started:.0f} s")


def free_port() -> int:
    """A TCP port of this machine that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(port: int) -> bool:
    """Whether the server on `port` is ready."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"http://127.0.0.1:{port}/health", timeout=5) as reply:
            return reply.status == 200
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
