"""The program that trains: LLaMA-Factory's own launcher and training, and a state is saved when a signal asks to stop.

    python scripts/middo/trainer.py options.yaml

With FORCE_TORCHRUN in the environment LLaMA-Factory's launcher starts torchrun, which starts this file as worker, once
per process; otherwise this process trains alone. As a task of an srun step over NNODES nodes it finds the other nodes
by what Slurm says of the step.

SIGTERM, and SIGUSR1, which unlike SIGTERM srun passes on instead of killing its tasks: training ends after the step
that is under way, with its whole state saved and exit status 143; before the first step at once. Signals may reach any
of the processes, in any order, once or often: launcher and torchrun leave them to the workers.

Needs PYTHONSAFEPATH=1, since modules in this file's folder bear names of libraries.
"""

import os
import signal
import subprocess
import sys

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
STOPPED = 128 + signal.SIGTERM


def main() -> None:
    """Launch torchrun, or be the process that trains."""
    if "FORCE_TORCHRUN" in os.environ and "LOCAL_RANK" not in os.environ:
        launch()
    else:
        train()


def launch() -> None:
    """Run torchrun on this node to its end and exit with its status, or STOPPED where a signal to stop has come.

    The signals stay blocked, in torchrun too, which would kill its workers after 30 s: no time to save a state.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    if int(os.environ["NNODES"]) > 1:
        os.environ |= slurm_rendezvous()
    from llamafactory import launcher

    # The script that it gives to torchrun. Relative, since it splits its command line at spaces.
    launcher.__file__ = os.path.relpath(__file__)
    sys.argv.insert(1, "train")
    try:
        launcher.launch()
    except subprocess.CalledProcessError as error:
        sys.exit(STOPPED if signal.sigpending() & set(SIGNALS) else error.returncode)


def slurm_rendezvous() -> dict[str, str]:
    """Where the processes of this Slurm step meet: on its first node, at a port of this job's own."""
    first = _scontrol("show", "hostnames", os.environ["SLURM_STEP_NODELIST"]).split()[0]
    # The address by which Slurm itself reaches the node; its name need not resolve.
    facts = dict(part.partition("=")[::2] for part in _scontrol("show", "node", first).split())
    return {
        "NODE_RANK": os.environ["SLURM_NODEID"],
        "MASTER_ADDR": facts["NodeAddr"],
        "MASTER_PORT": str(10000 + int(os.environ["SLURM_JOB_ID"]) % 20000),
    }


def _scontrol(*arguments: str) -> str:
    return subprocess.run(["scontrol", *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


def train() -> None:
    """Train as LLaMA-Factory does, with SaveOnSignal."""
    # Blocked by the launcher; until training begins they end this process.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    import torch
    import torch.distributed as dist
    from llamafactory.train.tuner import run_exp
    from transformers import TrainerCallback

    class SaveOnSignal(TrainerCallback):
        """Ends the training with a saved state at the end of the step in which a signal came to any process."""

        asked = stopping = False

        def on_train_begin(self, args, state, control, **_):
            for kind in SIGNALS:
                signal.signal(kind, self._ask)
            # A signal to all processes must not end a data loader's worker, which would end its trainer by an error.
            os.register_at_fork(after_in_child=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS))

        def _ask(self, *_):
            self.asked = True

        def on_step_end(self, args, state, control, **_):
            asked = torch.tensor(int(self.asked), device=args.device)
            if args.world_size > 1:
                dist.all_reduce(asked, dist.ReduceOp.MAX)
            if asked.item():
                self.stopping = control.should_save = control.should_training_stop = True

        def on_save(self, args, state, control, **_):
            if not self.stopping:
                return
            if args.world_size > 1:
                # Torchrun kills the others when the first ends, and rank 0 writes last.
                args.distributed_state.wait_for_everyone()
            _end(STOPPED)

    # Resuming several processes on a CPU, transformers 4.57.6 asks for the optimizer's state on "cpu:0", "cpu:1", …
    torch.serialization.register_package(
        15, lambda storage: None, lambda storage, location: storage if location.startswith("cpu:") else None
    )
    run_exp(callbacks=[SaveOnSignal()])
    _end(0)


def _end(status: int) -> None:
    """End this process, whose work is done, as it is: while Python takes itself down, a thread of torch's now and then
    aborts it ("terminate called without an active exception"), and a training that was whole would count as failed."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
