"""Why Lightning's checkpoints break a promise, told in the settings of its callbacks and in what its documentation leaves out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pytest_ckpt.records.verdict import Advice

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pytest_ckpt.records.checkpoint import Checkpoint
    from pytest_ckpt.records.run import FrameworkFacts, RunRecord


def version_of(text: str) -> tuple[int, ...]:
    """Return the first two numbers of a version, for comparisons."""
    return tuple(int(part) for part in text.split(".")[:2] if part.isdigit())


#: What is so whatever the settings.
_ALWAYS: Final = {
    "rng": Advice(
        cause="Lightning does not save the states of the random generators: dropout, shuffling and augmentation draw other "
        "numbers after a resume. Its documentation leaves that to the user.",
        fix="save and restore them in state_dict and load_state_dict of a callback; or promise no more than "
        "ckpt_resumable('state').",
    ),
    "latest": Advice(
        fix="give ModelCheckpoint save_last=True: ckpt_path='last' looks for nothing but last.ckpt, and begins "
        "from scratch where there is none."
    ),
    "returned": Advice(
        cause="callbacks such as StochasticWeightAveraging put other weights into the model when training ends, after the last "
        "save of ModelCheckpoint.",
        fix="save the model that is to be used by trainer.save_checkpoint(...) after fit.",
    ),
    "moved": Advice(
        cause="ModelCheckpoint restores best_model_score and best_k_models only where its dirpath is the one they were saved "
        "with; elsewhere it warns and begins anew, so that the first save after the resume counts as the best.",
        fix="after a move replace the old path in checkpoint['callbacks'] of the file to resume from.",
    ),
}


# -- a component that a resume does not restore ------------------------------------------------------------------------


def component(name: str, checkpoint: Checkpoint, facts: FrameworkFacts) -> Advice:
    """Explain why a component, or the number of steps, differs after a resume.

    Or why too few were saved (`count`), a restart does not find the newest (`latest`), the model is changed after the last save
    (`returned`), or the best is not known in a moved directory (`moved`).
    """
    match name:
        case "count":
            return _count(facts)
        case "rng" | "latest" | "returned" | "moved":
            return _ALWAYS[name]
        case "data":
            return _position(checkpoint, facts)
        case "steps" | "lr" | "scheduler" | "counter":
            return _boundary(checkpoint, facts)
        case "optimizer" if _any(facts, "save_weights_only", "True"):
            return Advice(
                cause=f"{checkpoint.path} was saved with save_weights_only=True, so it holds no optimizer.",
                fix="leave save_weights_only at False where a run is to be continued.",
            )
    return Advice()


def _position(checkpoint: Checkpoint, facts: FrameworkFacts) -> Advice:
    """Explain other batches: after a save within an epoch the loader starts again, after one at its end it is shuffled anew."""
    step, per_epoch = checkpoint.claimed or checkpoint.saved_after, _steps_per_epoch(facts)
    if per_epoch and step % per_epoch:
        return Advice(
            cause=f"step {step} lies within an epoch of {per_epoch} steps, and Lightning does not save the position within an "
            f"epoch: the loader starts again at its first batch while the count of batches goes on.{_accumulated(facts)}",
            fix="save at the ends of epochs (every_n_epochs), use a loader with state_dict and load_state_dict such as "
            "torchdata's StatefulDataLoader; or promise no more than ckpt_resumable('state').",
        )
    boundary = _boundary(checkpoint, facts)
    if boundary.cause:
        return boundary
    return Advice(
        cause="Lightning does not save the states of the random generators, so a shuffled loader comes in another order after "
        "a resume.",
        fix="give the sampler a generator that is seeded by the epoch; or promise no more than ckpt_resumable('state').",
    )


def _accumulated(facts: FrameworkFacts) -> str:
    if facts.settings.get("accumulate_grad_batches", "1") == "1":
        return ""
    return " Nor does it save the gradients that were accumulated since the last step."


def _boundary(checkpoint: Checkpoint, facts: FrameworkFacts) -> Advice:
    """Explain an extra batch, or an extra step of the scheduler, after the checkpoint of an epoch's end."""
    step, per_epoch = checkpoint.claimed or checkpoint.saved_after, _steps_per_epoch(facts)
    if not per_epoch or step % per_epoch:
        return Advice()
    if version_of(facts.version) < (2, 5):
        return Advice(
            cause=f"Lightning {facts.version} counts the batches of an epoch wrongly when it resumes at its end: it trains one "
            "batch more, and steps a scheduler of epochs twice.",
            fix="use Lightning 2.5 or newer.",
        )
    if facts.settings.get("max_steps", "-1") != "-1":
        return Advice(
            cause=f"the checkpoint of step {step} was saved at the end of an epoch, and Lightning {facts.version} with "
            f"max_steps={facts.settings['max_steps']} resumes such a one before that end: it trains one batch more, or ends too "
            "early.",
            fix="end the run by max_epochs, or save every so many steps (every_n_train_steps).",
        )
    return Advice()


