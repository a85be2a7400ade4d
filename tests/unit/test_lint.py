"""Lint: ruff, snakefmt, snakemake --lint; and what no file of the project may hold."""

import subprocess
import sys

import pytest
from conftest import ROOT

SCRIPTS = sorted(p for p in (ROOT / "scripts").glob("*.py"))


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["snakefmt", "--check", "Snakefile", "rules"],
        ["snakemake", "--lint", "--configfile", "config/demo.yaml"],
        ["snakemake", "--lint", "--configfile", "config/demo-study.yaml"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_lint(command):
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_every_program_explains_itself(script):
    done = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout and f"scripts/{script.name}" in done.stdout, "an example of its use"


def test_the_gate_runs_the_command_that_the_readme_names():
    command = (ROOT / ".ci" / "run").read_text().splitlines()[-1]
    assert command.endswith("-m pytest tests") and f"\n    {command}\n" in (ROOT / "README.md").read_text()


def test_pins_of_the_driver_are_written_alike():
    from middo.environment import pins

    required = (ROOT / "requirements.txt").read_text().split()
    assert [pin for pin in pins("driver") if pin not in required] == []
