"""The dataset card of a version: what it holds, where that comes from, whose terms apply, what is known to be weak."""

from dataclasses import dataclass
from typing import Any

from middo.versions import SEED, iteration_of

NOT_GIVEN = "not given in the config (`licenses`)"


@dataclass(frozen=True)
class Facts:
    """What a card says of a version. `near_copies` and `leaks` are numbers of new rows, None for the seed."""

    experiment: str
    version: str
    manifest: dict[str, Any]
    licenses: dict[str, str | None]
    near_copies: int | None
    leaks: int | None

    @property
    def iteration(self) -> int:
        return iteration_of(self.version)

    @property
    def source(self) -> str:
        """Path of the file that the seed was imported from."""
        return self.manifest["source"]["path"] if self.is_seed else self.manifest["settings"]["dataset"]["path"]

    @property
    def is_seed(self) -> bool:
        return self.version == SEED

    @property
    def teacher_models(self) -> list[str]:
        """The teacher as it called itself in its replies; none for the seed."""
        return [] if self.is_seed else self.manifest["teacher"]["teacher_models"]


def title(facts: Facts) -> str:
    """A name for people and for the hub."""
    return f"{facts.experiment}-{facts.version.replace('/', '-')}"


def describe(facts: Facts) -> str:
    """One paragraph: what the version is and how it came to be."""
    if facts.is_seed:
        return f"The seed dataset {facts.source} of the experiment {facts.experiment}, as it was imported."
    axes = ", ".join(facts.manifest["settings"]["strategy"]["axes"]) or "by nothing, for comparison"
    axes += ", but as many rows were drawn at random" if facts.manifest["settings"]["like"] else ""
    return (
        f"Instruction tuning data, version {facts.iteration} of a dataset that began as {facts.source}. In each "
        f"iteration {facts.manifest['base_model']['path']} was tuned on the version before, the tuned model diagnosed "
        f"it ({axes}), and a teacher model ({', '.join(facts.teacher_models) or 'which was not asked'}) rewrote what "
        "was selected: the method Middo (EMNLP 2025, arXiv:2508.21589)."
    )


def limits(facts: Facts) -> list[str]:
    """What whoever uses the rows must know."""
    known = ["Nobody has read the rows: no text was checked by people for truth, bias or personal data."]
    if facts.is_seed:
        return known
    return [
        *known,
        "Rows of another origin than seed were written by a language model. They may be wrong, and share its habits.",
        "Which rows were rewritten depends on the base model: another one would have chosen others.",
        f"{facts.near_copies} new rows of this iteration nearly repeat a row of the seed; {facts.leaks} have 13 words "
        f"in a row in common with a question of what the experiment evaluates on ({_benchmarks(facts)}). Other "
        "benchmarks were not looked at.",
    ]


def _benchmarks(facts: Facts) -> str:
    evaluation = facts.manifest["rest_of_config"]["evaluation"]
    names = evaluation["benchmarks"] + [own["name"] for own in evaluation["custom"]]
    return ", ".join(names) or "none"


def card(facts: Facts) -> str:
    """README.md of the release. Its YAML head tells `datasets` which file to load."""
    from huggingface_hub import DatasetCard, DatasetCardData

    head = DatasetCardData(
        pretty_name=title(facts),
        license="other",
        license_name="by-origin-of-the-row",
        task_categories=["text-generation"],
        size_categories=_size(facts.manifest["rows"]["total"]),
        annotations_creators=["machine-generated"],
        configs=[{"config_name": "default", "data_files": [{"split": "train", "path": "dataset.parquet"}]}],
    )
    return str(DatasetCard(f"---\n{head.to_yaml()}\n---\n\n{_body(facts)}"))


def _size(rows: int) -> str:
    bounds = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}
    return next((name for bound, name in bounds.items() if rows < bound), "1M<n<10M")


def _body(facts: Facts) -> str:
    manifest = facts.manifest
    parts = [f"# {title(facts)}", describe(facts), "## Rows", _counts(manifest["rows"]), "## Sources", *_sources(facts)]
    parts += ["## Licences", *_licenses(facts), "## Known limits", "\n".join(f"- {limit}" for limit in limits(facts))]
    parts += [
        "## Proof",
        f"`manifest.json` pins all that made these rows. SHA-256 of `dataset.jsonl`: `{manifest['dataset_sha256']}`; "
        f"of the manifest's content, and with it of every version before: `{manifest['sha256']}`. `dataset.parquet` "
        "holds the same rows in the same order, `croissant.json` describes both.",
    ]
    return "\n\n".join(parts) + "\n"


def _counts(rows: dict[str, int]) -> str:
    lines = [f"| {name} | {count} |" for name, count in rows.items() if name != "total" and count]
    return "\n".join(["| origin | rows |", "|---|---|", *lines, f"| all | {rows['total']} |"])


def _sources(facts: Facts) -> list[str]:
    if facts.is_seed:
        source = facts.manifest["source"]
        return [f"`{source['path']}` (SHA-256 `{source['sha256']}`); {source['rejected']} of its rows were left out."]
    asked = facts.manifest["teacher"]
    lost = sum(sum(found["rejected"].values()) for found in asked["rows"].values())
    settings = facts.manifest["settings"]["teacher"]
    return [
        f"Seed rows: `{facts.source}`. New rows: {settings['model']}, asked with temperature {settings['temperature']} "
        f"and top_p {settings['top_p']} by the prompts that stand in `manifest.json`; in this iteration "
        f"{asked['requests']} requests, {lost} rows given up.",
    ]


def _licenses(facts: Facts) -> list[str]:
    stated = [f"- seed rows, and what the new rows keep of them: {facts.licenses['seed'] or NOT_GIVEN}"]
    if not facts.is_seed:
        stated.append(f"- what the teacher wrote: {facts.licenses['teacher'] or NOT_GIVEN}")
    return ["\n".join(stated)]
