"""`from_pretrained`, called for a checkpoint in the place of training: the class of the model is known there."""

from __future__ import annotations

import copy
import inspect
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_ckpt.records.loading import Loading

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pytest_ckpt.frameworks.protocol import Observer

#: How files begin to be called that from_pretrained takes for weights.
_WEIGHTS: Final = ("model.safetensors", "model-", "pytorch_model.bin", "pytorch_model-")
#: What the Trainer writes into a checkpoint and does not read again.
UNREAD: Final = ("training_args.bin",)
#: As long as a message may be that is repeated.
_LONGEST: Final = 240


# -- what is told of a trainer -----------------------------------------------------------------------------------------


def loader_of(trainer: Any) -> str:
    """Return the name of the loader of what a trainer saves; empty where only the job knows how it is loaded."""
    kind = _kind(trainer)
    return "" if kind is None else f"{kind.__name__}.from_pretrained"


def allowed_globals() -> tuple[str, ...]:
    """Return what the Trainer of this release lets torch.load build from its own files, beside tensors."""
    import torch

    allow = getattr(sys.modules["transformers.trainer"], "safe_globals", None)
    if allow is None or not hasattr(torch.serialization, "get_safe_globals"):
        return ()
    with allow():
        return tuple(sorted(f"{known.__module__}.{known.__qualname__}" for known in _classes()))


def _classes() -> Iterable[Any]:
    import torch

    return (known for known in torch.serialization.get_safe_globals() if not isinstance(known, tuple))


def _model(trainer: Any) -> Any:
    """Return the model of a trainer without what torch.compile puts around it."""
    model = trainer.model
    while "_orig_mod" in getattr(model, "_modules", {}):
        model = model._orig_mod  # noqa: SLF001 - the wrapper has no other name for it
    return model


def _kind(trainer: Any) -> Any:
    """Return the class that loads the model; None where that is none of transformers, or an adapter, whose base the job has."""
    model = _model(trainer)
    kinds = {kind.__name__ for kind in type(model).__mro__}
    with_adapter = "PeftModel" in kinds or getattr(model, "_hf_peft_config_loaded", False)
    known = "PreTrainedModel" in kinds and not with_adapter and not getattr(model, "is_quantized", False)
    return type(model) if known else None


# -- in the place of training ------------------------------------------------------------------------------------------


def load_instead(trainer: Any, observer: Observer) -> None:
    """Load the checkpoint that the experiment names, tell of it and end the process; do nothing if another trainer saved it."""
    if observer.loading is None:
        return
    path = Path(observer.loading)
    folder, kind = path if path.is_dir() else path.parent, _kind(trainer)
    saved_there = Path(trainer.args.output_dir).resolve()
    if kind is not None and (saved_there == folder.resolve() or saved_there in folder.resolve().parents):
        observer.loaded(*_load(_model(trainer), folder))


def _load(model: Any, folder: Path) -> tuple[Loading, tuple[Any, ...]]:
    """Load twice, from different seeds: what was read is the same then."""
    kind = type(model)
    if lack := _lack(
        folder
    ):  # without a config, some releases build the model of the default one, of billions of parameters
        return Loading(loader=f"{kind.__name__}.from_pretrained", unfit=lack), ()
    first, told, error = _attempt(kind, folder, seed=1)
    if error:  # shapes that differ are named in a log only, unless they are allowed
        _, told, _ = _attempt(kind, folder, seed=1, ignore_mismatched_sizes=True)
    second = _attempt(kind, folder, seed=2)[0] if first is not None else None
    found = Loading(
        loader=f"{kind.__name__}.from_pretrained",
        error=error.replace(f"{folder}/", "").replace(str(folder), folder.name),
        missing=_sorted(_as_in(first, name) for name in told.get("missing_keys", ())),
        unexpected=_sorted(told.get("unexpected_keys", ())),
        mismatched=_sorted(_mismatch(found) for found in told.get("mismatched_keys", ())),
    )
    doubtful = found.error or found.missing or found.unexpected
    models = () if first is None or second is None else (first, second)
    return replace(found, unfit=_unfit(model)) if doubtful else found, models


def _attempt(kind: Any, folder: Path, *, seed: int, **more: object) -> tuple[Any, Mapping[str, Any], str]:
    """Return the model, what was told of its keys, and what went wrong."""
    import torch

    torch.manual_seed(seed)
    asks = any(one.kind is one.VAR_KEYWORD for one in inspect.signature(kind.from_pretrained).parameters.values())
    given = {"output_loading_info": True, **more} if asks else {}
    try:
        answer = kind.from_pretrained(str(folder), **given)
    except Exception as error:  # noqa: BLE001 - the class may be the job's own
        return None, {}, f"{type(error).__name__}: {_one_line(str(error))}"
    model, told = answer if isinstance(answer, tuple) else (answer, {})
    return model, told, ""


def _as_in(model: Any, name: str) -> str:
    """Return a name as the model has it; releases before 5 may leave out the prefix of the model without its head."""
    longer = f"{getattr(model, 'base_model_prefix', '')}.{name}"
    names = model.state_dict() if model is not None else ()
    return longer if name not in names and longer in names else name


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} ..."


def _sorted(keys: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(keys))


def _mismatch(found: Any) -> str:
    """Return a key with its shape in the file and in the model, as far as the release tells them."""
    if isinstance(found, str):
        return found
    key, saved, built = found
    return f"{key} is {tuple(saved)} in the file and {tuple(built)} in the model"


# -- whether it is the way ---------------------------------------------------------------------------------------------


def _lack(folder: Path) -> str:
    """Return which of the files is not there that from_pretrained looks for."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    if "config.json" not in names:
        return "it has no config.json"
    if not any(name.startswith(_WEIGHTS) for name in names):
        return "it has no file under a name by which from_pretrained looks for weights"
    return ""


def _unfit(model: Any) -> str:
    """Return why from_pretrained need not load a model of this job, whatever is in the files."""
    try:
        built = _shapes(type(model)(copy.deepcopy(model.config)))
    except Exception as error:  # noqa: BLE001 - the class may be the job's own
        return f"{type(model).__name__} can't be built from its config alone: {type(error).__name__}: {_one_line(str(error))}"
    other = sorted(name for name, shape in (built ^ _shapes(model)) if shape)
    if other:
        return (
            f"the job trains a {type(model).__name__} that is not what its config describes: it was built with further "
            f"arguments or changed afterwards, at {other[0]} first"
        )
    return ""


def _shapes(model: Any) -> set[tuple[str, tuple[int, ...]]]:
    return {(name, tuple(tensor.shape)) for name, tensor in model.state_dict().items()}
