"""A real Slurm on this machine: controller, two nodes that run jobs, two large ones that never answer.

For tests, as root on Debian, without systemd; installs slurm-wlm and munge where they are missing. By hand:

    python tests/slurm/cluster.py up
    python tests/slurm/cluster.py down
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

PACKAGES = ["slurm-wlm", "munge"]
CONFIG = Path("/etc/slurm")
STATE = Path("/var/lib/slurm-toy")
NODES = ["node1", "node2"]
# Nothing runs there: they only make it possible to ask for what an 8B model needs.
LARGE = ["large1", "large2"]


def why_not() -> str | None:
    """Why no cluster can be brought up here, None where it can."""
    if os.geteuid() != 0:
        return "only root can start a Slurm cluster"
    if not Path("/etc/debian_version").is_file() or not shutil.which("apt-get"):
        return "the packages of Slurm are installed with apt-get, on Debian"
    config = CONFIG / "slurm.conf"
    if config.is_file() and "ClusterName=toy" not in config.read_text():
        return f"{config} belongs to a cluster that is not a toy"
    return None


def up() -> None:
    """Install what is missing, stop an older toy, start controller and nodes, wait until both nodes are idle."""
    _install()
    down()
    shutil.rmtree(STATE, ignore_errors=True)
    (STATE / "controller").mkdir(parents=True)
    for gpu in range(8):
        # A device that Slurm can count; nothing opens it.
        (STATE / f"gpu{gpu}").touch()
    CONFIG.mkdir(exist_ok=True)
    (CONFIG / "slurm.conf").write_text(_slurm_conf())
    (CONFIG / "gres.conf").write_text(_gres_conf())
    if not _running("munged"):
        _start_munge()
    _run("slurmctld", "-i")
    for node in NODES:
        start_node(node)
    _wait(lambda: [state_of(node) for node in NODES] == ["idle", "idle"], "both nodes are idle")


def down() -> None:
    """Stop the cluster and what runs on it; take its configuration away."""
    if _running("slurmctld") and (CONFIG / "slurm.conf").is_file():
        subprocess.run(["scancel", "--user=root"], capture_output=True)
        time.sleep(1)
    for daemon in ("slurmstepd", "slurmd", "slurmctld"):
        subprocess.run(["pkill", "-KILL" if daemon == "slurmstepd" else "-TERM", "-x", daemon])
    _wait(lambda: not any(map(_running, ("slurmd", "slurmctld"))), "the daemons have ended")
    if why_not() is None:
        # With it, every start of Snakemake would wait some nine seconds for a controller that does not answer.
        for name in ("slurm.conf", "gres.conf"):
            (CONFIG / name).unlink(missing_ok=True)


def start_node(node: str) -> None:
    """Start the daemon of one node."""
    (STATE / node).mkdir(exist_ok=True)
    _run("slurmd", "-N", node)


def state_of(node: str) -> str:
    """Slurm's word for a node's state: idle, mixed, allocated, down, …"""
    return _run("sinfo", "--noheader", "--partition=cpu", f"--nodes={node}", "--format=%T").strip().rstrip("*")


def _install() -> None:
    missing = [p for p in PACKAGES if subprocess.run(["dpkg", "-s", p], capture_output=True).returncode]
    if missing:
        quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        _run("apt-get", "update", "-qq", env=quiet)
        _run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing, env=quiet)


def _start_munge() -> None:
    for folder in ("/run/munge", "/var/log/munge", "/var/lib/munge"):
        Path(folder).mkdir(exist_ok=True)
        shutil.chown(folder, "munge", "munge")
    Path("/run/munge").chmod(0o755)
    if not Path("/etc/munge/munge.key").is_file():
        _run("mungekey", "--create")
        shutil.chown("/etc/munge/munge.key", "munge", "munge")
    _run("runuser", "-u", "munge", "--", "munged", "--force")


def _slurm_conf() -> str:
    host = socket.gethostname().split(".")[0]
    nodes = [
        f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2 RealMemory=9000 Gres=gpu:2"
        for port, name in enumerate(NODES, start=17001)
    ]
    nodes += [
        f"NodeName={name} NodeHostname={name} NodeAddr=127.0.0.1 Port={port} CPUs=64 RealMemory=1000000 Gres=gpu:8"
        " State=DOWN"
        for port, name in enumerate(LARGE, start=17101)
    ]
    everywhere = ",".join(NODES + LARGE)
    return "\n".join(
        [
            "ClusterName=toy",
            f"SlurmctldHost={host}(127.0.0.1)",
            "SlurmUser=root",
            "SlurmdUser=root",
            "AuthType=auth/munge",
            "MpiDefault=none",
            "ProctrackType=proctrack/linuxproc",
            "TaskPlugin=task/none",
            "SelectType=select/cons_tres",
            "SelectTypeParameters=CR_Core_Memory",
            "SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2,sched_min_interval=0",
            # Nodes may claim more than the machine has.
            "SlurmdParameters=config_overrides",
            # A node that was set down stays down until a test says otherwise.
            "ReturnToService=0",
            "MinJobAge=600",
            "KillWait=5",
            # What a real cluster's cgroups do: a job above its memory is killed.
            "JobAcctGatherType=jobacct_gather/linux",
            "JobAcctGatherFrequency=2",
            "JobAcctGatherParams=OverMemoryKill",
            "AccountingStorageType=accounting_storage/none",
            "PreemptType=preempt/partition_prio",
            "PreemptMode=REQUEUE",
            "GresTypes=gpu",
            f"SlurmctldPidFile={STATE}/slurmctld.pid",
            f"SlurmdPidFile={STATE}/%n.pid",
            f"SlurmdSpoolDir={STATE}/%n",
            f"StateSaveLocation={STATE}/controller",
            f"SlurmctldLogFile={STATE}/slurmctld.log",
            f"SlurmdLogFile={STATE}/%n.log",
            *nodes,
            f"PartitionName=cpu Nodes={','.join(NODES)} Default=YES State=UP",
            f"PartitionName=gpu Nodes={everywhere} State=UP GraceTime=60",
            f"PartitionName=urgent Nodes={','.join(NODES)} State=UP PriorityTier=10",
            "",
        ]
    )


def _gres_conf() -> str:
    lines = [f"NodeName={node} Name=gpu File={STATE}/gpu[0-{count - 1}]" for node, count in _gpus().items()]
    return "\n".join(["AutoDetect=off", *lines, ""])


def _gpus() -> dict[str, int]:
    return dict.fromkeys(NODES, 2) | dict.fromkeys(LARGE, 8)


def _running(program: str) -> bool:
    """Whether a process of that name lives; one that nobody reaps does not."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, state = re.match(r"\d+ \((.*)\) (\S)", path.read_text()).groups()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if name == program and state != "Z":
            return True
    return False


def _wait(reached, what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {seconds:.0f} s it is still not so that {what}; see {STATE}")
        time.sleep(0.2)


def _run(*command: str, **options) -> str:
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr.strip()}")
    return done.stdout


if __name__ == "__main__":
    if why_not():
        sys.exit(why_not())
    {"up": up, "down": down}[sys.argv[1]]()
