"""From the name of an architecture, however it is spelled, to the type that the installed transformers knows it by."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Literal, TypeAlias

from pytest_ckpt.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterable

    from transformers import PretrainedConfig

Task: TypeAlias = Literal["causal language model", "sequence classifier"]


def registered(task: Task) -> tuple[str, ...]:
    """Return the types of all architectures that the installed transformers has for the task, sorted."""
    from transformers.models.auto import modeling_auto

    if task == "causal language model":
        return tuple(sorted(modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES))
    return tuple(sorted(modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES))


def default_config(model_type: str) -> PretrainedConfig:
    """Return the configuration that the architecture has when nothing is said."""
    from transformers import CONFIG_MAPPING

    config: PretrainedConfig = CONFIG_MAPPING[model_type]()
    return config


def resolve(arch: str, task: Task) -> str:
    """Return the type of the architecture called `arch`: `GPT2`, `gpt-2` and `gpt_2` are all `gpt2`.

    Of an architecture that also sees or hears it is the part that reads text, where that is registered on its own:
    `gemma3` is `gemma3_text`.

    Raises:
        InvalidArgument: the installed transformers has no such architecture for the task; the closest names are given.
    """
    names = registered(task)
    by_spelling = {_spelling(name): name for name in names}
    found = by_spelling.get(_spelling(str(arch)))
    if found is None:
        raise InvalidArgument(_unknown(arch, task, by_spelling))
    return f"{found}_text" if f"{found}_text" in names else found


def closest(name: str, known: Iterable[str]) -> str:
    """Return the names most like `name`, as a phrase to end a message with."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"closest are {', '.join(map(repr, near))}" if near else "nothing is close"


def _spelling(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _unknown(arch: object, task: Task, by_spelling: dict[str, str]) -> str:
    import transformers

    near = difflib.get_close_matches(_spelling(str(arch)), by_spelling, n=3, cutoff=0.4)
    names = ", ".join(repr(by_spelling[spelling]) for spelling in near) or "none"
    return (
        f"arch is {arch!r}, but transformers {transformers.__version__} has no such {task}; "
        f"of the {len(by_spelling)} that it has, the closest: {names}. "
        "Give a model_type, in any spelling."
    )
