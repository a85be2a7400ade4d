"""Fetch what an experiment needs from the net, once, on a machine that has a net: base model and benchmark data.

Later steps ask the net for nothing but the teacher. What is there already is not fetched again. A base model from the
Hugging Face hub comes into the hub's cache (HF_HOME), with HF_TOKEN where its licence must be accepted; benchmark data,
as OpenCompass's archives with their MD5, into --data. A folder as base model, and benchmarks that you bring yourself,
need no fetching.

    python scripts/fetch.py --base-model meta-llama/Llama-3.1-8B --revision main \
        --benchmarks gsm8k_gen_1d7fe4 IFEval_gen_3321a3 --data data/benchmarks
"""

import argparse
import importlib
import os
from pathlib import Path

from middo import hub, program
from middo.benchmarks import BENCHMARKS, check_data, data_files, lacks_punkt
from middo.program import UserError, say

MODEL_FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.model", "*.jinja", "*.txt"]


def arguments() -> argparse.ArgumentParser:
    made = program.parser(__doc__)
    made.add_argument("--base-model", required=True, help="folder, or name on the hub")
    made.add_argument("--revision", help="commit or branch of a hub model")
    made.add_argument("--benchmarks", nargs="*", default=[], help="OpenCompass's config names")
    made.add_argument("--data", type=Path, help="folder for the benchmarks' data/")
    return made


def main(args: argparse.Namespace) -> None:
    fetch_model(args.base_model, args.revision)
    for name in args.benchmarks:
        fetch_benchmark(name, args.data)
    check_data(args.benchmarks, args.data)


def fetch_model(model: str, revision: str | None) -> None:
    """Bring a hub model into the cache. Raises UserError where the hub refuses, or the model has no safetensors."""
    if not Path(model).is_dir():
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError

        say(f"fetching {model}, revision {revision or 'main'}")
        try:
            snapshot_download(model, revision=revision or "main", allow_patterns=MODEL_FILES)
        except (HfHubHTTPError, HFValidationError, OSError) as error:
            raise UserError(f"base_model.path: {model} could not be fetched. {error}") from error
    hub.check_model(model, revision)
    say(f"the base model is {model}, {hub.commit(model, revision)}, in {hub.model_folder(model, revision)}")


def fetch_benchmark(name: str, data: Path) -> None:
    """Bring the files of one benchmark below `data`. Raises UserError where they cannot be had."""
    if any(not Path(file).is_file() for file in data_files([name], data)):
        say(f"fetching the data of {name}")
        # Where OpenCompass puts it; read at each call.
        os.environ["COMPASS_DATA_CACHE"] = str(data)
        from opencompass.utils import get_data_path

        benchmark = BENCHMARKS[name]
        module = importlib.import_module(f"opencompass.configs.datasets.{benchmark.folder}.{name}")
        for path in sorted({dataset["path"] for dataset in getattr(module, benchmark.variable)}):
            try:
                get_data_path(path, local_mode=path.startswith("."))
            except (OSError, RuntimeError, AssertionError) as error:
                raise UserError(f"{name}: its data could not be fetched. {error}") from error
    if lacks_punkt([name], str(data), None):
        import nltk

        if not nltk.download("punkt_tab", download_dir=str(data / "data" / "nltk_data")):
            raise UserError("IFEval: nltk's data punkt_tab could not be fetched.")


if __name__ == "__main__":
    program.run(main, arguments(), environment="evaluate", online=True)
