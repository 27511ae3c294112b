"""Why a Trainer's checkpoints break a promise, told in its own settings, files and releases."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from pytest_ckpt.frameworks import hf_interval
from pytest_ckpt.records.verdict import Advice

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_ckpt.records.checkpoint import Checkpoint
    from pytest_ckpt.records.run import FrameworkFacts, RunRecord

#: Which file of a checkpoint restores a component, and what the Trainer does without it.
_FILES: Final = {
    "optimizer": "optimizer.pt",
    "lr": "scheduler.pt",
    "scheduler": "scheduler.pt",
    "rng": "rng_state.pth",
    "scaler": "scaler.pt",
}


#: What is so whatever the settings.
_ALWAYS: Final = {
    "changed": Advice(
        cause="save_steps, eval_steps and logging_steps of trainer_state.json win over TrainingArguments when a run is "
        "resumed, and up to 5.1 the size of batches; a warning says that they differ, and not which wins.",
        fix="change the value in trainer_state.json of the checkpoint as well, or resume with the old one.",
    ),
    "finished": Advice(
        cause="the Trainer compares the restored step with max_steps only after a step: a run that ended within an "
        "epoch trains one more.",
        fix="before calling train(), compare global_step in trainer_state.json of the newest checkpoint with "
        "max_steps, and do not start a run again that is done.",
    ),
    "crash": Advice(
        fix="the Trainer's own search takes the highest number. trainer_state.json is written last: let a search of yours pass "
        "over directories that lack it, or in which it can't be read, and give train(resume_from_checkpoint=...) what it "
        "finds; the page on surviving a crash has one."
    ),
    "latest": Advice(
        cause="transformers loads optimizer.pt and scheduler.pt only where both are there, and rng_state.pth only where "
        "it is there; without them it starts those anew and says nothing."
    ),
}


def is_set(settings: Mapping[str, str], name: str) -> bool:
    """Say whether a setting has a value that switches something on."""
    return settings.get(name, "None") not in {"None", "False", ""}


def version_of(text: str) -> tuple[int, ...]:
    """Return the first two numbers of a version, for comparisons."""
    return tuple(int(part) for part in text.split(".")[:2] if part.isdigit())


# -- a component that a resume does not restore ------------------------------------------------------------------------


def component(name: str, checkpoint: Checkpoint, facts: FrameworkFacts) -> Advice:
    """Explain why a component, or the number of steps, differs after a resume.

    Or why too few were saved (`count`), the interval does not fit (`aligned`), files are missing (`files`), a save that was
    killed lies in the way (`crash`), or the best is not found in a moved directory (`moved`).
    """
    by_settings = _by_settings(name, facts)
    if by_settings is not None:
        return by_settings
    if name == "files":
        return _absent(checkpoint)
    if name in {"optimizer", "lr", "scheduler"} and is_set(facts.settings, "save_only_model"):
        return Advice(
            cause=f"{checkpoint.path} was saved with save_only_model=True; transformers resumes without optimizer and "
            "scheduler and says nothing.",
            fix="save the optimizer (save_only_model=False), or do not promise to resume from this checkpoint.",
        )
    if name == "weights" and checkpoint.content is not None and checkpoint.content.rearranged:
        return Advice(
            cause=f"{len(checkpoint.content.rearranged)} trained parameters, such as stacked experts, are saved in parts and "
            "under other names. from_pretrained puts them together again; the Trainer's resume looks for the names in memory, "
            "does not find them, warns of missing keys, and goes on with the weights that the model was built with.",
            fix="build the model by from_pretrained(checkpoint) before resuming from it, or do not resume models of this kind "
            "with this release.",
        )
    file = _FILES.get(name)
    names = {PurePosixPath(path).name for path in checkpoint.files}
    if file is not None and file not in names and not _has_variant(file, names):
        return Advice(
            cause=f"{checkpoint.path} has no {file}; transformers resumes without it and says nothing.",
            fix=f"find out what removes or skips {file}, and save the whole checkpoint.",
        )
    return Advice()


def _by_settings(name: str, facts: FrameworkFacts) -> Advice | None:
    """Answer what the settings and the release alone can answer."""
    match name:
        case "changed" | "crash" | "finished" | "latest":
            return _ALWAYS[name]
        case "count":
            return _interval(facts)
        case "aligned":
            return hf_interval.aligned(facts, facts.planned_steps or 0)
        case "moved":
            return _moved(facts)
        case "data" | "steps":
            return _position(name, facts)
    return None


def _absent(checkpoint: Checkpoint) -> Advice:
    """Say what a resume does without the files that are not there."""
    names = {PurePosixPath(path).name for path in checkpoint.files}
    silent = [file for file in dict.fromkeys(_FILES.values()) if file not in names and not _has_variant(file, names)]
    without = [file for file in silent if file != "scaler.pt"]
    if not without:
        return Advice()
    return Advice(
        cause=f"{checkpoint.path} has no {' and no '.join(without)}; transformers resumes without it and says nothing: "
        "training goes on with a fresh state.",
        fix="find out what removes or skips it, and save the whole checkpoint; or say save_only_model=True.",
    )


def _moved(facts: FrameworkFacts) -> Advice:
    """Explain why the best checkpoint is not found in another directory."""
    later = " until a later save renews the record, and there was none" if version_of(facts.version) >= (4, 50) else ""
    return Advice(
        cause="trainer_state.json stores best_model_checkpoint as an absolute path; transformers does not find that in the "
        f"old directory, says so in a warning and goes on without it{later}.",
        fix="after a move put the new path into trainer_state.json of the checkpoint to resume from.",
    )


def _interval(facts: FrameworkFacts) -> Advice:
    """Explain why there are fewer saves than a fraction of the steps seems to ask for."""
    asked, planned = facts.settings.get("save_steps asked for", ""), facts.planned_steps or 0
    interval = facts.settings.get("save_steps", "")
    if asked == interval or float(asked or 1) >= 1:
        return Advice()
    return Advice(
        cause=f"save_steps={float(asked):.4g} of {planned} steps is {float(asked) * planned:.17g} steps, which "
        f"transformers rounds up: it saves every {interval}.",
        fix="give save_steps as a whole number of steps.",
    )


def _has_variant(file: str, names: set[str]) -> bool:
    """Say whether the file exists per rank or under a sharding plugin's name."""
    stem = file.split(".", 1)[0]
    return any(name.startswith((f"{stem}_", f"{stem}.")) for name in names)


