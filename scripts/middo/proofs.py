"""That a version follows from the one before it: computed again from the recorded values, not by the steps' own code.

What is shared with the steps is only how files, prompts and replies are read. Everything else (which rows a threshold
selects, what is kept, replaced and added) is worked out here another way.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from middo.alpaca import read_alpaca
from middo.files import canonical_json, read_jsonl, sha256_file
from middo.lineage import DROPPED_BY, MADE_FROM, Fault, StoredAnswers, Version
from middo.rows import FIELDS
from middo.teacher_proof import prove_teacher

# axis: column that it selects by, signals, +1 where they must lie above τ, origin of the new row.
AXES = {
    "complexity": ("hard", ("loss_pre", "loss_post"), 1, "simplified"),
    "quality": ("low", ("quality",), -1, "improved"),
    "diversity": ("sparse", ("diversity",), -1, "extended"),
}
# Columns of the table: what has become of the seed rows, and what the teacher made, or could not.
COUNTS = ("seed kept", "seed replaced", "new", "rejected")
TEXTS = ("instruction", "input", "output")
ORIGINS = ("seed", *(origin for _, _, _, origin in AXES.values()))
# μ, σ and τ are summed up in another order here.
TOLERANCE = 1e-9


@dataclass(frozen=True)
class Fates:
    """What has become of each seed row by a version: `kept`, or the version in which it was replaced."""

    of: dict[str, str]
    added: int
    rejected: int

    @classmethod
    def of_seed(cls, seed: Version) -> "Fates":
        """All kept; what was rejected is what the import left out of the source file."""
        return cls(dict.fromkeys(seed.rows, "kept"), 0, seed.manifest["source"]["rejected"])

    def following(self, version: Version) -> "Fates":
        """The fates after `version`, by the new rows that it names as replacements; `?` where a row just vanished."""
        replaced = {row["parents"][0] for row in version.new if row["origin"] != "extended"}
        fates = {}
        for identity, fate in self.of.items():
            gone = version.name if identity in replaced else "?"
            fates[identity] = fate if fate != "kept" else "kept" if identity in version.rows else gone
        return Fates(fates, len(version.new), len(version.rejected) + len(version.dropped))

    def counts(self) -> dict[str, int]:
        """Numbers for the table."""
        kept = sum(fate == "kept" for fate in self.of.values())
        replaced = sum(fate not in ("kept", "?") for fate in self.of.values())
        return dict(zip(COUNTS, (kept, replaced, self.added, self.rejected), strict=True))


def prove_seed(seed: Version, notes: list[str]) -> Iterator[Fault]:
    """Every row is a seed row, its id that of its content; the source file holds these rows, in this order."""
    dataset = str(seed.folder / "dataset.jsonl")
    seen: Counter = Counter()
    for identity, row in seed.rows.items():
        digest = content_sha256(row)
        if identity != f"{digest}-{seen[digest]}":
            yield Fault(f"{dataset}, row {identity}", "its id is not that of its content")
        if sorted(row) != sorted(FIELDS) or (row["origin"], row["parents"], row["iteration"]) != ("seed", [], 0):
            yield Fault(f"{dataset}, row {identity}", "is no seed row")
        seen[digest] += 1
    yield from prove_counts(seed)
    rejects = read_jsonl(seed.folder / "rejects.jsonl")
    if len(rejects) != seed.manifest["source"]["rejected"] or not all(line["reason"] for line in rejects):
        yield Fault(str(seed.folder / "rejects.jsonl"), "does not give a reason for each row that the import rejected")
    # Paths in a config start where results/ lies.
    source = seed.folder.resolve().parents[2] / seed.manifest["source"]["path"]
    if not source.is_file():
        notes.append(f"{source}: the seed file is no longer there; what was imported from it is proven from here on")
    elif sha256_file(source) != seed.manifest["source"]["sha256"]:
        yield Fault(str(source), f"is not the file any more that {dataset} was imported from")
    else:
        drop = seed.manifest["settings"]["on_invalid"] == "drop"
        parsed, left_out = read_alpaca(source, drop_empty=drop)
        if [row.texts for row in parsed] != [{key: row[key] for key in TEXTS} for row in seed.rows.values()]:
            yield Fault(dataset, f"does not hold the rows of {source}")
        if left_out != rejects:
            yield Fault(str(seed.folder / "rejects.jsonl"), f"is not what was left out of {source}")


def content_sha256(row: dict[str, Any]) -> str:
    """The part of an id that says what the row is."""
    content = canonical_json({key: value for key, value in row.items() if key not in ("id", "requests")})
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def prove_counts(version: Version) -> Iterator[Fault]:
    """The manifest counts the rows that there are."""
    counted = Counter(row["origin"] for row in version.rows.values())
    expected = {"total": len(version.rows), **{o: counted[o] for o in ORIGINS}}
    if version.manifest["rows"] != expected:
        yield Fault(str(version.folder / "manifest.json"), f"`rows` is not what was counted: {expected}")


def prove_made(version: Version, earlier: Version, fates: Fates, answers: StoredAnswers) -> Iterator[Fault]:
    """Selection, teacher's answers and rows of a version that is not the seed."""
    yield from prove_manifest(version)
    yield from prove_counts(version)
    yield from prove_selection(version, earlier)
    yield from prove_rows(version, earlier, fates)
    yield from prove_teacher(version, earlier, answers)


