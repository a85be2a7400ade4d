"""The paper's eight benchmarks (method section 4): OpenCompass's config, the files it reads, the score that counts.

Imports nothing heavy: the rules ask it which files an evaluation depends on.
"""

import csv
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from middo.files import read_jsonl
from middo.program import UserError

_NLTK = Path("data/nltk_data")
_PUNKT = Path("tokenizers/punkt_tab/english/collocations.tab")

_MMLU_SUBJECTS = """
    abstract_algebra anatomy astronomy business_ethics clinical_knowledge college_biology college_chemistry
    college_computer_science college_mathematics college_medicine college_physics computer_security
    conceptual_physics econometrics electrical_engineering elementary_mathematics formal_logic global_facts
    high_school_biology high_school_chemistry high_school_computer_science high_school_european_history
    high_school_geography high_school_government_and_politics high_school_macroeconomics high_school_mathematics
    high_school_microeconomics high_school_physics high_school_psychology high_school_statistics
    high_school_us_history high_school_world_history human_aging human_sexuality international_law jurisprudence
    logical_fallacies machine_learning management marketing medical_genetics miscellaneous moral_disputes
    moral_scenarios nutrition philosophy prehistory professional_accounting professional_law
    professional_medicine professional_psychology public_relations security_studies sociology us_foreign_policy
    virology world_religions
""".split()  # noqa: SIM905


class Benchmark(NamedTuple):
    """One benchmark as OpenCompass knows it."""

    group: str
    """general, math, code or reasoning: the paper's grouping."""
    folder: str
    """Below opencompass.configs.datasets; the module there has the config's name."""
    variable: str
    """The module's list of datasets."""
    metric: str
    """The figure of OpenCompass's result that is the score, in percent."""
    subsets: dict[str, str]
    """OpenCompass's name of each part -> its file of questions, below data/. The score is their plain mean."""
    others: tuple[str, ...] = ()
    """Files that are read too."""
    skip: int = 0
    """Records at the start of the file that are no questions."""
    most: int | None = None
    """More questions than these are not read."""
    whole: bool = False
    """The scorer refuses a part of the questions, so `limit` does not apply."""


BENCHMARKS = {
    "mmlu_zero_shot_gen_47e2c0": Benchmark(
        "general",
        "mmlu",
        "mmlu_datasets",
        "accuracy",
        {f"lukaemon_mmlu_{subject}": f"mmlu/test/{subject}_test.csv" for subject in _MMLU_SUBJECTS},
        others=tuple(f"mmlu/dev/{subject}_dev.csv" for subject in _MMLU_SUBJECTS),
    ),
    "IFEval_gen_3321a3": Benchmark(
        "general",
        "IFEval",
        "ifeval_datasets",
        "Prompt-level-strict-accuracy",
        {"IFEval": "ifeval/input_data.jsonl"},
    ),
    "gsm8k_gen_1d7fe4": Benchmark(
        "math",
        "gsm8k",
        "gsm8k_datasets",
        "accuracy",
        {"gsm8k": "gsm8k/test.jsonl"},
        others=("gsm8k/train.jsonl",),
    ),
    "math_gen_265cce": Benchmark("math", "math", "math_datasets", "accuracy", {"math": "math/math.json"}),
    "humaneval_gen_8e312c": Benchmark(
        "code",
        "humaneval",
        "humaneval_datasets",
        "humaneval_pass@1",
        {"openai_humaneval": "humaneval/human-eval-v2-20210705.jsonl"},
        whole=True,
    ),
    # The first ten rows are its training set.
    "mbpp_gen_830460": Benchmark(
        "code", "mbpp", "mbpp_datasets", "score", {"mbpp": "mbpp/mbpp.jsonl"}, skip=10, most=500
    ),
    "hellaswag_gen_6faab5": Benchmark(
        "reasoning", "hellaswag", "hellaswag_datasets", "accuracy", {"hellaswag": "hellaswag/hellaswag.jsonl"}
    ),
    # The first record is the table's head.
    "gpqa_openai_simple_evals_gen_5aeece": Benchmark(
        "reasoning", "gpqa", "gpqa_datasets", "accuracy", {"GPQA_diamond": "gpqa/gpqa_diamond.csv"}, skip=1
    ),
}


