"""The adapter for acme_train. It must not import acme_train itself: a project without it would pay for that."""

from __future__ import annotations

import functools
from pathlib import PurePosixPath

from pytest_ckpt import Found, FrameworkFacts
from pytest_ckpt.records.verdict import Advice

WHOLE = ("model.pt", "optimizer.pt", "progress.json")


class AcmeTrain:
    """What pytest-ckpt asks of a framework, answered for `acme_train.Trainer`."""

    name = "acme_train"
    module = "acme_train"

    # -- in the job's process, once it has imported acme_train -------------------------------------------------------

    def attach(self, module, observer):
        """Have each trainer tell of its settings, steps and saves."""
        kind = module.Trainer
        fit, train_step, save = kind.fit, kind.train_step, kind.save

        @functools.wraps(fit)
        def told_fit(trainer, *args, **kwargs):
            observer.framework(facts(trainer, observer))
            observer.expect_told()
            fit(trainer, *args, **kwargs)
            observer.look("train_end")

        @functools.wraps(train_step)
        def told_step(trainer, step):
            train_step(trainer, step)
            observer.end_step(claimed=step)

        @functools.wraps(save)
        def told_save(trainer, step):
            save(trainer, step)
            observer.look("save")

        kind.fit, kind.train_step, kind.save = told_fit, told_step, told_save

    def warm_up(self, module):
        """Have nothing that each process would compute again."""

    def drives(self, trainer):
        """Say whether ckpt_job.train can start it."""
        return type(trainer).__module__ == self.module and type(trainer).__name__ == "Trainer"

    def train(self, trainer, resume_from, max_steps, *args, **kwargs):
        """Start it in its own words."""
        if max_steps is not None:
            trainer.steps = min(trainer.steps, max_steps)
        return trainer.fit(resume_from, *args, **kwargs)

    # -- in the pytest process, on what lies on disk -----------------------------------------------------------------

    def find(self, tree, save_dir):
        """Return the folders `step00004` and the like where it saves."""
        folders = [entry for entry in tree.children(save_dir) if entry.kind == "dir"]
        steps = {entry.path: PurePosixPath(entry.path).name.removeprefix("step") for entry in folders}
        return tuple(Found(path=path, claimed=int(step)) for path, step in steps.items() if step.isdecimal())

    def expected_count(self, facts, run):
        """Return how many should remain: all that are saved, or as many as are kept."""
        promised = self.promised_steps(facts, run)
        return None if promised is None else min(len(promised), facts.keep or len(promised))

    def promised_steps(self, facts, run):
        """Return the steps that `save_every` and `save_last` have saved."""
        if not facts.settings:  # a run that ended before it told
            return None
        every, last = int(facts.settings["save_every"]), facts.planned_steps
        final = {last} if facts.settings["save_last"] == "True" else set()
        return frozenset(final.union(range(every, last + 1, every)))

    def required_files(self, checkpoint, facts):
        """Return what `load` reads, of a folder of this layout."""
        return WHOLE if checkpoint.claim_is_step else ()

    # -- what a failure says -----------------------------------------------------------------------------------------

    def advise(self, component, checkpoint, facts):
        """Explain a component that a resume does not restore."""
        if component == "optimizer" and f"{checkpoint.path}/optimizer.pt" not in checkpoint.files:
            return Advice(
                cause=f"{checkpoint.path} has no optimizer.pt; acme_train starts with a new optimizer.",
                fix="find out what removes optimizer.pt.",
            )
        return Advice()

    def advise_missing_final(self, facts, run):
        """Explain by the settings why the last step was not saved."""
        if facts.settings.get("save_last") != "False":
            return Advice()
        return Advice(
            cause=f"save_last=False and save_every={facts.settings['save_every']}: step {run.last_step} is not saved.",
            fix="set save_last=True.",
        )


def facts(trainer, observer):
    """Return what the engine is told of a trainer."""
    return FrameworkFacts(
        name=AcmeTrain.name,
        planned_steps=trainer.steps,
        settings={"save_every": str(trainer.save_every), "save_last": str(trainer.save_last)},
        save_dir=observer.relative(str(trainer.folder / "ckpt")),
        keep=trainer.keep,
    )
