"""What LLaMA-Factory 0.9.5 makes of rows: their tokens, and the steps that it must take. See launch.py for its start.

Rows are encoded by its own converter, template and supervised processor, so that losses are those of training. Training
reads the very rows that were encoded and checked here, through its option `tokenized_path`: nothing can be dropped on
the way, no download cache of data sets is written, and the processes of one training do not tokenize again.
"""

import importlib.metadata
import json
import math
import os
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from middo.control_tokens import PlainText, control_words
from middo.files import sha256_file
from middo.program import UserError

# The options under `training:` that shape the tokens of a row; rules hand them to the losses.
ENCODING_OPTIONS = (
    "template",
    "cutoff_len",
    "default_system",
    "enable_thinking",
    "preserve_thinking",
    "tool_format",
    "split_special_tokens",
    "use_fast_tokenizer",
)
IGNORE = -100


class EncodedRow(NamedTuple):
    """A row as the model sees it, cut to cutoff_len.

    `ids` and `labels` have the same length; a label is IGNORE wherever it is not trained on. `prompt` is the span of
    `ids` that holds the user's text. `reason` says why LLaMA-Factory cannot train on the row, "" where it can.
    """

    id: str
    ids: list[int]
    labels: list[int]
    prompt: tuple[int, int]
    reason: str

    @property
    def tokens(self) -> int:
        """Number of tokens that have a loss. The first token of a row has none: nothing predicts it."""
        return sum(label != IGNORE for label in self.labels[1:])


def training_options(text: str) -> dict[str, Any]:
    """The options of the JSON text that the config gives; null means LLaMA-Factory's own default."""
    return {key: value for key, value in json.loads(text).items() if value is not None}


def model_identity(model: str, revision: str | None) -> dict[str, Any]:
    """What a model is, for keys of restartable work: name and revision, or size and time of a folder's files.

    Raises UserError for a path where there is no folder.
    """
    folder = Path(model)
    if folder.is_dir():
        files = {path.name: [path.stat().st_size, path.stat().st_mtime_ns] for path in folder.iterdir()}
        return {"path": str(folder.resolve()), "files": files}
    if model.startswith((".", "/", "~")) or model.count("/") > 1:
        raise UserError(f"There is no model folder {model}.")
    return {"name": model, "revision": revision or "main"}


def library_versions() -> dict[str, str]:
    """The libraries that shape weights and losses."""
    return {name: importlib.metadata.version(name) for name in ("llamafactory", "transformers", "torch")}


def encode_rows(
    rows: Iterable[dict], training: dict[str, Any], model: str, revision: str | None = None
) -> list[EncodedRow]:
    """Encode dataset rows as LLaMA-Factory does for training `model` with the options `training`, in their order.

    With one difference: what a row's text holds is never read as control tokens (middo/control_tokens.py).
    """
    from llamafactory.data.converter import AlpacaDatasetConverter
    from llamafactory.data.parser import DatasetAttr

    supervised = _processor(training, model, revision)
    convert = AlpacaDatasetConverter(DatasetAttr("file", dataset_name="rows"), supervised.data_args)
    edges = _template_edges(supervised)
    words = control_words(supervised.tokenizer)
    encoded = []
    for row in rows:
        texts = [row[name] for name in ("instruction", "input", "output")]
        if words and any(map(words.search, texts)):
            plain = PlainText(supervised.tokenizer, words, texts)
            hidden = dict(zip(("instruction", "input", "output"), map(plain.hide, texts), strict=True))
            encoded.append(_encode_row({**row, **hidden}, convert, replace(supervised, tokenizer=plain), edges))
        else:
            encoded.append(_encode_row(row, convert, supervised, edges))
    return encoded


def _processor(training: dict[str, Any], model: str, revision: str | None) -> Any:
    """LLaMA-Factory's supervised processor with its tokenizer and template for `model`."""
    from llamafactory.data.processor.supervised import SupervisedDatasetProcessor
    from llamafactory.data.template import get_template_and_fix_tokenizer
    from llamafactory.hparams import DataArguments, ModelArguments
    from llamafactory.model import load_tokenizer
    from transformers import HfArgumentParser

    options = {key: training[key] for key in ENCODING_OPTIONS if key in training}
    options |= {"model_name_or_path": model, "model_revision": revision or "main"}
    try:
        model_args, data_args = HfArgumentParser((ModelArguments, DataArguments)).parse_dict(options)
        model_args.model_max_length = data_args.cutoff_len
        loaded = load_tokenizer(model_args)
        template = get_template_and_fix_tokenizer(loaded["tokenizer"], data_args)
    except (ValueError, OSError) as error:
        raise UserError(f"LLaMA-Factory does not accept {options}: {error}") from error
    return SupervisedDatasetProcessor(template=template, data_args=data_args, **loaded)


