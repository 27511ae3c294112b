"""What is published of each bug and what a contract says of it; tests check it, and docs/bugs.md is made of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Final

from packaging.specifiers import SpecifierSet

if TYPE_CHECKING:
    from collections.abc import Mapping

_HF: Final = "https://github.com/huggingface/"
_ISSUE: Final = f"{_HF}transformers/issues/"
_PULL: Final = f"{_HF}transformers/pull/"
_LIGHTNING: Final = "https://github.com/Lightning-AI/pytorch-lightning/"
_AXOLOTL: Final = "https://github.com/axolotl-ai-cloud/axolotl/issues/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bug:
    """One bug, as it shows on the releases that have it.

    Attributes:
        id: as in the collection of bugs; one bug that shows differently in two ranges of releases, or that two contracts
            find, is declared twice.
        affected: the releases that have it, by distribution; all of them have to match.
        source: where it was published, or where its code lies.
        contract: the contract that finds it; `ckpt_run` for a promise that a test has to spell out itself.
        sentence: the verdict's sentence.
        step: the step that the finding names.
        component: the component that it names.
        checkpoint: the checkpoint that it names.
        says: parts of the finding's cause and fix.
    """

    id: str
    affected: Mapping[str, str]
    source: str
    contract: str
    sentence: str
    step: int | None = None
    component: str = ""
    checkpoint: str = ""
    says: tuple[str, ...] = field(default=())

    @property
    def is_here(self) -> bool:
        """Whether the installed releases have it; what is not installed has no bugs."""
        return all(_is_installed(name, releases) for name, releases in self.affected.items())


def _is_installed(name: str, releases: str) -> bool:
    try:
        return SpecifierSet(releases).contains(version(name))
    except PackageNotFoundError:
        return False


#: Where a bug is open there is no upper bound; a lower one is given where older releases are known not to have it.
BUGS: Final[tuple[Bug, ...]] = (
    Bug(
        id="HF-01",
        affected={"transformers": "<4.42"},
        source=f"{_ISSUE}28539",
        contract="final_step",
        sentence="training ended at step 7 and the newest checkpoint is of step 6: step 7 is lost",
        step=7,
        component="final step",
        says=(
            "save_steps=3, which does not divide the 7 steps",
            "did not save at the end",
            "transformers 4.42 or newer",
        ),
    ),
    Bug(
        id="HF-03",
        affected={"transformers": "<4.52"},
        source=f"{_PULL}37260",
        contract="final_step",
        sentence="training ended at step 6; checkpoint-6 held it and was deleted again, the newest left is none: "
        "steps 1 to 6 are lost",
        step=6,
        component="final step",
        checkpoint="checkpoint-6",
        says=("of another run", "checkpoint-12", "deletes by number", "transformers 4.52 or newer"),
    ),
    Bug(
        id="HF-03",
        affected={"transformers": "<4.52"},
        source=f"{_PULL}37260",
        contract="retention",
        sentence="the newest checkpoint, checkpoint-6 of step 6, was deleted again: none of this run is left",
        step=6,
        component="retention",
        checkpoint="checkpoint-6",
        says=("of another run", "checkpoint-12", "deletes by number", "transformers 4.52 or newer"),
    ),
    Bug(
        id="HF-03",
        affected={"transformers": ">=4.52"},
        source=f"{_PULL}37260",
        contract="retention",
        sentence="2 checkpoints were deleted that this run did not write: checkpoint-12, checkpoint-8",
        component="retention",
        checkpoint="checkpoint-12",
        says=("a listing of the directory", "train into an empty directory"),
    ),
    Bug(
        id="HF-04",
        affected={"transformers": "<5.0", "accelerate": ">=1.2,<1.15"},
        source=f"{_PULL}40691",
        contract="resumable",
        sentence="resumed from step 7: step 8 differs from the uninterrupted run in data",
        step=8,
        component="data",
        checkpoint="checkpoint-7",
        says=("the order of the first epoch", "transformers 5.0 or accelerate 1.15"),
    ),
    Bug(
        id="HF-07",
        affected={"transformers": "<5.2"},
        source=f"{_ISSUE}43708",
        contract="ckpt_run",
        sentence="resumed with batches of 2, trained on batches of 4",
    ),
    Bug(
        id="HF-07",
        affected={"transformers": "<5.2"},
        source=f"{_ISSUE}43708",
        contract="stable_schedule",
        sentence="per_device_train_batch_size=2 was ignored when training was resumed from step 3: still trained on batches "
        "of 4, as with the 4 of the first run",
        step=3,
        component="data",
        checkpoint="checkpoint-3",
        says=("up to 5.1 the size of batches",),
    ),
    Bug(
        id="HF-09",
        affected={"transformers": "<4.47", "torch": ">=2.6"},
        source="https://pytorch.org/docs/stable/generated/torch.load.html",
        contract="resumable",
        sentence="resuming from step 2 raised an error after 0 of 4 steps: _pickle.UnpicklingError: Weights only load "
        "failed. This file can still be loaded, to do so you have two options, do those steps only if you trust the "
        "source of the checkpoint.",
        step=2,
        component="runs",
        checkpoint="checkpoint-2",
        says=("torch 2.6 and newer load with weights_only=True", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1"),
    ),
    Bug(
        id="HF-10",
        affected={"transformers": "<5.16"},
        source=f"{_ISSUE}48315",
        contract="resumable",
        sentence="resuming from step 4 raised an error after 2 of 2 steps: FileNotFoundError: [Errno 2] No such file "
        "or directory: 'DIR/checkpoint-2'",
        step=6,
        component="runs",
        checkpoint="checkpoint-4",
        says=("every step was trained", "an older one"),
    ),
    Bug(
        id="HF-12",
        affected={"transformers": ""},
        source=f"{_ISSUE}35070",
        contract="final_step",
        sentence="training ended at step 6; checkpoint-6 held it and was deleted again, the newest left is step 2: "
        "steps 3 to 6 are lost",
        step=6,
        component="final step",
        checkpoint="checkpoint-6",
        says=("save_total_limit=1 and metric_for_best_model='loss'", "save_total_limit=2"),
    ),
    Bug(
        id="HF-12",
        affected={"transformers": ""},
        source=f"{_ISSUE}35070",
        contract="retention",
        sentence="the newest checkpoint, checkpoint-6 of step 6, was deleted again: what is left goes no further than step 2",
        step=6,
        component="retention",
        checkpoint="checkpoint-6",
        says=("save_total_limit=1 and metric_for_best_model='loss'", "save_total_limit=2"),
    ),
    Bug(
        id="HF-13",
        affected={"transformers": ">=4.50"},
        source=f"{_ISSUE}39476",
        contract="best",
        sentence="checkpoint-4 is recorded as the best with eval_loss 0.5, and step 8 was saved with eval_loss 0.2",
        step=8,
        component="best",
        checkpoint="checkpoint-4",
        says=("only renewed by an evaluation that beats all before it", "save_steps equal to eval_steps"),
    ),
    Bug(
        id="HF-14",
        affected={"transformers": ""},
        source=f"{_ISSUE}16620",
        contract="final_step",
        sentence="training ended at step 6 and the newest checkpoint is of step 4: steps 5 to 6 are lost",
        step=6,
        component="final step",
        says=("training stopped at step 6 of 20", "control.should_save"),
    ),
    Bug(
        id="HF-15",
        affected={"transformers": ""},
        source=f"{_ISSUE}28867",
        contract="ckpt_run",
        sentence="resumed from step 4 of 8 with save_steps=2, saved at step 8",
    ),
    Bug(
        id="HF-15",
        affected={"transformers": ""},
        source=f"{_ISSUE}28867",
        contract="stable_schedule",
        sentence="save_steps=2 was ignored when training was resumed from step 4: still saved at step 8, as with the 4 of the "
        "first run",
        step=4,
        component="schedule",
        checkpoint="checkpoint-4",
        says=("trainer_state.json win over TrainingArguments",),
    ),
    Bug(
        id="HF-16",
        affected={"transformers": ""},
        source=f"{_PULL}46826",
        contract="resumable",
        sentence="resumed from step 5: step 6 differs from the uninterrupted run in optimizer, lr, scheduler",
        step=6,
        component="optimizer",
        checkpoint="checkpoint-5",
        says=("checkpoint-5 was saved with save_only_model=True", "save_only_model=False"),
    ),
    Bug(
        id="HF-17",
        affected={"transformers": ""},
        source=f"{_ISSUE}28544",
        contract="resumable",
        sentence="resumed from step 6, 6 steps were trained, expected 2 (the run ended at step 12 instead of 8)",
        step=12,
        component="steps",
        checkpoint="checkpoint-6",
        says=("EarlyStoppingCallback", "restore_callback_states_from_checkpoint=True"),
    ),
    Bug(
        id="HF-19",
        affected={"transformers": ""},
        source=f"{_ISSUE}35525",
        contract="resumable",
        sentence="resumed from step 10: step 11 differs from the uninterrupted run in optimizer, lr, scheduler",
        step=11,
        component="optimizer",
        checkpoint="checkpoint-10",
        says=("checkpoint-10 has no optimizer.pt",),
    ),
    Bug(
        id="HF-19",
        affected={"transformers": ""},
        source=f"{_ISSUE}35525",
        contract="complete",
        sentence="checkpoint-5 is incomplete: 1 file is missing, optimizer.pt",
        step=5,
        component="files",
        checkpoint="checkpoint-5",
        says=("checkpoint-5 has no optimizer.pt; transformers resumes without it",),
    ),
    Bug(
        id="HF-20",
        affected={"transformers": ""},
        source=f"{_PULL}48025",
        contract="resumable",
        sentence="resumed from step 7: step 8 differs from the uninterrupted run in data",
        step=8,
        component="data",
        checkpoint="checkpoint-7",
        says=("length-grouped sampler", "epoch boundaries"),
    ),
    Bug(
        id="HF-22",
        affected={"transformers": ">=4.47"},  # seen in 4.57.6 and newer; the boundary lies between that and 4.46.3
        source=f"{_ISSUE}26413",
        contract="resumable",
        sentence="resumed from step 7: step 8 differs from the uninterrupted run in data",
        step=8,
        component="data",
        checkpoint="checkpoint-7",
        says=("IterableDataset", "max_steps"),
    ),
    Bug(
        id="HF-22",
        affected={"transformers": "<4.47"},
        source=f"{_ISSUE}26413",
        contract="resumable",
        sentence="resumed from step 7, 0 steps were trained, expected 5 (the run ended at step 7 instead of 12)",
        step=7,
        component="steps",
        checkpoint="checkpoint-7",
        says=("IterableDataset", "max_steps"),
    ),
    Bug(
        id="HF-18",
        affected={"transformers": ""},
        source=f"{_ISSUE}35525",
        contract="latest",
        sentence="a restart fails at checkpoint-8, which is incomplete, though step 4 is there whole: FileNotFoundError: "
        "[Errno 2] No such file or directory: 'DIR/checkpoint-8/trainer_state.json'",
        step=5,
        component="weights",
        checkpoint="checkpoint-8",
        says=("takes the newest name",),
    ),
    Bug(
        id="HF-26",
        affected={"transformers": ""},
        source=f"{_PULL}41723",
        contract="latest",
        sentence="a restart went on from checkpoint-8, which is incomplete, though step 4 is there whole, and said nothing",
        step=5,
        component="weights",
        checkpoint="checkpoint-8",
        says=("a mark that it is unfinished",),
    ),
    Bug(
        id="HF-29",
        affected={"transformers": ""},
        source=f"{_AXOLOTL}1613",
        contract="count",
        sentence="5 checkpoints on disk, expected 6",
        component="count",
        says=("save_steps=0.1667 of 15 steps is 2.5 steps", "it saves every 3", "a whole number of steps"),
    ),
    Bug(
        id="HF-29",
        affected={"transformers": ">=4.42"},  # older ones do not save the last step, either
        source=f"{_AXOLOTL}1613",
        contract="steps",
        sentence="13 of 15 expected saves were not made (steps 7, 14, 21, 28 and 9 more), and 11 were made unexpectedly "
        "(steps 8, 16, 24, 32 and 7 more)",
        step=7,
        component="steps",
        says=("save_steps=0.07 of 100 steps is 7.0000000000000009 steps", "it saves every 8"),
    ),
    Bug(
        id="HF-30",
        affected={"transformers": "<4.47"},  # seen up to 4.46.3, not in 4.57.6
        source=f"{_ISSUE}22143",
        contract="resumable",
        sentence="resumed from step 2: step 3 differs from the uninterrupted run in data",
        step=3,
        component="data",
        checkpoint="checkpoint-2",
        says=("gradient_accumulation_steps=2 does not divide", "loses them when it resumes"),
    ),
    Bug(
        id="AX-01",
        affected={"transformers": "<4.42"},
        source=f"{_AXOLOTL}1613",
        contract="final_step",
        sentence="training ended at step 1578 and the newest checkpoint is of step 1185: steps 1186 to 1578 are lost",
        step=1578,
        component="final step",
        says=(
            "save_steps=0.25 of 1578 steps is ceil(1578/4) = 395 steps",
            "did not save at the end: 393 steps are lost",
            "save_steps=263 or 526, which divides 1578",
            "saves_per_epoch: 1 or 3 with 2 epochs",
            "max_steps=1185 or 1580, which 395 divides",
        ),
    ),
    Bug(
        id="PT-04",
        affected={"torch": ""},
        source="https://pytorch.org/docs/stable/generated/torch.save.html",
        contract="compact",
        sentence="step_10.pt has 4.0 MB for 5.3 kB of tensors, more than 1.1 times; most of it is row in step_10.pt",
        step=10,
        component="size",
        checkpoint="step_10.pt",
        says=("a view of a larger one", "tensor.clone()"),
    ),
    Bug(
        id="HF-18",
        affected={"transformers": ""},
        source=f"{_ISSUE}35525",
        contract="crash_safe",
        sentence="in N of M states that a kill can leave, a restart fails though checkpoint-2 is whole",
        step=3,
        component="runs",
        checkpoint="checkpoint-2",
        says=(
            "takes the newest name",
            "does not look whether what lies there is whole",
            "trainer_state.json is written last",
            "pass over directories that lack it",
        ),
    ),
    Bug(
        id="ACC-02",
        affected={"accelerate": ">=1.1"},
        source=f"{_HF}accelerate/blob/v1.15.0/src/accelerate/accelerator.py",
        contract="crash_safe",
        sentence="in N of M states that a kill can leave there is no whole checkpoint any more, though step 4 had been saved",
        step=4,
        component="steps",
        says=("deleted before the new one is whole",),
    ),
    Bug(
        id="MM-01",
        affected={"mmengine": ">=0.7.4"},  # 0.7.3 deletes when it has saved
        source="https://github.com/open-mmlab/mmengine/blob/v0.10.7/mmengine/hooks/checkpoint_hook.py",
        contract="crash_safe",
        sentence="in N of M states that a kill can leave there is no whole checkpoint any more, though step 2 had been saved",
        step=2,
        component="steps",
        says=("deleted before the new one is whole",),
    ),
    Bug(
        id="PT-03",
        affected={"torch": ""},
        source="https://github.com/pytorch/pytorch/blob/v2.13.0/torch/distributed/checkpoint/filesystem.py",
        contract="crash_safe",
        sentence="in N of M states that a kill can leave there is no whole checkpoint any more, though step 2 had been saved",
        step=2,
        component="steps",
        says=("written over the old one", "rename it to the old one's name"),
    ),
    Bug(
        id="PT-20",
        affected={"torch": ""},
        source="https://github.com/pytorch/pytorch/blob/v2.13.0/torch/distributed/checkpoint/filesystem.py",
        contract="power_safe",
        sentence="in N of M states that a power failure can leave, a restart fails though step2 is whole",
        step=3,
        component="runs",
        checkpoint="step2",
        says=("step4/.metadata was synced before all its bytes had been written", "flush and fsync"),
    ),
    Bug(
        id="PT-07",
        affected={"torch": ""},
        source="https://github.com/PolymathicAI/the_well/issues/77",
        contract="resumable",
        sentence="resumed from step 5: step 6 differs from the uninterrupted run in scheduler",
        step=6,
        component="scheduler",
        checkpoint="step_5.pt",
        says=("the scheduler does not stand where it stood", "scheduler.state_dict()"),
    ),
    Bug(
        id="HF-31",
        affected={"transformers": ">=5.0"},
        source="https://github.com/huggingface/transformers/blob/v5.24.0/src/transformers/trainer.py",
        contract="resumable",
        sentence="resumed from step 3: step 4 differs from the uninterrupted run in weights",
        step=4,
        component="weights",
        checkpoint="checkpoint-3",
        says=("stacked experts", "warns of missing keys", "by from_pretrained(checkpoint)"),
    ),
    Bug(
        id="HF-32",
        affected={"transformers": ">=4.50"},  # seen in 4.57.6 and 5.24.0
        source="https://github.com/huggingface/transformers/blob/v5.24.0/src/transformers/trainer.py",
        contract="loadable",
        sentence="Net.from_pretrained(checkpoint-2) leaves 4 of 4 tensors at their initial values: the keys in the file start "
        "with `_orig_mod.`",
        step=2,
        component="loading",
        checkpoint="checkpoint-2",
        says=("torch.compile(model) was saved", "torch_compile=True"),
    ),
    Bug(
        id="HF-32",
        affected={"transformers": "<4.50"},  # seen in 4.40.2 and 4.46.3
        source="https://github.com/huggingface/transformers/blob/v5.24.0/src/transformers/trainer.py",
        contract="loadable",
        sentence="Net.from_pretrained can't load checkpoint-2: it has no config.json",
        step=2,
        component="loading",
        checkpoint="checkpoint-2",
        says=("its save_pretrained does",),
    ),
    Bug(
        id="PEFT-02",
        affected={"peft": ""},
        source="https://github.com/huggingface/peft/blob/v0.21.2/examples/pissa_finetuning/README.md",
        contract="resumable",
        sentence="resuming from step 2 depends on the unseeded state of the process when the job is built: weights",
        step=3,
        component="weights",
        checkpoint="checkpoint-2",
        says=("frozen weights) is neither saved nor seeded", "seed before building it"),
    ),
    Bug(
        id="PL-01",
        affected={"lightning": "<2.5.4"},
        source=f"{_LIGHTNING}pull/21079",
        contract="faithful",
        sentence="checkpoints/epoch=0-step=5.ckpt was saved for step 5 and holds the state of step 15",
        step=5,
        component="weights",
        checkpoint="checkpoints/epoch=0-step=5.ckpt",
        says=("an asynchronous save without a copy of the state",),
    ),
    Bug(
        id="PL-02",
        affected={"lightning": "<2.5"},
        source=f"{_LIGHTNING}issues/19367",
        contract="resumable",
        sentence="resumed from step 5: step 7 differs from the uninterrupted run in data, lr, scheduler",
        step=7,
        component="data",
        checkpoint="checkpoints/epoch=0-step=5.ckpt",
        says=("trains one batch more", "Lightning 2.5 or newer"),
    ),
    Bug(
        id="PL-04",
        affected={"lightning": "<2.5"},
        source=f"{_LIGHTNING}issues/20288",
        contract="resumable",
        sentence="resumed from step 5: step 6 differs from the uninterrupted run in lr, scheduler",
        step=6,
        component="lr",
        checkpoint="checkpoints/epoch=0-step=5.ckpt",
        says=("steps a scheduler of epochs twice", "Lightning 2.5 or newer"),
    ),
    Bug(
        id="PL-05",
        affected={"lightning": ">=2.6"},
        source=f"{_LIGHTNING}pull/21244",
        contract="final_step",
        sentence="training ended at step 15 and the newest checkpoint is of step 5: steps 6 to 15 are lost",
        step=15,
        component="final step",
        says=("save_last=True writes last.ckpt only together with another save", "a second callback"),
    ),
    Bug(
        id="PL-07",
        affected={"lightning": ""},
        source=f"{_LIGHTNING}pull/21106",
        contract="count",
        sentence="3 checkpoints on disk, expected 5",
        component="count",
        says=("waits until the metric was logged", "val_check_interval"),
    ),
    Bug(
        id="PL-10",
        affected={"lightning": ""},
        source=f"{_LIGHTNING}issues/1182",
        contract="resumable",
        sentence="resumed from step 7: step 8 differs from the uninterrupted run in data",
        step=8,
        component="data",
        checkpoint="checkpoints/epoch=1-step=7.ckpt",
        says=("does not save the position within an epoch", "StatefulDataLoader"),
    ),
    Bug(
        id="PL-11",
        affected={"lightning": ""},
        source="https://lightning.ai/docs/pytorch/stable/common/checkpointing_basic.html",
        contract="resumable",
        sentence="resumed from step 5: step 6 differs from the uninterrupted run in rng",
        step=6,
        component="rng",
        checkpoint="checkpoints/epoch=0-step=5.ckpt",
        says=("does not save the states of the random generators", "load_state_dict of a callback"),
    ),
    Bug(
        id="PL-12",
        affected={"lightning": ""},
        source=f"{_LIGHTNING}issues/20288",
        contract="resumable",
        sentence="resumed from step 1: step 2 differs from the uninterrupted run in data",
        step=2,
        component="data",
        checkpoint="checkpoints/epoch=0-step=1.ckpt",
        says=("Nor does it save the gradients that were accumulated",),
    ),
    Bug(
        id="PL-14",
        affected={"lightning": ""},
        source=f"{_LIGHTNING}pull/9938",
        contract="final_step",
        sentence="the model that training returns is in no checkpoint: 4 of 4 trained parameters were changed after step 20, "
        "the last, and not saved",
        step=20,
        component="weights",
        says=("StochasticWeightAveraging put other weights into the model", "trainer.save_checkpoint"),
    ),
    Bug(
        id="PL-15",
        affected={"lightning": ""},
        source=f"{_LIGHTNING}issues/17958",
        contract="count",
        sentence="3 checkpoints on disk, expected 6",
        component="count",
        says=("global_step counts every optimizer's step", "a multiple of 2"),
    ),
    Bug(
        id="PL-22",
        affected={"lightning": ">=2.5"},
        source="https://github.com/Lightning-AI/pytorch-lightning/blob/2.6.6/src/lightning/pytorch/loops/fit_loop.py",
        contract="resumable",
        sentence="resumed from step 10, 1 steps were trained, expected 3 (the run ended at step 11 instead of 13)",
        step=11,
        component="steps",
        checkpoint="checkpoints/epoch=1-step=10.ckpt",
        says=("resumes such a one before that end", "end the run by max_epochs"),
    ),
    Bug(
        id="PL-22",
        affected={"lightning": "<2.5"},
        source="https://github.com/Lightning-AI/pytorch-lightning/blob/2.4.0/src/lightning/pytorch/loops/fit_loop.py",
        contract="resumable",
        sentence="resumed from step 10: step 12 differs from the uninterrupted run in data, lr, scheduler",
        step=12,
        component="data",
        checkpoint="checkpoints/epoch=1-step=10.ckpt",
        says=("trains one batch more", "Lightning 2.5 or newer"),
    ),
)


def bug(identity: str, contract: str) -> Bug:
    """Return the bug as a contract finds it on the installed releases; if none of them has it, as it shows elsewhere."""
    declared = [bug for bug in BUGS if (bug.id, bug.contract) == (identity, contract)]
    return next((bug for bug in declared if bug.is_here), declared[0])
