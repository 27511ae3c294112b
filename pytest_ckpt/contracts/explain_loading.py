"""Saying what someone finds who loads a checkpoint elsewhere, why, and how it is mended."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from pytest_ckpt.contracts.explain_saving import some_of, steps_text
from pytest_ckpt.records.checkpoint import WRAPPERS
from pytest_ckpt.records.verdict import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pytest_ckpt.contracts.loaded_weights import Compared
    from pytest_ckpt.records.checkpoint import Checkpoint, Wrapped
    from pytest_ckpt.records.loading import Loading
    from pytest_ckpt.records.run import RunRecord

_UNWRAP: Final[Mapping[str, tuple[str, str]]] = {
    "_orig_mod": (
        "torch.compile(model) was saved: it keeps the model under this name.",
        "save model._orig_mod, or compile in place by model.compile(), or leave it to the trainer (torch_compile=True).",
    ),
    "module": (
        "the wrapper of a parallel or averaged model was saved: it keeps the model under this name.",
        "save model.module, or accelerator.unwrap_model(model).",
    ),
    "_fsdp_wrapped_module": (
        "the state dict was put together from the parts of an FSDP model, which keep their modules under this name.",
        "take it by torch.distributed.checkpoint.state_dict.get_model_state_dict(model).",
    ),
    "_checkpoint_wrapped_module": (
        "the parameters were listed through the wrappers of activation checkpointing, which keep their modules under this name.",
        "save model.state_dict(), which leaves the name out.",
    ),
}
_AS_IT_IS: Final = "save the model's own config and state dict, as its save_pretrained does."


def of_loading(checkpoint: Checkpoint, run: RunRecord, loading: Loading, *, strict: bool) -> Iterator[Finding]:
    """Yield what a loader says itself is wrong with a checkpoint."""
    where = _where(checkpoint, run, "loading")
    call = f"{loading.loader}({checkpoint.path})"
    if loading.unfit and not (loading.error or loading.tensors):
        yield replace(
            where,
            title=f"{loading.loader} can't load {checkpoint.path}: {loading.unfit}",
            cause="the model is saved in a way of the job's own.",
            fix=_AS_IT_IS,
        )
    elif loading.error:
        yield _raised(call, loading, where)
    elif loading.missing:
        yield _missing(call, loading, where)
    elif loading.unexpected and strict:
        count = len(loading.unexpected)
        keys = "1 key" if count == 1 else f"{count} keys"
        yield replace(
            where,
            title=f"{checkpoint.path} has {keys} that {loading.loader} has no place for: {some_of(loading.unexpected)}",
            cause=loading.unfit or "more was saved than the model's own state dict.",
            fix=f"{_AS_IT_IS} What else is to be kept belongs into a file of its own.",
        )
    drawn = [name for name in loading.drawn if name not in loading.missing]
    if drawn:
        yield _drawn(call, drawn, loading, where)


def _raised(call: str, loading: Loading, where: Finding) -> Finding:
    if loading.mismatched:
        count = len(loading.mismatched)
        other = "1 tensor has another shape" if count == 1 else f"{count} tensors have other shapes"
        return replace(
            where,
            title=f"{call} raises {loading.error.partition(':')[0]}: {other} in the file than in the model that is built from "
            "the saved config",
            rows=(("shapes", some_of(loading.mismatched)),),
            cause=loading.unfit or "the config that was saved is not that of the model whose weights were.",
            fix=_AS_IT_IS,
        )
    cause = loading.unfit or "what was saved is not what the loader of this class expects."
    return replace(where, title=f"{call} raises {loading.error}", cause=cause, fix=_AS_IT_IS)


def _missing(call: str, loading: Loading, where: Finding) -> Finding:
    count, total = len(loading.missing), len({*loading.missing, *loading.tensors})  # a tied one has two names
    prefix = _prefix(loading)
    why = f"the keys in the file start with `{prefix}`" if prefix else f"the file has no {some_of(loading.missing, 2)}"
    cause, fix = (
        _of_prefix(prefix) if prefix else (loading.unfit or "they were left out when the model was saved.", _AS_IT_IS)
    )
    rows = [("not read", some_of(loading.missing))]
    if loading.unexpected:
        rows.append(("not used", some_of(loading.unexpected)))
    return replace(
        where,
        title=f"{call} leaves {count} of {total} tensors at their initial values: {why}",
        rows=tuple(rows),
        cause=f"{cause} The loader warns of it and raises nothing.",
        fix=fix,
    )


def _drawn(call: str, drawn: list[str], loading: Loading, where: Finding) -> Finding:
    return replace(
        where,
        title=f"{call} draws {len(drawn)} of {len(loading.tensors)} tensors at random, and does not say that they are missing: "
        f"{some_of(drawn)}",
        cause="loaded twice, from different seeds, they differ: the model sets them again after they were read, or the loader "
        "does not look for them.",
        fix="have the model draw them in __init__ or _init_weights alone, and save them under the names that it has for them.",
    )


def _prefix(loading: Loading) -> str:
    """Return what all missing names have before them in the file, if it is one and the same."""
    unexpected = set(loading.unexpected)
    ends: Counter[str] = Counter()
    for key in unexpected:
        ends.update(key[: -len(name)] for name in loading.missing if key.endswith(f".{name}"))
    prefix, count = max(ends.items(), key=lambda pair: pair[1], default=("", 0))
    return prefix if 2 * count > len(loading.missing) else ""


def _of_prefix(prefix: str) -> tuple[str, str]:
    words = prefix.rstrip(".").split(".")
    known = next((word for word in words if word in WRAPPERS), None)
    if known is not None:
        return _UNWRAP[known]
    return (
        f"the state dict of an object was saved that keeps the model as its `{words[-1]}`.",
        f"save the state dict of that part, such as wrapper.{'.'.join(words)}.state_dict(), with the config of the same model.",
    )


def wrapped(checkpoint: Checkpoint, run: RunRecord, found: Wrapped) -> Finding:
    """Describe keys that only the wrapped model has a place for."""
    cause, fix = _UNWRAP[found.wrapper]
    keys = "1 trained parameter" if found.count == 1 else f"{found.count} trained parameters"
    name = PurePosixPath(found.path).name
    return Finding(
        title=f"{checkpoint.path} has {keys} under keys with `{found.wrapper}.` in them, {found.key} first",
        rows=(
            (
                "elsewhere",
                f"load_state_dict of the model alone refuses {name}: {found.count} missing, {found.count} unexpected",
            ),
            ("strict=False", "it loads none of them and says nothing"),
        ),
        cause=cause,
        fix=fix,
        step=run.step_of(checkpoint),
        component="keys",
        checkpoint=checkpoint.identity,
    )


def stale(checkpoint: Checkpoint, run: RunRecord, loading: Loading, found: Compared) -> Iterator[Finding]:
    """Yield that loaded parameters are those of another step, or have changed places."""
    step, call = run.step_of(checkpoint), f"{loading.loader}({checkpoint.path})"
    where = _where(checkpoint, run, "weights")
    if found.stale:
        common = set.intersection(*(set(steps) for steps in found.stale.values()))
        of = steps_text(sorted(common)) if common else "several steps"
        yield replace(
            where,
            title=f"{call} returns {len(found.stale)} of {len(loading.tensors)} tensors as they were after {of}, not "
            f"after step {step}",
            rows=_stale_rows(found.stale),
            cause="other weights were saved than those that were trained up to then: an older copy, or before the update.",
            fix="save the state dict of the model that is trained, as it is at that moment.",
        )
    if found.swapped:
        pairs = (f"{name} has the values of {other}" for name, other in found.swapped.items())
        yield replace(
            where,
            title=f"{call} returns {len(found.swapped)} of {len(loading.tensors)} tensors with the values of "
            f"others: {some_of(pairs, 2)}",
            cause="the save writes them under other names than the model has for them, or ties weights that are not "
            "tied in memory.",
            fix=_AS_IT_IS,
        )


def _stale_rows(found: Mapping[str, tuple[int, ...]]) -> tuple[tuple[str, ...], ...]:
    return tuple((name, steps_text(steps)) for name, steps in list(found.items())[:4])


def unknown(checkpoint: Checkpoint, run: RunRecord, loading: Loading, names: Iterable[str]) -> Finding:
    """Describe loaded weights that equal nothing that was seen."""
    names = list(names)
    return Finding(
        title=f"{len(names)} of {len(loading.tensors)} tensors that {loading.loader}({checkpoint.path}) returns equal no state "
        f"that was seen in training, {names[0]} first",
        cause="the save or the loader changes them: by a cast, by merging adapters, by quantising.",
        fix="if that is meant, compare them in a test of your own with ckpt_run.",
        step=run.step_of(checkpoint),
        checkpoint=checkpoint.identity,
    )


def refused(checkpoint: Checkpoint, run: RunRecord, path: str, names: tuple[str, ...]) -> Finding:
    """Describe a file that torch.load reads only where it may build anything."""
    return Finding(
        title=f"torch.load(weights_only=True) refuses {path}: it names {some_of(names, 3)}",
        rows=(("refused", ", ".join(names)),) if len(names) > 3 else (),  # noqa: PLR2004 - which the title names
        cause="something else than tensors, numbers, text and containers of them was saved. From torch 2.6 on a bare "
        "torch.load refuses the file, too.",
        fix="save plain values, such as vars(args), dataclasses.asdict(config) or array.tolist(); or allow the class where it is "
        "loaded, by torch.serialization.add_safe_globals.",
        step=run.step_of(checkpoint),
        component="weights_only",
        checkpoint=checkpoint.identity,
    )


def did_not_load(checkpoint: Checkpoint, run: RunRecord | None, loader: str) -> Finding:
    """Describe a run in which the loader was to be called, and was not."""
    how = "" if run is None else run.outcome.message or f"it {run.outcome.status}"
    return Finding(
        title=f"{loader}({checkpoint.path}) could not be tried: the job did not come to train the model that saved it ({how})",
        cause="the loader is called where the job, told to resume from that checkpoint, starts to train.",
        fix="let the job build and train the same trainer whatever it resumes from; ckpt_resumable says what goes wrong there.",
        checkpoint=checkpoint.identity,
    )


def unreadable(checkpoint: Checkpoint) -> Finding:
    """Describe a checkpoint whose keys are not known."""
    return Finding(
        title=f"{checkpoint.path}: none of its tensors was recognised, so nothing is known of its keys",
        cause="its tensors equal no state that was seen in training, or the format is unknown.",
        fix="check the file in a test of your own with ckpt_run.",
        checkpoint=checkpoint.identity,
    )


def _where(checkpoint: Checkpoint, run: RunRecord, component: str) -> Finding:
    return Finding(title="", step=run.step_of(checkpoint), component=component, checkpoint=checkpoint.identity)
