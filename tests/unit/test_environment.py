"""A wrong environment is refused at once, by every program, before it reads anything."""

import subprocess
import sys

import build_env
import pytest
from conftest import ENVIRONMENTS, ROOT

from middo.environment import pins, require_environment
from middo.program import UserError

NEEDS = {
    "finetune": "train",
    "base_losses_shard": "train",
    "losses_shard": "train",
    "neighbors": "neighbors",
    "refine": "refine",
    "evaluate": "evaluate",
}


def test_this_interpreter_is_the_driver():
    require_environment("driver")


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_this_interpreter_is_no_other_environment(name):
    with pytest.raises(UserError, match=f"is not the environment '{name}'. It lacks .*found .*build_env.py {name}"):
        require_environment(name)


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_what_was_built_is_what_the_file_says(name):
    code = f"from middo.environment import require_environment; require_environment('{name}')"
    subprocess.run([ROOT / ".venvs" / name / "bin" / "python", "-c", code], cwd=ROOT / "scripts", check=True)


def test_an_environment_without_its_interpreter_is_built_again(tmp_path, monkeypatch):
    monkeypatch.setattr(build_env, "VENVS", tmp_path)
    python = tmp_path / "train/bin/python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    (tmp_path / "train/middo-fingerprint").write_text(build_env.fingerprint("train"))
    assert build_env.is_built("train")
    python.unlink()
    assert not build_env.is_built("train")
    python.symlink_to(tmp_path / "gone")
    assert not build_env.is_built("train")


def test_an_unknown_environment_is_named():
    with pytest.raises(UserError, match="no environment 'gpu'.* Known: describe, driver, evaluate"):
        pins("gpu")


@pytest.mark.parametrize("program", NEEDS)
def test_a_program_in_the_wrong_environment_says_so(program):
    required = {
        "finetune": "--dataset x --base-model x --training {} --checkpoint x --sha256 x --report x --dropped x",
        "base_losses_shard": "--dataset x --base-model x --training {} --out x",
        "losses_shard": "--dataset x --checkpoint x --training {} --out x",
        "neighbors": "--dataset x --embeddings x --k 2 --out x",
        "refine": "--dataset x --selection x --prompts a b c d --teacher {} --access {} --iteration 1 --answers x "
        "--answers-root x --refined x --rejected x --report x",
        "evaluate": "--checkpoint x --sha256 x --evaluation {} --out x --details x",
    }[program]
    command = [sys.executable, ROOT / "scripts" / f"{program}.py", *required.split()]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and f"is not the environment '{NEEDS[program]}'" in done.stderr, done.stderr


def test_the_pins_that_a_checkpoint_depends_on_are_the_same_where_it_is_made_and_measured():
    """transformers 5 reads checkpoints of 4.57; the other way round they load wrong without a word."""
    made, measured = (
        next(pin for pin in pins(name) if pin.startswith("transformers==")) for name in ("train", "evaluate")
    )
    assert made == measured
