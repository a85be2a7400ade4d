"""Deployment by conda, as far as it shows without conda: a stand-in for the command answers Snakemake's questions."""

import os
import re

import pytest
from conftest import snakemake

CONDA = """#!/bin/sh
case "$*" in
"info --json") echo '{"conda_prefix": "/nowhere", "platform": "linux-64"}' ;;
--version) echo "conda 24.7.1" ;;
"config --get channel_priority --json") echo '{"get": {"channel_priority": "strict"}}' ;;
*) echo "unexpected: conda $*" >&2; exit 1 ;;
esac
"""


@pytest.fixture
def conda(tmp_path, monkeypatch):
    """The options that choose conda, with the stand-in on PATH."""
    command = tmp_path / "bin" / "conda"
    command.parent.mkdir()
    command.write_text(CONDA)
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}{os.pathsep}{os.environ['PATH']}")
    return ["--configfile", "config/demo.yaml", "--sdm", "conda"]


def test_evaluate_finds_the_interpreter_of_the_score_environment(checkout, conda):
    listed = snakemake(checkout, *conda, "--list-conda-envs").stdout
    folder = re.search(r"envs/score-cpu\.yaml\s+(\S+)", listed)[1]
    shown = snakemake(checkout, *conda, "-n", "-p", "results/demo/seed/eval.json").stdout
    assert f"--server-python {checkout}/{folder}/bin/python " in shown
    assert "\nShell command: python scripts/evaluate.py" in shown


def test_switching_to_conda_reruns_nothing(demo, conda):
    assert "Nothing to be done" in snakemake(demo, *conda, "-n").stdout
