"""How the endpoint is reached: its key, and a teacher that runs on this machine for as long as it is asked."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from middo.child import running, safe_environment
from middo.program import UserError, say
from middo.server import free_port

# A large model takes minutes to load.
START_SECONDS = 1800.0
# The openai client wants one even where the endpoint wants none.
NO_KEY = "none"


def read_key(variable: str | None) -> str:
    """The endpoint's key from the environment; a placeholder where the endpoint wants none.

    Raises UserError where the variable is missing, empty, or no key; the value never stands in the message.
    """
    if variable is None:
        return NO_KEY
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UserError(f"The environment variable {variable} (teacher.api_key_env) is not set. Put the key there.")
    # The HTTP library would show such a value in its complaint.
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UserError(f"The environment variable {variable} holds characters that no key has. Set it again.")
    return key


@contextmanager
def served(command: list[str] | None, base_url: str, start_seconds: float = START_SECONDS) -> Iterator[str]:
    """Yield the URL of the endpoint while it runs; without a `command` it runs elsewhere, at `base_url`.

    `{port}` in both stands for a free port; `python` as the first word is this interpreter. The command sees no
    secrets of the environment and never outlives this program.
    Raises UserError with the command's last output where it does not come up, or dies before the block ends badly.
    """
    if command is None:
        yield base_url
        return
    port = str(free_port())
    words = [word.replace("{port}", port) for word in command]
    words[0] = sys.executable if words[0] == "python" else words[0]
    url = base_url.replace("{port}", port)
    environment = safe_environment()
    if shutil.which(words[0], path=environment["PATH"]) is None:
        raise UserError(f"teacher.command: there is no program {words[0]}.")
    # Appending: reading its beginning must not move the place where the command writes.
    with tempfile.TemporaryFile("a+b") as output, running(words, environment, output) as child:
        _wait_until_up(child, url, start_seconds, output)
        try:
            yield url
        except UserError as error:
            if child.poll() is None:
                raise
            raise UserError(f"{error}\n{_end(child, output)}") from error


def _wait_until_up(child: subprocess.Popen, url: str, seconds: float, output: IO) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    started = told = time.monotonic()
    while child.poll() is None and time.monotonic() - started < seconds:
        try:
            with opener.open(f"{url}/models", timeout=5):
                return
        except urllib.error.HTTPError as error:
            # Up, though it may still load its model (5xx) or list no models (404).
            if error.code < 500:
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            pass
        time.sleep(0.1)
        if time.monotonic() - told > 30:
            told = time.monotonic()
            say(f"waiting for the teacher's command to answer at {url}/models")
    if child.poll() is None:
        raise UserError(f"The teacher's command did not answer at {url}/models in {seconds:.0f} s. {_tail(output)}")
    raise UserError(_end(child, output))


def _end(child: subprocess.Popen, output: IO) -> str:
    return f"The teacher's command ended by itself with status {child.returncode}. {_tail(output)}"


def _tail(output: IO) -> str:
    output.seek(0)
    lines = output.read().decode(errors="replace").splitlines()[-20:]
    return "Its last output:\n" + "\n".join(lines) if lines else "It printed nothing."
