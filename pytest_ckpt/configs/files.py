"""Reading configuration files, and counting the samples in the files of data that they name."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_ckpt.configs.schedule import Given
from pytest_ckpt.errors import InvalidArgument

if TYPE_CHECKING:
    import os


def read_file(path: str | os.PathLike[str], *, dataset_len: int | None, world_size: int) -> Given:
    """Return what a YAML or JSON file says.

    Raises:
        InvalidArgument: it is not there or not readable, or holds no names with values.
    """
    file = Path(path)
    length: object = dataset_len
    if length is not None and (not isinstance(length, int) or isinstance(length, bool) or length < 1):
        message = f"dataset_len must be the number of samples that the trainer is given, 1 or more; got {dataset_len!r}"
        raise InvalidArgument(message)
    try:
        values = _parsed(file)
    except OSError as error:
        message = f"{file} can't be read: {error.strerror or error}"
        raise InvalidArgument(message) from None
    if not isinstance(values, dict):
        message = f"{file} holds {type(values).__name__}, expected names with values"
        raise InvalidArgument(message)
    return Given(path=file, values=values, dataset_len=dataset_len, world_size=world_size)


def _parsed(file: Path) -> object:
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".json":
        try:
            return json.loads(text)
        except ValueError as error:
            message = f"{file} is no JSON: {error}"
            raise InvalidArgument(message) from None
    try:
        import yaml
    except ImportError:
        message = f"reading {file} takes PyYAML; pip install pytest-ckpt[transformers], which brings it"
        raise InvalidArgument(message) from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        message = f"{file} is no YAML: {error}"
        raise InvalidArgument(message) from None


def count_samples(file: Path) -> int | None:
    """Return how many samples a file of data holds; None if it is not there or of a kind that can't be counted."""
    if not file.is_file():
        return None
    match file.suffix:
        case ".jsonl":
            return _lines(file)
        case ".json":
            return _in_json(file)
        case ".csv":
            with file.open(encoding="utf-8", newline="") as rows:
                return max(sum(1 for _ in csv.reader(rows)) - 1, 0)
        case ".parquet":
            return _in_parquet(file)
    return None


def _lines(file: Path) -> int:
    with file.open(encoding="utf-8") as lines:
        return sum(1 for line in lines if line.strip())


def _in_json(file: Path) -> int:
    """Return the length of a list, or how many lines there are: files of lines are called so, too."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return _lines(file)
    return len(found) if isinstance(found, list) else 1


def _in_parquet(file: Path) -> int | None:
    try:
        from pyarrow import parquet
    except ImportError:
        return None
    return int(parquet.ParquetFile(file).metadata.num_rows)
