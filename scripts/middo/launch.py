"""How LLaMA-Factory is started: the options of its command line, its environment, and srun over several nodes."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from middo import trainer
from middo.child import safe_environment
from middo.program import UserError

# The signal that stops a training and saves its state: srun kills its tasks on SIGTERM, but passes this on.
STOP_SIGNAL = signal.SIGUSR1
# What another launcher may have left in our environment.
_FOREIGN = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "RDZV_ID", "NPROC_PER_NODE"}


def launch_options(
    training: dict[str, Any], model: str, revision: str | None, seed: int, device: str
) -> dict[str, Any]:
    """The options of `llamafactory-cli train`: the workflow's own, then the user's, then what fits the device.

    Paths of data and output are left to the caller. Raises UserError for options that need a GPU on a CPU.
    """
    defaults: dict[str, Any] = {"logging_steps": 1, "overwrite_cache": True}
    if device == "cpu":
        needs_gpu = [key for key in ("deepspeed", "enable_liger_kernel", "bf16", "fp16") if training.get(key)]
        if needs_gpu:
            raise UserError(f"training.{needs_gpu[0]}: not possible with execution.device: cpu; set it to null.")
        defaults |= {"flash_attn": "sdpa", "disable_gradient_checkpointing": True, "dataloader_pin_memory": False}
    own = {
        "model_name_or_path": model,
        "model_revision": revision or "main",
        "do_train": True,
        "dataset": "rows",
        "seed": seed,
        "report_to": "none",
        "save_strategy": "steps",
        "save_total_limit": 1,
        "save_only_model": False,
        "trust_remote_code": False,
        "use_cpu": device == "cpu",
    }
    return defaults | training | own


def launch_environment(device: str, processes: int, nodes: int) -> dict[str, str]:
    """The environment of a training with `processes` processes on each of `nodes` nodes."""
    environment = {name: value for name, value in safe_environment().items() if name not in _FOREIGN}
    environment |= {"TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1", "LLAMAFACTORY_VERBOSITY": "INFO"}
    # The trainer stands in a folder whose modules bear names of libraries.
    environment["PYTHONSAFEPATH"] = "1"
    if device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
        if processes > 1 and environment.get("OMP_NUM_THREADS", "").isdecimal():
            environment["OMP_NUM_THREADS"] = str(max(int(environment["OMP_NUM_THREADS"]) // processes, 1))
    # DeepSpeed wants torchrun for one GPU too.
    if device == "cuda" or processes * nodes > 1:
        environment |= {"FORCE_TORCHRUN": "1", "NPROC_PER_NODE": str(processes), "NNODES": str(nodes)}
    return environment


def launch_command(options: Path, nodes: int) -> list[str]:
    """The command that trains with the options of a YAML file; over several nodes as a step of this Slurm job.

    Raises UserError for several nodes outside a Slurm job.
    """
    command = [sys.executable, trainer.__file__, str(options)]
    if nodes == 1:
        return command
    if "SLURM_JOB_ID" not in os.environ:
        raise UserError(f"--nodes {nodes}: several nodes need Slurm, and this is no Slurm job; see execution.nodes.")
    step = [f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--export=ALL"]
    # One task has all of a node's CPUs; where one ends in error, the others would wait for it for ever.
    return ["srun", *step, "--cpu-bind=none", "--kill-on-bad-exit=1", *command]
