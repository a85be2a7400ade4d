"""For tests that need a model: the train environment's interpreter, and a tiny base model made once per session."""

import subprocess

import pytest
from conftest import ROOT

PYTHON = ROOT / ".venvs" / "train" / "bin" / "python"


def train_python(*arguments, **options) -> subprocess.CompletedProcess:
    """Run a program in the train environment, stdout and stderr together."""
    command = [str(PYTHON), *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A folder with base/ and dataset.jsonl, of which the last row has no answer left at cutoff_len 64."""
    folder = tmp_path_factory.getbasetemp() / "tiny"
    if not folder.is_dir():
        folder.mkdir()
        done = train_python("tests/tiny_model.py", folder)
        assert done.returncode == 0, done.stdout
    return folder