def _position(name: str, facts: FrameworkFacts) -> Advice:
    """Explain why a resumed run goes on with other batches, or ends at another step."""
    settings = facts.settings
    if is_set(settings, "iterable data"):
        return Advice(
            cause="the length of an IterableDataset is unknown, so transformers takes the whole of max_steps for one "
            "epoch: it skips more batches than one pass holds, and loses the place.",
            fix="let the data set remember its place (state_dict), make it map-style, or give it enough samples for "
            "max_steps.",
        )
    if name == "steps":
        return _callbacks(settings)
    if is_set(settings, "ignore_data_skip"):
        return Advice(
            cause="ignore_data_skip=True starts the data from the beginning.", fix="leave ignore_data_skip at False."
        )
    if is_set(settings, "group_by_length") or settings.get("train_sampling_strategy") == "group_by_length":
        return Advice(
            cause="the length-grouped sampler draws from the global random generator, which transformers restores "
            "only after the sampler of the interrupted epoch has drawn.",
            fix="give the sampler a generator of its own, or resume at epoch boundaries only.",
        )
    return _accumulation(facts) or _order(facts)


def _accumulation(facts: FrameworkFacts) -> Advice | None:
    """Explain that an update across the end of an epoch is cut in two, if there are such updates."""
    batches, together = (int(facts.settings.get(name) or 1) for name in ("batches", "gradient_accumulation_steps"))
    if version_of(facts.version) >= (4, 47) or batches % together == 0:
        return None
    return Advice(
        cause=f"an epoch has {batches} batches and gradient_accumulation_steps={together} does not divide them; "
        f"transformers {facts.version} carries the gradients of the last ones into the next epoch, and loses them "
        "when it resumes.",
        fix="choose gradient_accumulation_steps that divides the batches of an epoch, or use transformers 4.47 or "
        "newer.",
    )