def _encode_row(row: dict, convert: Any, supervised: Any, edges: tuple[list[int], list[int]]) -> EncodedRow:
    try:
        columns = {name: [value] for name, value in convert(row).items()}
        made = supervised.preprocess_dataset(columns)
    except ValueError as error:
        return EncodedRow(row["id"], [], [], (0, 0), f"LLaMA-Factory: {str(error)[:200]}")
    if not made:
        return EncodedRow(row["id"], [], [], (0, 0), "LLaMA-Factory drops it as invalid")
    ids, labels = made["input_ids"][0], made["labels"][0]
    cutoff = supervised.data_args.cutoff_len
    trained = any(label != IGNORE for label in labels[1:])
    reason = "" if trained else f"no token of the response is left within cutoff_len {cutoff}"
    return EncodedRow(row["id"], ids, labels, _prompt_span(ids, labels, edges), reason)


def _template_edges(supervised: Any) -> tuple[list[int], list[int]]:
    """The tokens that the template puts before and after the user's text, whatever that text is."""
    sources = []
    for text in ("a", "0"):
        messages = [{"role": "user", "content": text}, {"role": "assistant", "content": text}]
        sources.append(supervised.template.encode_multiturn(supervised.tokenizer, messages, "", "")[0][0])
    before = _common_start(*sources)
    after = _common_start(*(source[before:][::-1] for source in sources))
    return sources[0][:before], sources[0][len(sources[0]) - after :]


def _prompt_span(ids: list[int], labels: list[int], edges: tuple[list[int], list[int]]) -> tuple[int, int]:
    """Where the user's text stands in `ids`; the whole prompt where truncation left nothing of that text.

    Truncation takes the prompt's tail, the template's closing tokens first, so less than these may be there.
    """
    before, after = edges
    length = next((place for place, label in enumerate(labels) if label != IGNORE), len(ids))
    start = _common_start(ids[:length], before)
    closing = next((n for n in range(len(after), 0, -1) if ids[start:length][-n:] == after[:n]), 0)
    return (start, length - closing) if start < length - closing else (0, length)


def _common_start(first: list[int], second: list[int]) -> int:
    same = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        same += 1
    return same


def save_tokenized(encoded: Iterable[EncodedRow], folder: Path) -> None:
    """Write rows in the form that LLaMA-Factory's `tokenized_path` reads."""
    from datasets import Dataset, DatasetDict

    encoded = list(encoded)
    columns = {
        "input_ids": [row.ids for row in encoded],
        "attention_mask": [[1] * len(row.ids) for row in encoded],
        "labels": [row.labels for row in encoded],
    }
    temporary = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    DatasetDict({"train": Dataset.from_dict(columns)}).save_to_disk(str(temporary))
    os.replace(temporary, folder)


def deepspeed_identity(training: dict[str, Any]) -> str | None:
    """SHA-256 of DeepSpeed's config file, None without one. Raises UserError where the file is missing."""
    path = training.get("deepspeed")
    if path is None:
        return None
    if not Path(path).is_file():
        raise UserError(f"training.deepspeed: there is no file {path}.")
    return sha256_file(path)


def expected_steps(rows: int, training: dict[str, Any], batch_size: int, processes: int) -> int:
    """Optimizer steps of a training on `rows` rows with `batch_size` rows per process."""
    if training.get("max_steps", -1) > 0:
        return training["max_steps"]
    share = rows / (batch_size * processes)
    batches = math.floor(share) if training.get("dataloader_drop_last") else math.ceil(share)
    per_epoch = max(math.ceil(batches / training.get("gradient_accumulation_steps", 1)), 1)
    return math.ceil(training.get("num_train_epochs", 3.0) * per_epoch)