def data_files(benchmarks: Iterable[str], data: str | None) -> list[str]:
    """Every file that `benchmarks` (config names) read, below the folder `data` that holds data/."""
    names = [file for name in benchmarks for file in (*BENCHMARKS[name].subsets.values(), *BENCHMARKS[name].others)]
    return [str(Path(data or ".") / "data" / name) for name in names]


def check_data(benchmarks: Iterable[str], data: str | None) -> None:
    """Raise UserError naming every missing file and what belongs there. Nothing is ever downloaded."""
    missing = [
        f"  {path}  ({name}, in the form that OpenCompass 0.5.4 reads)"
        for name in benchmarks
        for path in data_files([name], data)
        if not Path(path).is_file()
    ]
    if missing:
        more = f"\n  … and {len(missing) - 10} more" if len(missing) > 10 else ""
        raise UserError(
            "Benchmark data is missing. Fetch it with `snakemake fetch --configfile …`, or put these files of "
            "OpenCompass's dataset archive there (evaluation.data):\n" + "\n".join(missing[:10]) + more
        )


def check_sentences(benchmarks: Iterable[str], data: str, limit: int | None) -> None:
    """Raise UserError where IFEval would count sentences or words and nltk's data for that is missing."""
    if lacks_punkt(benchmarks, data, limit):
        raise UserError(
            "IFEval counts sentences with nltk's data `punkt_tab`, which is missing; put it at "
            f"{Path(data) / _NLTK / _PUNKT.parent}."
        )


def lacks_punkt(benchmarks: Iterable[str], data: str, limit: int | None) -> bool:
    """Whether the questions of IFEval call for nltk's data `punkt_tab` and it lies in none of nltk's folders.

    Raises UserError where the file of questions is not IFEval's.
    """
    if "IFEval_gen_3321a3" not in benchmarks:
        return False
    path = Path(data_files(["IFEval_gen_3321a3"], data)[0])
    counting = {"length_constraints:number_sentences", "change_case:capital_word_frequency"}
    try:
        asked = [set(row["instruction_id_list"]) for row in read_jsonl(path)[:limit]]
    except (json.JSONDecodeError, KeyError) as error:
        raise UserError(f"{path} is not IFEval's file of questions: {error!r}.") from error
    others = [Path(folder) for folder in os.environ.get("NLTK_DATA", "").split(os.pathsep) if folder]
    folders = [Path(data) / _NLTK, *others, Path.home() / "nltk_data"]
    return any(instructions & counting for instructions in asked) and not any(
        (folder / _PUNKT).is_file() for folder in folders
    )


def questions(name: str, data: str, limit: int | None) -> dict[str, int]:
    """How many questions each subset of benchmark `name` asks, read from its files and not from OpenCompass."""
    benchmark = BENCHMARKS[name]
    counts = {}
    for subset, file in benchmark.subsets.items():
        count = max(0, _records(Path(data) / "data" / file) - benchmark.skip)
        for most in (benchmark.most, None if benchmark.whole else limit):
            count = count if most is None else min(count, most)
        counts[subset] = count
    return counts


def _records(path: Path) -> int:
    """Records of a JSON Lines, CSV or JSON file.

    Raises UserError where it has none or is no JSON.
    """
    with open(path, encoding="utf-8", newline="\n" if path.suffix == ".jsonl" else "") as stream:
        match path.suffix:
            case ".jsonl":
                count = sum(1 for line in stream if line.strip())
            case ".csv":
                count = sum(1 for row in csv.reader(stream) if row)
            case _:
                try:
                    count = len(json.load(stream))
                except json.JSONDecodeError as error:
                    raise UserError(f"{path} is not JSON: {error}.") from error
    if not count:
        raise UserError(f"{path} is empty.")
    return count
