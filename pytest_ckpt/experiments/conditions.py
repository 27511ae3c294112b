"""Laying out the directory that an experiment starts from, and seeding it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_ckpt.checkpoints.file_content import ReadError
from pytest_ckpt.checkpoints.reading import perturb
from pytest_ckpt.checkpoints.store import empty
from pytest_ckpt.experiments.damage import inflict
from pytest_ckpt.records.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pytest_ckpt.checkpoints.store import EvidenceStore
    from pytest_ckpt.records.checkpoint import Checkpoint
    from pytest_ckpt.records.experiment import Experiment
    from pytest_ckpt.records.run import RunRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What the process of an experiment is started with.

    Attributes:
        tree: what its directory held before any damage.
        root: the directory as the job finds it, elsewhere than the baseline's where that was moved.
        lies_in: where it lies until the process is shown it at `root`; None where it lies there.
        notes: what the reader should know about it.
    """

    tree: Tree
    root: Path
    resume_from: Path | None
    seed: int
    lies_in: Path | None = None
    notes: tuple[str, ...] = ()


def prepare(  # noqa: PLR0913 - where from, where to
    experiment: Experiment,
    *,
    initial: Tree,
    origin: RunRecord | None,
    store: EvidenceStore,
    root: Path,
    lies_in: Path | None = None,
    seed_text: str,
) -> Start:
    """Make the job's directory, or `lies_in` in its place, hold what the experiment starts from.

    Args:
        initial: what lay in `root` before the baseline.
        origin: the run that saved the checkpoint to start from; None where none has been made.
        root: the directory of the baseline.
        seed_text: what the seeds are derived from, such as the test's name.
    """
    if experiment.checkpoint is None or origin is None:
        tree = initial if experiment.crash is None else _after_crash(experiment.crash, origin)
        if experiment.restarts_what_was_left and origin is not None:
            tree = origin.left
        store.materialise(tree, lies_in or root)
        return Start(tree=tree, root=root, lies_in=lies_in, resume_from=None, seed=seed_of(seed_text))
    checkpoint = origin.checkpoint(experiment.checkpoint)
    tree = as_left(checkpoint, origin) if experiment.kind == "restart" else as_saved(checkpoint, origin)
    if experiment.moved:
        empty(root)
        root = moved(root)
    there = lies_in or root
    store.materialise(tree, there)
    fresh = f"{seed_text} resumed from {experiment.checkpoint}" if experiment.seeds == "fresh" else seed_text
    notes = _perturbed(there, checkpoint) if experiment.kind == "control" else ()
    if experiment.damage is not None:
        inflict(experiment.damage, there)
    resume_from = root / checkpoint.path if experiment.kind != "restart" else None
    return Start(tree=tree, root=root, lies_in=lies_in, resume_from=resume_from, seed=seed_of(fresh), notes=notes)


def _after_crash(state: int, origin: RunRecord | None) -> Tree:
    """Return what a crash of a traced run left."""
    if origin is None or origin.trace is None:
        message = f"crash {state} of a run that was not traced"
        raise KeyError(message)
    return origin.trace.states[state].tree


def moved(root: Path) -> Path:
    """Return where a directory is moved to."""
    return root.with_name(f"{root.name}-moved")


def as_saved(checkpoint: Checkpoint, run: RunRecord) -> Tree:
    """Return the directory as it was when the checkpoint appeared, with the checkpoint as it was once complete."""
    tree = run.looks[checkpoint.look].tree
    for path in (checkpoint.path, *checkpoint.others):
        tree = tree.with_subtree(path, run.looks[_settled(checkpoint)].tree)
    return tree


def as_left(checkpoint: Checkpoint, run: RunRecord) -> Tree:
    """Return the directory as it was when all was saved that is saved with the checkpoint, at the same step.

    A thread may have saved it later than what follows; that is left out.
    """
    step = run.step_of(checkpoint)
    last = max(n for n, look in enumerate(run.looks) if look.step == run.looks[checkpoint.look].step)
    tree = run.looks[last].tree
    for later in (other for other in run.written if run.step_of(other) > step):
        for path in (later.path, *later.others):
            tree = tree.with_subtree(path, Tree())
    there = [other for other in run.written if run.step_of(other) <= step and other.look <= last]
    covered = [other for other in there if other.path not in tree and _is_last(other, there, step)]
    for saved in (*covered, checkpoint):
        for path in (saved.path, *saved.others):
            tree = tree.with_subtree(path, run.looks[_settled(saved)].tree)
    return tree


def _is_last(checkpoint: Checkpoint, there: Sequence[Checkpoint], step: int) -> bool:
    """Say whether a checkpoint is the last under its name, and was still there after a step."""
    versions = [other.version for other in there if other.path == checkpoint.path]
    return checkpoint.version == max(versions) and (checkpoint.gone_after is None or checkpoint.gone_after > step)


def _settled(checkpoint: Checkpoint) -> int:
    return checkpoint.look if checkpoint.settled is None else checkpoint.settled


def seed_of(text: str) -> int:
    """Return a seed that depends on the text only, alike on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "little")


def _perturbed(root: Path, checkpoint: Checkpoint) -> tuple[str, ...]:
    """Change the optimizer's state in every file of a checkpoint, or all of it where there is none."""
    for select in (_is_optimizer_state, lambda _: True):
        for path in sorted(checkpoint.files, key=_likely_first):
            if changed := _perturb(root / path, select):
                return (f"control: {changed} tensors of {path} were changed",)
    return ("control: nothing could be changed",)


def _perturb(path: Path, select: Callable[[str], bool]) -> int:
    try:
        return perturb(path, select)
    except ReadError:
        return 0


def _likely_first(path: str) -> bool:
    """Order the files so that those named after an optimizer come first."""
    return "opt" not in path


def _is_optimizer_state(key: str) -> bool:
    return "exp_avg" in key or "momentum" in key