def prove_manifest(version: Version) -> Iterator[Fault]:
    """What the manifest repeats is what the files say; the settings are those of this strategy."""
    axes = version.selection_report["axes"]
    settings = version.manifest["settings"]
    lists = [file for setting, file in DROPPED_BY.items() if settings["new_rows"][setting] == "drop"]
    for key, said, actual in (
        ("settings.m", settings["m"], {axis: found["m"] for axis, found in axes.items()}),
        ("settings.strategy.name", settings["strategy"]["name"], version.name.partition("/")[0]),
        ("settings.strategy.axes", sorted(settings["strategy"]["axes"]), sorted(axes)),
        ("thresholds", version.manifest["thresholds"], {axis: found["thresholds"] for axis, found in axes.items()}),
        ("teacher", version.manifest["teacher"], version.refine_report),
        ("dropped", version.manifest["dropped"], dict(Counter(version.dropped.values()))),
        ("made_from", sorted(version.manifest["made_from"]), sorted([*MADE_FROM, *lists])),
    ):
        if said != actual:
            yield Fault(str(version.folder / "manifest.json"), f"`{key}` is not what the version's files say")
    foreign = version.dropped.keys() - {row["id"] for row in version.refined}
    for identity in sorted(foreign):
        yield Fault(str(version.folder / "refined.jsonl"), f"does not hold row {identity}, which was left out again")


def prove_selection(version: Version, earlier: Version) -> Iterator[Fault]:
    """Each row's flags follow from its recorded signals and the recorded thresholds, and those from all signals."""
    table, report = str(version.folder / "selection.parquet"), str(version.folder / "selection.json")
    selection, said = version.selection, version.selection_report
    if selection["id"].to_list() != list(earlier.rows):
        yield Fault(table, f"does not hold the ids of {earlier.name}, in their order, once each")
        return
    union = np.zeros(selection.height, dtype=bool)
    for axis, (column, signals, sign, _) in AXES.items():
        flags = selection[column].to_numpy()
        chosen = np.full(selection.height, axis in said["axes"])
        if "drawn" in said["axes"].get(axis, {}):
            chosen, signals = _drawn(selection["id"].to_list(), axis, said["axes"][axis]), ()
        missing = np.zeros(selection.height, dtype=bool)
        for name in signals if axis in said["axes"] else ():
            values = np.array([np.nan if value is None else value for value in selection[name].to_list()])
            limits, m = said["axes"][axis]["thresholds"][name], said["axes"][axis]["m"]
            mu, sigma = float(np.nanmean(values)), float(np.nanstd(values))
            computed = {"mu": mu, "sigma": sigma, "tau": mu + m * sigma}
            for key, value in computed.items():
                if abs(limits[key] - value) > TOLERANCE * max(1.0, abs(value)):
                    yield Fault(report, f"{key} of {name} is {limits[key]}, computed from {table} it is {value}")
            chosen &= sign * values > sign * limits["tau"]
            missing |= np.isnan(values)
        for place in np.flatnonzero(flags != chosen):
            yield Fault(f"{table}, row {selection['id'][int(place)]}", f"`{column}` is not what signal and τ say")
        union |= chosen
        numbers = {"selected": int(chosen.sum()), "without_signal": int(missing.sum()), "share": float(chosen.mean())}
        if axis in said["axes"] and any(said["axes"][axis][key] != number for key, number in numbers.items()):
            yield Fault(report, f"{axis}: not what was counted: {numbers}")
    if (said["rows"], said["selected"]) != (selection.height, int(union.sum())):
        yield Fault(report, f"not what was counted: {selection.height} rows, {int(union.sum())} selected")