def _order(facts: FrameworkFacts) -> Advice:
    """Explain why a shuffled, map-style data set does not come back to the same place."""
    accelerate = facts.settings.get("accelerate version", "")
    if version_of(facts.version) < (5, 0) and (1, 2) <= version_of(accelerate) < (1, 15):
        return Advice(
            cause=f"transformers {facts.version} with accelerate {accelerate} goes on in the order of the first "
            "epoch when it resumes within a later one.",
            fix="use transformers 5.0 or accelerate 1.15 or newer, or save at the ends of epochs only.",
        )
    return Advice(
        cause="transformers skips batches by iterating over the data set again; a set that is not map-style, or "
        "whose order comes from the process's random generators, does not come back to the same place.",
        fix="make the data set's order depend on a stored seed and epoch only.",
    )


def _callbacks(settings: Mapping[str, str]) -> Advice:
    if "EarlyStoppingCallback" in settings["callbacks"] and not is_set(
        settings, "restore_callback_states_from_checkpoint"
    ):
        return Advice(
            cause="the patience of EarlyStoppingCallback is counted anew: transformers does not restore the state of "
            "callbacks.",
            fix="set restore_callback_states_from_checkpoint=True (transformers 4.42 and newer).",
        )
    return Advice()


# -- a last step that is not there -------------------------------------------------------------------------------------


def missing_final(facts: FrameworkFacts, run: RunRecord) -> Advice:
    """Explain why the last step is not saved, or was deleted again."""
    written = [checkpoint for checkpoint in run.written if run.step_of(checkpoint) == run.last_step]
    if any(not checkpoint.kept for checkpoint in written):
        return _deleted(facts, run)
    strategy = facts.settings.get("save_strategy", "")
    if "steps" in strategy:
        return _by_steps(facts, run)
    if "best" in strategy:
        return Advice(
            cause="save_strategy='best' saves only when the metric improves; the last step did not improve it.",
            fix="add save_strategy='steps' or save the last state with trainer.save_model() after train().",
        )
    return Advice()


def _deleted(facts: FrameworkFacts, run: RunRecord) -> Advice:
    """Explain by which rule the newest checkpoint was deleted."""
    settings = facts.settings
    limit, metric = settings.get("save_total_limit"), settings.get("metric_for_best_model")
    foreign = [checkpoint.path for checkpoint in run.kept if checkpoint.foreign]
    if foreign:
        return Advice(
            cause=f"checkpoints of another run were there before ({', '.join(foreign)}); save_total_limit={limit} of "
            f"transformers {facts.version} deletes by number, lowest first, and so the new ones.",
            fix="train into an empty directory, or use transformers 4.52 or newer, which deletes the oldest.",
        )
    if limit == "1" and is_set(settings, "metric_for_best_model"):
        plateau = settings.get("lr_scheduler_type") == "reduce_lr_on_plateau"
        why = " (which lr_scheduler_type='reduce_lr_on_plateau' sets)" if plateau else ""
        return Advice(
            cause=f"with save_total_limit=1 and metric_for_best_model={metric!r}{why} transformers deletes every "
            "checkpoint but the best when training ends, also with load_best_model_at_end=False.",
            fix="set save_total_limit=2, which keeps the best and the last.",
        )
    return Advice()


def _by_steps(facts: FrameworkFacts, run: RunRecord) -> Advice:
    """Explain why saving every so many steps missed the last one."""
    save_steps, planned = facts.settings.get("save_steps"), facts.planned_steps or 0
    if planned > run.last_step:
        return Advice(
            cause=f"training stopped at step {run.last_step} of {planned}; save_strategy='steps' saves every "
            f"{save_steps} steps and at the planned end only.",
            fix="set control.should_save where training is stopped, such as in a callback's on_evaluate when "
            "control.should_training_stop is set; or save at every evaluation.",
        )
    return Advice(
        cause=f"{hf_interval.origin(facts)}, which does not divide the {run.last_step} steps, and transformers "
        f"{facts.version} did not save at the end: {run.last_step - max(run.saved_steps, default=0)} steps are lost.",
        fix=f"{hf_interval.fitting(facts, run.last_step)}; or use transformers 4.42 or newer.",
    )
