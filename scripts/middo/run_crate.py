"""A Workflow Run RO-Crate (w3id.org/ro/wfrun/workflow/0.5) of an experiment, built with ro-crate-py."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from middo.files import sha256_file
from middo.steps import Step

PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": ("Process Run Crate", "0.5"),
    "https://w3id.org/ro/wfrun/workflow/0.5": ("Workflow Run Crate", "0.5"),
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": ("Workflow RO-Crate", "1.0"),
}
SHA256 = "https://w3id.org/ro/terms/workflow-run#sha256"


def run_crate(results: Path, steps: list[Step], config: dict[str, Any]) -> Any:
    """The crate (rocrate.rocrate.ROCrate) whose root is `results`; workflow/ lies there already."""
    from rocrate.model.contextentity import ContextEntity
    from rocrate.rocrate import ROCrate

    crate = ROCrate(version="1.1")
    crate.metadata.extra_terms["sha256"] = SHA256
    crate.name = f"{config['experiment']}: a run of Middo, the closed loop of data and model"
    crate.description = (
        f"Every version of the dataset {config['dataset']['path']} that was made in this experiment, with the models "
        "tuned on it, their signals, selections and scores, and the steps that made them."
    )
    crate.license = f"Seed rows: {_stated(config, 'seed')}. What the teacher wrote: {_stated(config, 'teacher')}."
    crate.datePublished = _time(max(step.ended for step in steps))
    profiles = [
        crate.add(ContextEntity(crate, iri, {"@type": "CreativeWork", "name": name, "version": number}))
        for iri, (name, number) in PROFILES.items()
    ]
    crate.root_dataset["conformsTo"] = profiles
    workflow = _workflow(crate, results)
    files = _Files(crate, results)
    actions = [_action(crate, files, step) for step in steps]
    crate.root_dataset["mentions"] = [_whole_run(crate, files, workflow, steps), *actions]
    return crate


def _stated(config: dict[str, Any], whose: str) -> str:
    return config["licenses"][whose] or "licence not given in the config"


def _workflow(crate: Any, results: Path) -> Any:
    """The Snakefile as the crate's main entity, with the rest of the workflow's files as its parts."""
    folder = results / "workflow"
    main = crate.add_workflow(
        folder / "Snakefile",
        "workflow/Snakefile",
        main=True,
        lang="snakemake",
        lang_version=version_of_snakemake(folder),
    )
    main["name"] = "Middo, the closed loop, as a Snakemake workflow"
    main["url"] = "https://arxiv.org/abs/2508.21589"
    parts = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / "Snakefile")
    main["hasPart"] = [
        crate.add_file(path, path.relative_to(results).as_posix(), properties=_kind(path)) for path in parts
    ]
    return main


def version_of_snakemake(workflow: Path) -> str | None:
    """As the workflow pins it."""
    pins = dict(line.split("==") for line in (workflow / "requirements.txt").read_text().splitlines() if "==" in line)
    return pins.get("snakemake")


def _kind(path: Path) -> dict[str, Any]:
    code = path.suffix in {".py", ".smk"}
    return {"name": path.name, **({"@type": ["File", "SoftwareSourceCode"]} if code else {})}


class _Files:
    """Entities of files by their path, made when they are first named."""

    def __init__(self, crate: Any, results: Path) -> None:
        self.crate, self.results = crate, results
        self.known: dict[str, Any] = {}

    def of(self, path: str) -> Any:
        """The entity of a file or folder, named as Snakemake names it."""
        if path not in self.known:
            self.known[path] = self._make(Path(path))
        return self.known[path]

    def _make(self, path: Path) -> Any:
        from rocrate.model.contextentity import ContextEntity

        copied = Path("workflow", path)
        if (self.results / copied).is_file() and not path.is_relative_to(self.results):
            return self.crate.dereference(copied.as_posix())
        if path.is_relative_to(self.results) and path.is_dir():
            return self.crate.add_dataset(path, f"{path.relative_to(self.results).as_posix()}/")
        if path.is_relative_to(self.results) and path.is_file():
            facts = {"name": path.name, "sha256": sha256_file(path)}
            return self.crate.add_file(
                path, path.relative_to(self.results).as_posix(), properties=facts, record_size=True
            )
        facts = {"@type": "CreativeWork", "name": path.as_posix()}
        facts |= {"sha256": sha256_file(path)} if path.is_file() else {"description": "Removed when it was used up."}
        return self.crate.add(ContextEntity(self.crate, f"#{path.as_posix()}", facts))


def _action(crate: Any, files: _Files, step: Step) -> Any:
    """One step: program, inputs, outputs, times."""
    instrument = files.of(step.program) if step.program else crate.mainEntity
    return crate.add_action(
        instrument,
        f"#{step.rule}-{step.outputs[0]}",
        object=[files.of(path) for path in step.inputs],
        result=[files.of(path) for path in step.outputs],
        properties={"name": f"{step.rule}: {step.outputs[0]}", **_done(step.started, step.ended)},
    )


def _whole_run(crate: Any, files: _Files, workflow: Any, steps: list[Step]) -> Any:
    """The run from outside: from what no step made to all that lies there."""
    made = {path for step in steps for path in step.outputs}
    taken = sorted({path for step in steps for path in step.inputs if path not in made})
    config = crate.dereference("workflow/config.json")
    began, ended = min(step.started for step in steps), max(step.ended for step in steps)
    return crate.add_action(
        workflow,
        "#run",
        object=[config, *(files.of(path) for path in taken)],
        result=[files.of(path) for path in sorted(made)],
        properties={"name": "The whole run", **_done(began, ended)},
    )


def _done(started: float, ended: float) -> dict[str, Any]:
    times = {"startTime": _time(started), "endTime": _time(ended)}
    return {**times, "actionStatus": "http://schema.org/CompletedActionStatus"}


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
