"""The frame of every program: arguments, log file, progress on the terminal, errors for people."""

import argparse
import errno
import os
import sys
import time
import traceback
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import TracebackType

# Read by Hugging Face's libraries when they are imported.
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

_terminal = sys.stderr
_label = ""


class UserError(Exception):
    """What the person who runs the workflow can mend: printed without a traceback, exit status 1."""


def parser(description: str) -> argparse.ArgumentParser:
    """An argument parser that shows the module's docstring as it stands and knows --log."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--log", type=Path, help="file for everything printed; progress still shows on the terminal")
    return made


def optional_file(made: argparse.ArgumentParser, name: str, explained: str) -> None:
    """Add an argument for a file that there may not be: a rule then gives the name without a value."""
    made.add_argument(name, nargs="?", type=Path, help=explained)


def run(
    main: Callable[[argparse.Namespace], None],
    arguments: argparse.ArgumentParser,
    environment: str,
    online: bool = False,
) -> None:
    """Check the environment, parse the arguments, send output to --log, run `main`, turn errors into exit status 1.

    Without `online` nothing is asked of the Hugging Face hub, by this process or by its children.
    """
    args = arguments.parse_args()
    if not online:
        os.environ.update(OFFLINE)
    if args.log:
        _redirect(args.log)
    sys.excepthook = _show_crash
    try:
        from middo.environment import require_environment

        require_environment(environment)
        main(args)
    except UserError as error:
        say(f"error: {error}")
        sys.exit(1)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        where = f"{error.filename}: " if error.filename else ""
        say(f"error: {where}{error.strerror}. Make room and start again; what was finished is kept.")
        sys.exit(1)


def _show_crash(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """What nobody foresaw: the whole traceback, on the terminal too; Python then exits with status 1."""
    if issubclass(kind, KeyboardInterrupt):
        say("interrupted; what was finished is kept")
        return
    say("unexpected error:\n" + "".join(traceback.format_exception(kind, error, trace)))


def say(message: str) -> None:
    """One line for the person who watches; it stands in the log too."""
    line = f"[{_label}] {message}" if _label else message
    print(line, file=_terminal, flush=True)
    if _terminal is not sys.stderr:
        _print_to_log(line)


def _print_to_log(line: str) -> None:
    global _terminal
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError as error:
        # The disk of the log is full. From now on everything goes to the terminal, that of children too.
        for descriptor in (1, 2):
            os.dup2(_terminal.fileno(), descriptor)
        _terminal = sys.stderr
        say(f"the log cannot be written: {error.strerror}")


def _redirect(log: Path) -> None:
    """Send this process's output and its children's to `log` (file descriptors, not only sys.stdout)."""
    global _terminal, _label
    log.parent.mkdir(parents=True, exist_ok=True)
    _terminal = os.fdopen(os.dup(2), "w", buffering=1, encoding="utf-8", errors="backslashreplace")
    _label = " ".join(part for part in log.with_suffix("").parts[1:] if part != "logs")
    sys.stdout.flush()
    sys.stderr.flush()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    _print_to_log(f"--- {datetime.now().isoformat(timespec='seconds')} {' '.join(sys.argv[:1])}")


class Progress:
    """Prints how far a step is, at most every `every` seconds: `120 of 400 rows (30 %), about 12 s left`."""

    def __init__(self, total: int, unit: str = "rows", done: int = 0, every: float = 5.0) -> None:
        self.total, self.unit, self.every = total, unit, every
        self.first, self.done = done, done
        self.started = self.printed = time.monotonic()

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count `count` more units as done; print where `every` seconds have passed or all is done."""
        self.done += count
        now = time.monotonic()
        if self.done < self.total and now - self.printed < self.every:
            return
        self.printed = now
        rate = (self.done - self.first) / max(now - self.started, 1e-9)
        left = f"about {(self.total - self.done) / rate:.0f} s left" if self.done < self.total and rate else "done"
        share = 100 * self.done / max(self.total, 1)
        say(f"{self.done} of {self.total} {self.unit} ({share:.0f} %), {left}{', ' + note if note else ''}")
