"""Shared by all tests: the environments, a checkout to work in, and one real run of the demo."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is no fault of the code.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("patient")

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
ENVIRONMENTS = ["train", "score-cpu", "neighbors", "refine", "evaluate", "describe", "figures"]

os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2"),
}


def pytest_sessionstart(session):
    """Build what is missing before the first test, so that no test's time holds an installation."""
    if not session.config.option.collectonly:
        subprocess.run([sys.executable, ROOT / "scripts" / "build_env.py", *ENVIRONMENTS], check=True)


def make_checkout(folder: Path) -> Path:
    """A copy of the repository's files, as they are now, that shares the environments but no result."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / ".venvs").symlink_to(ROOT / ".venvs")
    return folder


def snakemake(folder: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess:
    """Run Snakemake in a checkout as a user would, stdout and stderr together; with `check` it must succeed."""
    command = [sys.executable, "-m", "snakemake", *arguments]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if check:
        assert done.returncode == 0, done.stdout[-6000:]
    return done


@pytest.fixture
def checkout(tmp_path):
    """A fresh checkout without results."""
    return make_checkout(tmp_path / "checkout")


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """A checkout in which the demo has run, for real, once for all tests. Copy it before changing anything in it."""
    folder = make_checkout(tmp_path_factory.mktemp("demo") / "checkout")
    done = snakemake(folder, "--configfile", "config/demo.yaml", "--cores", "2")
    (folder / "demo-output.txt").write_text(done.stdout)
    return folder


@pytest.fixture
def demo_copy(demo, tmp_path):
    """A copy of the finished demo, times kept, that a test may change."""
    return shutil.copytree(demo, tmp_path / "copy", symlinks=True)


@pytest.fixture
def demo_world(demo, tmp_path):
    """A checkout that has the demo's world and base model, and nothing else yet."""
    folder = make_checkout(tmp_path / "world")
    shutil.copytree(demo / "results/demo/world", folder / "results/demo/world")
    shutil.copytree(demo / ".snakemake/metadata", folder / ".snakemake/metadata")
    return folder
