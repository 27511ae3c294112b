"""Tiny models of any architecture that the installed transformers knows, made from their shrunk configurations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pytest_ckpt.errors import InvalidArgument
from pytest_ckpt.tiny.architectures import Task, closest, default_config, resolve
from pytest_ckpt.tiny.layout import VOCABULARY
from pytest_ckpt.tiny.making import checked, checked_device, checked_vocabulary, quiet, seeded
from pytest_ckpt.tiny.rules import Scale
from pytest_ckpt.tiny.shrink import parameters_of, shrunk
from pytest_ckpt.tiny.special import UNSUITABLE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transformers import PretrainedConfig, PreTrainedModel

MOST_BYTES: Final = 1_000_000
"""What the weights of a model may take, unless fields or a larger vocabulary were asked for."""

_KEYWORDS: Final = frozenset({"attn_implementation", "torch_dtype", "dtype"})
"""What every release takes beside the fields of the configuration."""


def causal_lm(
    arch: str = "llama", *, seed: int = 0, device: str = "cpu", vocab_size: int = VOCABULARY, **config_overrides: Any
) -> PreTrainedModel:
    """Return a tiny causal language model with random weights: two to four layers, under 1 MB, made in milliseconds.

    It has one layer of every kind that the architecture mixes, its dropout, its tied weights, its experts. Its special
    tokens are those of `tokenizer` (padding 0, begin 1, end 2) and it takes what `text` gives: `input_ids`,
    `attention_mask` and `labels`, all int64 [batch, length], length at most 64; its `logits` are float32
    [batch, length, vocab_size], its `loss` a scalar.

    Args:
        arch: a model type of transformers in any spelling (`"llama"`, `"GPT-2"`, `"qwen3_moe"`). Any that has a causal
            language model will do. Of one that also takes images or sound it is the part that reads text.
        seed: the weights depend on this and on nothing else: equal seeds give equal bits, on any device. The
            generators of torch, numpy and random are as they were afterwards.
        device: where the model is put after it was made on the CPU.
        vocab_size: the number of tokens, 8 or more.
        config_overrides: fields of the configuration to set, under the architecture's own name or the common one
            (`hidden_size` for GPT-2's `n_embd`); heads, head sizes and inner widths follow. For the fields of a
            nested configuration give a dict.

    Raises:
        InvalidArgument: an unknown architecture or field; an argument out of range; an architecture that cannot be
            made this small, with the reason.
    """
    wanted = _Wanted(arch=arch, task="causal language model", vocab_size=vocab_size, overrides=config_overrides)
    return _made(wanted, seed, device)


def classifier(
    arch: str = "bert",
    *,
    num_labels: int = 2,
    seed: int = 0,
    device: str = "cpu",
    vocab_size: int = VOCABULARY,
    **config_overrides: Any,
) -> PreTrainedModel:
    """Return a tiny sequence classifier with random weights, for what `text(labels=num_labels)` gives.

    It takes `input_ids` and `attention_mask`, int64 [batch, length], and `labels`, int64 [batch]; its `logits` are
    float32 [batch, num_labels]. Encoders (`"bert"`, `"distilbert"`, `"deberta-v2"`) and causal architectures
    (`"llama"`) alike; the latter read the class off the last token that is not padding.

    Args:
        arch: a model type of transformers with a sequence classifier, in any spelling.
        num_labels: the number of classes; 1 makes it a regression, as ever in transformers.
        seed: as for `causal_lm`.
        device: as for `causal_lm`.
        vocab_size: as for `causal_lm`.
        config_overrides: as for `causal_lm`.

    Raises:
        InvalidArgument: as for `causal_lm`.
    """
    overrides = {"num_labels": checked("num_labels", num_labels, least=1), **config_overrides}
    wanted = _Wanted(arch=arch, task="sequence classifier", vocab_size=vocab_size, overrides=overrides)
    return _made(wanted, seed, device)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """What a caller wants to have made."""

    arch: str
    task: Task
    vocab_size: int
    overrides: Mapping[str, Any]


def _made(wanted: _Wanted, seed: int, device: str) -> PreTrainedModel:
    checked("seed", seed, least=0)
    checked_vocabulary(wanted.vocab_size)
    place = checked_device(device)
    with quiet(), seeded(seed):
        model_type = resolve(wanted.arch, wanted.task)
        model = _built(model_type, wanted.task, _config(model_type, wanted))
    if wanted.overrides.keys() <= {"num_labels"} and wanted.vocab_size <= VOCABULARY:
        _refuse_large(model, model_type)
    model.to(place)  # type: ignore[arg-type]  # transformers wraps it and loses the signature
    return model


def _config(model_type: str, wanted: _Wanted) -> PretrainedConfig:
    if model_type in UNSUITABLE:
        raise _impossible(model_type, UNSUITABLE[model_type])
    try:
        default = default_config(model_type)
    except Exception as error:  # a class of any architecture may raise anything
        raise _impossible(model_type, f"its default configuration is refused ({_said(error)})") from error
    _check_fields(default, wanted.overrides)
    overrides = dict(wanted.overrides)
    if wanted.task == "causal language model" and hasattr(default, "is_decoder"):
        overrides.setdefault("is_decoder", True)  # BERT and its kin would see the tokens that they are to predict
    try:
        return shrunk(default, scale=Scale(vocab=wanted.vocab_size), overrides=overrides)
    except Exception as error:  # likewise
        raise _impossible(
            model_type, f"the small configuration is refused ({_said(error)})", wanted.overrides
        ) from error


def _built(model_type: str, task: Task, config: PretrainedConfig) -> PreTrainedModel:
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    family = AutoModelForCausalLM if task == "causal language model" else AutoModelForSequenceClassification
    try:
        with torch.device("cpu"):  # whatever the default device is: it is the CPU's generator that is seeded
            model: PreTrainedModel = family.from_config(config)  # type: ignore[no-untyped-call]
    except Exception as error:  # likewise
        raise _impossible(model_type, f"the model cannot be built ({_said(error)})") from error
    return model


def _check_fields(default: PretrainedConfig, overrides: Mapping[str, Any]) -> None:
    known = parameters_of(default)
    for name in overrides:
        if name not in known and name not in _KEYWORDS and not hasattr(default, name):
            message = f"{type(default).__name__} has no field {name!r}; {closest(name, known)}."
            raise InvalidArgument(message)


def _refuse_large(model: PreTrainedModel, model_type: str) -> None:
    sizes = {name: weight.numel() * weight.element_size() for name, weight in model.named_parameters()}
    total = sum(sizes.values())
    if total > MOST_BYTES:
        largest = ", ".join(f"{name} ({sizes[name]})" for name in sorted(sizes, key=sizes.__getitem__)[:-4:-1])
        reason = f"its weights take {total} bytes instead of at most {MOST_BYTES}, the largest being {largest}"
        raise _impossible(model_type, reason)


def _impossible(model_type: str, reason: str, overrides: Mapping[str, Any] | None = None) -> InvalidArgument:
    import transformers

    asked = f" with {dict(overrides)}" if overrides else ""
    return InvalidArgument(
        f"No tiny {model_type!r} can be made{asked}, transformers {transformers.__version__}: {reason}. "
        "Set the fields of its configuration that matter by keyword, or take another architecture."
    )


def _said(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:2])}"