def _drawn(ids: list[str], axis: str, said: dict[str, Any]) -> np.ndarray:
    """The rows of a random draw: those whose hash with what it depends on comes first."""
    hashes = np.array([hashlib.sha256(f"{said['drawn']} {axis} {identity}".encode()).hexdigest() for identity in ids])
    return hashes <= np.sort(hashes)[said["selected"] - 1] if said["selected"] else np.zeros(len(ids), dtype=bool)


def expected_actions(version: Version) -> list[tuple[str, str]]:
    """(id, origin) of every new row that the selection calls for."""
    first = version.manifest["settings"]["overlap"] == "complexity_first"
    flags = version.selection.select("id", "hard", "low", "sparse").iter_rows(named=True)
    return [
        (row["id"], origin)
        for row in flags
        for column, _, _, origin in AXES.values()
        if row[column] and not (first and origin == "improved" and row["hard"])
    ]


def prove_rows(version: Version, earlier: Version, fates: Fates) -> Iterator[Fault]:
    """Every row of the predecessor is kept as it was or replaced by a new one; every other row is a refined one."""
    refined = {row["id"]: {k: v for k, v in row.items() if k != "requests"} for row in version.new}
    replaced = {row["parents"][0] for row in refined.values() if row["origin"] != "extended"}
    dataset, here = str(version.folder / "dataset.jsonl"), version.rows
    ended = [(row["parents"][0], row["origin"]) for row in version.refined]
    ended += [(line["id"], line["origin"]) for line in version.rejected]
    asked, ended = Counter(expected_actions(version)), Counter(ended)
    for identity, origin in asked - ended:
        yield Fault(f"{dataset}, row {identity}", f"was selected, but neither {origin} nor rejected")
    for identity, origin in ended - asked:
        yield Fault(f"{dataset}, row {identity}", f"was {origin} without being selected for it, or twice")
    for identity, row in earlier.rows.items():
        if identity in replaced and identity in here:
            yield Fault(f"{dataset}, row {identity}", "was replaced, and is still there")
        elif identity not in replaced and identity not in here:
            yield Fault(f"{dataset}, row {identity}", f"of {earlier.name} is gone, and no row has replaced it")
        elif identity in here and here[identity] != row:
            yield Fault(f"{dataset}, row {identity}", f"is not what it was in {earlier.name}")
    for identity, row in here.items():
        if identity not in earlier.rows and row != refined.get(identity):
            yield Fault(f"{dataset}, row {identity}", f"is neither in {earlier.name} nor, as it is, in refined.jsonl")
    if [i for i in earlier.rows if i not in replaced] + list(refined) != list(here):
        yield Fault(dataset, "does not hold the kept rows in their order, and then each refined row once")
    for identity, row in refined.items():
        if identity.rpartition("-")[0] != content_sha256(row) or row["iteration"] != version.iteration:
            yield Fault(f"{dataset}, row {identity}", "its id or its iteration is not its own")
        for parent in row["parents"]:
            if parent not in earlier.rows:
                yield Fault(f"{dataset}, row {identity}", f"its parent {parent} is not in {earlier.name}")
    for identity, fate in fates.of.items():
        if fate == "?" or (fate != "kept") == (identity in here):
            yield Fault(f"{dataset}, row {identity}", "of the seed is not exactly one of kept and replaced")