def _steps_per_epoch(facts: FrameworkFacts) -> int:
    batches, together = (facts.settings.get(name, "") for name in ("num_training_batches", "accumulate_grad_batches"))
    if not batches.isdigit() or not together.isdigit():
        return 0
    return -(-int(batches) // int(together))


def _count(facts: FrameworkFacts) -> Advice:
    """Explain why there are fewer files than every_n_train_steps seems to ask for."""
    settings = facts.settings
    every = settings.get("ModelCheckpoint.every_n_train_steps", "")
    if settings.get("ModelCheckpoint.monitor", "None") != "None":
        return Advice(
            cause=f"with monitor={settings['ModelCheckpoint.monitor']!r} a save every {every} steps waits until the metric was "
            "logged; a metric of the validation is not there before the first one has ended, and what is due then is dropped.",
            fix="validate as often as you save (val_check_interval), or save without a monitor in a second ModelCheckpoint.",
        )
    if settings.get("automatic_optimization") == "False" and settings.get("optimizers", "1") != "1":
        return Advice(
            cause=f"global_step counts every optimizer's step: with {settings['optimizers']} of them it grows by as many each "
            f"batch, and every_n_train_steps={every} is met only where both agree at the end of a batch.",
            fix=f"choose every_n_train_steps as a multiple of {settings['optimizers']}.",
        )
    return Advice()


# -- a last step that is not there -------------------------------------------------------------------------------------


def missing_final(facts: FrameworkFacts, run: RunRecord) -> Advice:
    """Explain why the last step is not on disk, by the trigger and the limit of the callbacks."""
    if facts.settings.get("ModelCheckpoint.save_top_k") is None:
        return Advice(
            cause="the trainer has no ModelCheckpoint.",
            fix="leave enable_checkpointing at True or add a ModelCheckpoint.",
        )
    last = run.steps[-1].claimed or run.last_step
    causes = list(_causes(facts.settings, last, facts.version))
    return Advice(
        cause=" ".join(causes),
        fix="add a second callback, ModelCheckpoint(filename='final-{step}') without arguments of "
        "frequency: it saves at the end of training too; or call trainer.save_checkpoint after fit."
        if causes
        else "",
    )


def _causes(settings: Mapping[str, str], last: int, version: str) -> Iterator[str]:
    every, epochs = (settings.get(f"ModelCheckpoint.every_n_{name}", "") for name in ("train_steps", "epochs"))
    if every.isdigit() and int(every) > 1 and last % int(every):
        yield f"ModelCheckpoint saves every {every} steps, which does not divide the last step, {last}."
    elif epochs.isdigit() and int(epochs) > 1:
        yield f"ModelCheckpoint saves every {epochs} epochs, and the last epoch is not one of them."
    time = settings.get("ModelCheckpoint.train_time_interval", "None")
    if time != "None":
        yield f"ModelCheckpoint saves after every {time} of training (train_time_interval), and not once more at its end."
    if settings.get("ModelCheckpoint.monitor", "None") != "None":
        yield (
            f"ModelCheckpoint keeps the best {settings['ModelCheckpoint.save_top_k']} by "
            f"{settings['ModelCheckpoint.monitor']!r}, and the last step was not among them."
        )
    if settings.get("ModelCheckpoint.save_last") == "True" and version_of(version) >= (2, 6):
        yield f"In Lightning {version} save_last=True writes last.ckpt only together with another save."


def _any(facts: FrameworkFacts, name: str, value: str) -> bool:
    """Say whether a setting has that value in one of the callbacks."""
    return any(key.endswith(f".{name}") and found == value for key, found in facts.settings.items())
