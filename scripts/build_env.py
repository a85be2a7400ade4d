"""Build the virtual environment .venvs/<name> from the pins of envs/<name>.yaml, with uv.

For machines without conda. An environment that already matches its file is left alone, one whose file changed is built
again. The same yaml serves `snakemake --sdm conda`.

    python scripts/build_env.py train refine
"""

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys

from middo import program
from middo.environment import FOLDER, pins
from middo.program import UserError, say

VENVS = FOLDER.parent / ".venvs"


def fingerprint(name: str) -> str:
    """SHA-256 of what the environment is built from: its pins and the Python that it is built on."""
    return hashlib.sha256("\n".join([sys.version, *pins(name)]).encode()).hexdigest()


def is_built(name: str) -> bool:
    """Whether .venvs/<name> was built, to its end, from the file as it is now, and its interpreter is still there."""
    stamp = VENVS / name / "middo-fingerprint"
    return (VENVS / name / "bin" / "python").exists() and stamp.is_file() and stamp.read_text() == fingerprint(name)


def build(name: str) -> None:
    """Build .venvs/<name> unless it is built; one builder at a time.

    Raises UserError with uv's own message where an installation fails.
    """
    VENVS.mkdir(exist_ok=True)
    with open(VENVS / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if is_built(name):
            return
        say(f"building environment {name} in {VENVS / name}: {', '.join(pins(name)[:4])}, …")
        shutil.rmtree(VENVS / name, ignore_errors=True)
        _uv("venv", "--python", sys.executable, str(VENVS / name))
        interpreter = str(VENVS / name / "bin" / "python")
        # Compiled once here: where Python may not write bytecode, every start would compile again, 5 to 10 s of it.
        _uv("pip", "install", "--compile-bytecode", "--python", interpreter, *_torch_source(name), *pins(name))
        if _wants_cpu_torch(name):
            _uv("pip", "uninstall", "--python", interpreter, "torchvision", "torchaudio")
        (VENVS / name / "middo-fingerprint").write_text(fingerprint(name))
        say(f"environment {name} is ready")


def _wants_cpu_torch(name: str) -> bool:
    return any(pin.startswith("torch==") and pin.endswith("+cpu") for pin in pins(name))


def _torch_source(name: str) -> list[str]:
    """Where uv finds a +cpu torch: a local folder of wheels that pip was told of, else the PyTorch project's index."""
    if not _wants_cpu_torch(name):
        return []
    folder = os.environ.get("PIP_FIND_LINKS")
    return ["--find-links", folder] if folder else ["--torch-backend", "cpu"]


def _uv(*arguments: str) -> None:
    command = [sys.executable, "-m", "uv", "--quiet", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise UserError(f"{' '.join(command)} failed:\n{done.stdout.strip()}")


def arguments() -> argparse.ArgumentParser:
    made = program.parser(__doc__)
    made.add_argument("names", nargs="+", metavar="name", help="file name in envs/ without .yaml")
    return made


def main(args: argparse.Namespace) -> None:
    for name in args.names:
        build(name)


if __name__ == "__main__":
    program.run(main, arguments(), environment="driver")
