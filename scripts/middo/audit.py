"""The audit of an experiment: first that every file's bytes are those that its manifest names, then that each version
follows from the one before it (`middo.proofs`), back to the seed file.

A version is proven only where its own bytes and those of its predecessor are intact: what is found in changed files
says nothing. Nothing is proven against someone who writes every file, manifest and answer anew so that all fit again;
who wants to exclude that keeps the last manifest's `sha256`, which covers all before it, in another place.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from middo.files import sha256_file, sha256_json
from middo.lineage import MADE_FROM, SEED_MADE_FROM, Fault, StoredAnswers, Version, load_version, version_names
from middo.manifest import own_sha256
from middo.program import UserError
from middo.proofs import COUNTS, Fates, prove_made, prove_seed
from middo.versions import SEED, predecessor

# What a file or a field that nobody expected may raise.
UNREADABLE = (
    OSError,
    KeyError,
    IndexError,
    TypeError,
    ValueError,
    AttributeError,
    pl.exceptions.PolarsError,
    UserError,
)


@dataclass
class Audit:
    """What was found: a line of the table per version, everything that is wrong, and what is only worth knowing."""

    lines: list[dict[str, Any]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def audit(results: Path, answers_root: Path) -> Audit:
    """Check every version in `results` and every line of every stored answer under `answers_root`."""
    found = Audit()
    answers = StoredAnswers(answers_root)
    found.faults += answers.faults
    found.notes += answers.notes
    proven: dict[str, tuple[Version, Fates]] = {}
    for name in version_names(results):
        made = any((results / name / file).exists() for file in ("dataset.jsonl", "manifest.json"))
        if not made and name != SEED:
            found.notes.append(f"{results / name}: not finished, and so not a version")
            continue
        version, faults = check_bytes(results, name)
        found.faults += faults
        line = {"version": name, "rows": None, **dict.fromkeys(COUNTS), "manifest": None, "result": "changed"}
        found.lines.append(line)
        if version is None:
            continue
        line |= {"rows": len(version.rows), "manifest": version.manifest["sha256"][:16]}
        _prove(found, line, version, proven, answers)
    return found


def _prove(
    found: Audit,
    line: dict[str, Any],
    version: Version,
    proven: dict[str, tuple[Version, Fates]],
    answers: StoredAnswers,
) -> None:
    """Prove one version whose bytes are intact; complete its line of the table."""
    where, faults = str(version.folder), []
    try:
        if version.name == SEED:
            fates = Fates.of_seed(version)
            faults += _all(where, lambda: prove_seed(version, found.notes))
        elif (earlier := predecessor(version.name)) in proven:
            made_from, fates = proven[earlier]
            fates = fates.following(version)
            faults += _all(where, lambda: prove_made(version, made_from, fates, answers))
        else:
            line["result"] = "not proven"
            found.faults.append(Fault(where, f"cannot be proven, because {earlier} is not there, or changed"))
            return
    except UNREADABLE as error:
        line["result"] = "not proven"
        found.faults.append(Fault(where, f"has not the form that it must have: {_said(error)}"))
        return
    proven[version.name] = (version, fates)
    found.faults += faults
    line |= fates.counts() | {"result": f"{len(faults)} faults" if faults else "proven"}


def check_bytes(results: Path, name: str) -> tuple[Version | None, list[Fault]]:
    """A version, or None with what is wrong with its files: manifest.json itself, then each file that it pins."""
    folder = results / name
    manifest, faults = check_manifest(folder / "manifest.json")
    if manifest is None:
        return None, faults
    faults = list(_all(str(folder / "manifest.json"), lambda: _pinned(results, name, manifest)))
    if faults:
        return None, faults
    try:
        return load_version(results, name), []
    except UNREADABLE as error:
        return None, [Fault(str(folder), f"cannot be read although its hashes fit: {_said(error)}")]


def check_manifest(path: Path) -> tuple[dict[str, Any] | None, list[Fault]]:
    """A manifest, or None with what is wrong: it must be, byte for byte, what its own hash was taken from."""
    try:
        written = path.read_bytes()
        manifest = json.loads(written)
        own, computed = manifest["sha256"], own_sha256(manifest)
    except KeyError:
        return None, [Fault(str(path), "holds no hash of itself; was it made by an older version of this workflow?")]
    except UNREADABLE as error:
        return None, [Fault(str(path), f"cannot be read: {_said(error)}")]
    if own != computed:
        return None, [Fault(str(path), "has been changed: its content does not hash to its `sha256`")]
    canonical = json.dumps(manifest, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    if written != canonical.encode("utf-8", "surrogatepass"):
        return None, [Fault(str(path), "has been changed: it is not written as the workflow writes it")]
    return manifest, []


def _pinned(results: Path, name: str, manifest: dict[str, Any]) -> Iterator[Fault]:
    """Compare every file that a manifest pins with its hash; and the identity settings with theirs."""
    folder = results / name
    pins = {folder / "dataset.jsonl": manifest["dataset_sha256"]}
    pins |= {folder / file: manifest["made_from"].get(file) for file in SEED_MADE_FROM if name == SEED}
    if name != SEED:
        earlier = results / predecessor(name)
        pins |= {folder / file: manifest["made_from"].get(file) for file in {*MADE_FROM, *manifest["made_from"]}}
        pins[earlier / "checkpoint.sha256"] = manifest["checkpoint_sha256"]
        yield from _predecessor(folder, earlier, manifest)
        yield from _base_model(results / "base_model.sha256", folder, manifest)
    for path, pinned in pins.items():
        if not path.is_file():
            yield Fault(str(path), f"is missing; {folder / 'manifest.json'} names it")
        elif sha256_file(path) != pinned:
            yield Fault(str(path), f"has been changed: its bytes do not hash to what {folder / 'manifest.json'} says")
    if sha256_json(manifest["settings"]) != manifest["settings_sha256"]:
        yield Fault(str(folder / "manifest.json"), "the identity settings do not hash to `settings_sha256`")
    for file, prompt in manifest.get("prompts", {}).items():
        if sha256_text(prompt["text"]) != prompt["sha256"]:
            yield Fault(str(folder / "manifest.json"), f"the text of the prompt {file} does not hash to its sha256")


def sha256_text(text: str) -> str:
    """Hex SHA-256 of a text's UTF-8 bytes."""
    return hashlib.sha256(text.encode()).hexdigest()


