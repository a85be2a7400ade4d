"""The Croissant 1.1 description of a version, made and read by mlcroissant."""

import logging
from pathlib import Path
from typing import Any

from middo.card import Facts, describe, limits, title

CONFORMS_TO = "http://mlcommons.org/croissant/1.1"
RECORDS = "rows"
FIELDS = {
    "id": "Hash of the row's content, and a number that tells exact repeats apart.",
    "instruction": "What the model is asked.",
    "input": "What the instruction is about; may be empty. The prompt is instruction, newline, input.",
    "output": "The response to learn.",
    "origin": "seed, or what the teacher did: simplified, improved or extended.",
    "parents": "Ids of the rows that it was made from, in the version before; none for seed rows.",
    "iteration": "Number of the version in which the row came to be.",
}


def croissant(facts: Facts, hashes: dict[str, str]) -> dict[str, Any]:
    """The JSON-LD of a version whose folder holds the files of `hashes` (SHA-256 by name), dataset.parquet first.

    Raises mlcroissant's ValidationError where it is not valid.
    """
    import mlcroissant as mlc

    context = mlc.Context(conforms_to=CONFORMS_TO)
    forms = {".parquet": "application/x-parquet", ".jsonl": "application/jsonlines", ".json": "application/json"}
    files = [
        mlc.FileObject(
            ctx=context,
            id=name,
            name=name,
            content_url=name,
            encoding_formats=[forms[Path(name).suffix]],
            sha256=digest,
        )
        for name, digest in hashes.items()
    ]
    metadata = mlc.Metadata(
        ctx=context,
        name=title(facts),
        description=describe(facts),
        license=[text for text in facts.licenses.values() if text] or None,
        version=f"{facts.iteration}.0.0",
        data_collection_raw_data=facts.source,
        data_preprocessing_protocol=[describe(facts)],
        machine_annotation_tools=facts.teacher_models,
        data_limitations=limits(facts),
        distribution=files,
        record_sets=[_record_set(mlc, context, next(iter(hashes)))],
    )
    return metadata.to_json()


def _record_set(mlc: Any, context: Any, file: str) -> Any:
    """All rows: the columns of `file`."""
    fields = [
        mlc.Field(
            ctx=context,
            id=f"{RECORDS}/{name}",
            name=f"{RECORDS}/{name}",
            description=meaning,
            data_types=[mlc.DataType.INTEGER if name == "iteration" else mlc.DataType.TEXT],
            source=mlc.Source(file_object=file, extract=mlc.Extract(column=name)),
            **({"is_array": True, "array_shape": "-1"} if name == "parents" else {}),
        )
        for name, meaning in FIELDS.items()
    ]
    return mlc.RecordSet(ctx=context, id=RECORDS, name=RECORDS, key=f"{RECORDS}/id", fields=fields)


def records(path: Path) -> list[dict[str, Any]]:
    """All rows that mlcroissant loads by the description `path`, texts as str."""
    import mlcroissant as mlc

    # It warns of recommended fields that a dataset which was not published cannot have.
    logging.getLogger("absl").setLevel(logging.ERROR)
    loaded = mlc.Dataset(str(path)).records(RECORDS)
    return [{key.removeprefix(f"{RECORDS}/"): _text(value) for key, value in record.items()} for record in loaded]


def _text(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8")
    return [_text(part) for part in value] if isinstance(value, list) else value
