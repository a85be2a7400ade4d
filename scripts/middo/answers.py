"""The durable store of answered teacher requests, so that no question is ever paid for twice.

One JSON object a line, appended and never changed: {key, request, response, sha256}. `key` is the SHA-256 of the
request, which is everything that was asked (endpoint, model, messages, sampling settings, attempt); `sha256` is that
of the response. A run writes to one file of its own and looks answers up in every *.jsonl under the store's root.
"""

import json
import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from middo.files import canonical_json, sha256_json, sync_folder
from middo.lock import hold
from middo.program import UserError, say
from middo.replies import tokens_counted


def encode_record(request: dict[str, Any], response: Any) -> bytes:
    """The store's line for one answered request.

    Raises ValueError where the response holds a number that JSON does not know.
    """
    record = {
        "key": sha256_json(request),
        "request": request,
        "response": response,
        "sha256": sha256_json(response),
    }
    return _line(record)


def decode_record(line: bytes) -> dict[str, Any]:
    """The record of one line. Raises ValueError unless the line is, byte for byte, what encode_record makes of it."""
    record = json.loads(line)
    if line != encode_record(record["request"], record["response"]):
        raise ValueError("key or sha256 do not fit what stands beside them")
    return record


def _line(record: dict[str, Any]) -> bytes:
    try:
        return canonical_json(record).encode() + b"\n"
    except UnicodeEncodeError:
        # A lone surrogate in a reply has no UTF-8 form; escaped it survives.
        return json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False).encode() + b"\n"


class Answers:
    """Answers by key. Only where they lie is kept in memory, so that a large store costs little."""

    def __init__(self, own: Path, root: Path) -> None:
        """Index every answer under `root`, and in `own`, the file that new answers go to.

        Raises UserError where a line is broken.
        """
        self.own, self.root = Path(own).resolve(), Path(root).resolve()
        self._places: dict[str, tuple[Path, int, int]] = {}
        self._read_to: dict[Path, int] = {}
        self._torn: set[Path] = set()
        self._spent: defaultdict[Path, Counter] = defaultdict(Counter)
        self._descriptor: int | None = None
        self.refresh()

    def __len__(self) -> int:
        return len(self._places)

    def get(self, key: str) -> Any | None:
        """The response stored under `key`, or None."""
        if key not in self._places:
            return None
        path, offset, length = self._places[key]
        with open(path, "rb") as stream:
            stream.seek(offset)
            return json.loads(stream.read(length))["response"]

    @property
    def spent(self) -> Counter:
        """What the experiment of `own` has asked for so far: requests, prompt and completion tokens, and how many of
        the requests are uncounted, because the endpoint did not say their tokens."""
        return self._spent[self._experiment(self.own)]

    def _experiment(self, path: Path) -> Path:
        """The folder of all answers of an experiment, the first below the root."""
        return self.root / path.relative_to(self.root).parts[0] if path.is_relative_to(self.root) else path

    def refresh(self) -> None:
        """Index what was appended since the last look. A torn last line does not count."""
        for path in sorted({*self.root.rglob("*.jsonl"), *([self.own] if self.own.exists() else [])}):
            self._index(path)

    def _index(self, path: Path) -> None:
        offset = self._read_to.setdefault(path, 0)
        with open(path, "rb") as stream:
            stream.seek(offset)
            for line in stream:
                if not line.endswith(b"\n"):
                    self._tell_torn(path)
                    break
                try:
                    record = decode_record(line)
                except (ValueError, KeyError, TypeError, RecursionError) as error:
                    raise UserError(
                        f"{path}, line {_line_number(path, offset)}: this stored answer is broken ({error}). "
                        "Put the file back as it was; if that cannot be done, remove the line, and what it "
                        "answered is asked again."
                    ) from error
                self._place(path, line, record)
                offset += len(line)

    def _place(self, path: Path, line: bytes, record: dict[str, Any]) -> None:
        """Note where a record lies, behind those of the file that are known."""
        offset = self._read_to[path]
        self._places.setdefault(record["key"], (path, offset, len(line)))
        self._read_to[path] = offset + len(line)
        self._spent[self._experiment(path)].update(requests=1, **tokens_counted(record["response"]))

    def _tell_torn(self, path: Path) -> None:
        if path not in self._torn:
            say(f"{path}: the last answer was cut off while it was written; it does not count")
        self._torn.add(path)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the store for writing. Raises UserError where another run holds this run's file.

        Runs with files of their own take turns: asked at the same time, the same question would be paid for twice.
        """
        self.own.parent.mkdir(parents=True, exist_ok=True)
        self.root.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            stack.enter_context(hold(self.own.with_name(f"{self.own.name}.lock"), str(self.own)))
            stack.enter_context(hold(self.root / ".lock", str(self.root), math.inf))
            self._descriptor = os.open(self.own, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            sync_folder(self.own.parent)
            try:
                self.refresh()
                os.ftruncate(self._descriptor, self._read_to[self.own])
                yield
            finally:
                os.close(self._descriptor)
                self._descriptor = None

    def add(self, lines: list[bytes]) -> None:
        """Append records (encode_record); when this returns they are on disk. Raises what `write` raises."""
        self.write(lines)
        self.note(lines)

    def write(self, lines: list[bytes]) -> None:
        """The slow half of `add`, which may run in a thread: append, and wait for the disk.

        Raises UserError where that fails; the file is then as it was before.
        """
        left = memoryview(b"".join(lines))
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
            os.fsync(self._descriptor)
        except OSError as error:
            os.ftruncate(self._descriptor, self._read_to[self.own])
            raise UserError(
                f"{self.own}: an answer could not be stored: {error.strerror}. "
                "All earlier answers are safe; mend this and start again."
            ) from error

    def note(self, lines: list[bytes]) -> None:
        """The other half: from now on these records are found, and count as spent."""
        for line in lines:
            self._place(self.own, line, json.loads(line))


def _line_number(path: Path, offset: int) -> int:
    with open(path, "rb") as stream:
        return stream.read(offset).count(b"\n") + 1