def _predecessor(folder: Path, earlier: Path, manifest: dict[str, Any]) -> Iterator[Fault]:
    """Compare what the manifest says of its predecessor with the manifest that lies there, if that one is intact."""
    if not (earlier / "manifest.json").exists():
        yield Fault(str(earlier), f"is not there, or was never finished; {folder} was made from it")
        return
    theirs, faults = check_manifest(earlier / "manifest.json")
    if faults:
        return
    for key, actual in (
        ("predecessor_sha256", theirs["dataset_sha256"]),
        ("predecessor_manifest_sha256", sha256_file(earlier / "manifest.json")),
    ):
        if manifest[key] != actual:
            yield Fault(
                str(folder / "manifest.json"),
                f"{key} does not fit: this version was made from another {earlier.name} than lies in {earlier}. "
                "If it is left over from an earlier run, remove its folder.",
            )


def _base_model(path: Path, folder: Path, manifest: dict[str, Any]) -> Iterator[Fault]:
    if not path.is_file():
        yield Fault(str(path), f"is missing; {folder / 'manifest.json'} names the files that it lists")
        return
    listed = "".join(f"{digest}  {name}\n" for name, digest in sorted(manifest["base_model"]["files"].items()))
    if path.read_bytes() != listed.encode():
        yield Fault(str(path), f"does not list the base model's files as {folder / 'manifest.json'} does")


def _all(where: str, faults: Callable[[], Iterator[Fault]]) -> Iterator[Fault]:
    """Every fault that is found; where a file has an unforeseen form, that is the last one."""
    try:
        yield from faults()
    except UNREADABLE as error:
        yield Fault(where, f"has not the form that it must have: {_said(error)}")


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
