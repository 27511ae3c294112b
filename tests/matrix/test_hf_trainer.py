"""No false alarm: correct jobs of transformers' Trainer keep every contract, resumed in processes seeded otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers
from transformers import Trainer

from jobs import hf
from pytest_ckpt import Job, tiny
from pytest_ckpt.contracts import builtin
from pytest_ckpt.contracts.logging_saves import Logged
from pytest_ckpt.contracts.moving import Relocatable
from pytest_ckpt.contracts.purity import Pure
from pytest_ckpt.contracts.stability import StableSchedule
from pytest_ckpt.records.said import CALLBACK

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Judge
    from pytest_ckpt import Verdict


#: What a release warns of is no business of a job that runs on several.
pytestmark = pytest.mark.filterwarnings("default")


def default_set(judge: Judge, train: Callable[[Job], object]) -> dict[str, Verdict]:
    """Judge a job by the default set, and by what resumes tell beyond that."""
    contracts = [contract for kind in builtin() if (contract := kind.default()) is not None]
    return judge(train, *contracts, StableSchedule(), Relocatable(), Pure(), Logged())


def assert_all_hold(
    judge: Judge, train: Callable[[Job], object], *, not_applicable: tuple[str, ...] = (), broken: tuple[str, ...] = ()
) -> None:
    """Fail with every verdict that is not `held`; without a limit there is no retention, without a metric no best."""
    verdicts = default_set(judge, train)
    if not any(facts.keep for facts in judge.baseline.frameworks):
        not_applicable = ("retention", *not_applicable)
    if not any(facts.best and facts.best.path for facts in judge.baseline.frameworks):
        not_applicable = ("best", *not_applicable)
    if not any(said.source == CALLBACK for said in judge.baseline.said):  # an older release may save nothing at all
        verdicts.pop("logged")
    found = {name: verdict for name, verdict in verdicts.items() if verdict.status != "held"}
    expected = {**dict.fromkeys(not_applicable, "not_applicable"), **dict.fromkeys(broken, "violated")}
    assert expected == {name: v.status for name, v in found.items()}, found


SETTINGS: dict[str, dict[str, Any]] = {
    "steps": {"max_steps": 10, "save_steps": 4},
    "steps_that_divide": {"max_steps": 8, "save_steps": 4},
    "every_step": {"max_steps": 6, "save_steps": 1},
    "limit": {"max_steps": 10, "save_steps": 2, "save_total_limit": 2},
    "limit_of_one": {"max_steps": 9, "save_steps": 4, "save_total_limit": 1},
    "fraction": {"max_steps": 10, "save_steps": 0.25},
    "several_epochs": {"num_train_epochs": 2.4, "save_steps": 4},
    "accumulation": {"max_steps": 5, "save_steps": 2, "gradient_accumulation_steps": 2},
    "accumulation_that_divides": {"max_steps": 5, "save_steps": 2, "gradient_accumulation_steps": 5},
    "accumulation_over_epochs": {"num_train_epochs": 3, "save_steps": 2, "gradient_accumulation_steps": 3},
    "last_batch_smaller": {"max_steps": 9, "save_steps": 2, "per_device_train_batch_size": 3},
    "linear_schedule_with_warmup": {"max_steps": 8, "save_steps": 3, "warmup_steps": 4},
    "cosine": {"max_steps": 8, "save_steps": 3, "lr_scheduler_type": "cosine"},
    "adafactor": {"max_steps": 6, "save_steps": 2, "optim": "adafactor"},
    "sgd": {"max_steps": 6, "save_steps": 2, "optim": "sgd"},
    "clipping_and_decay": {"max_steps": 6, "save_steps": 2, "max_grad_norm": 0.1, "weight_decay": 0.1},
    "bf16": {"max_steps": 6, "save_steps": 2, "bf16": True},
    "data_seed": {"max_steps": 8, "save_steps": 3, "data_seed": 77},
    "worker": {"max_steps": 8, "save_steps": 3, "dataloader_num_workers": 1},
    "evaluation": {"max_steps": 8, "save_steps": 2, "eval_strategy": "steps", "eval_steps": 2},
    "logging_every_step": {"max_steps": 6, "save_steps": 2, "logging_steps": 1},
    "saved_as_pickle": {"max_steps": 6, "save_steps": 2, "save_safetensors": False},
}


@pytest.mark.parametrize("settings", SETTINGS)
def test_settings(judge: Judge, settings: str) -> None:
    """Every usual setting that saves by steps holds."""
    given = SETTINGS[settings]
    if hf.EPOCH % given.get("gradient_accumulation_steps", 1) and hf.VERSION < (4, 47):
        pytest.skip("bug HF-30 of this release: what is accumulated at the end of an epoch is lost by a resume")
    if "save_safetensors" in given and hf.VERSION >= (5, 0):
        pytest.skip("transformers 5 always writes safetensors")
    assert_all_hold(judge, lambda job: hf.run_repaired(job, **given))


def test_epochs(judge: Judge) -> None:
    """Saving by epochs, the last one unfinished; some releases save that one at its last step and again at its end."""
    train = lambda job: hf.run_repaired(job, max_steps=12, save_strategy="epoch")  # noqa: E731
    if (4, 42) <= hf.VERSION < (4, 50):
        verdict = default_set(judge, train)["steps"]
        assert ("violated", True) == (verdict.status, "step 12 was saved twice" in verdict.sentence)
        return
    assert_all_hold(judge, train)
    assert (5, 10, 12) == judge.baseline.saved_steps


@pytest.mark.skipif(hf.VERSION < (4, 47), reason="this transformers has no save_strategy='best'")
def test_best(judge: Judge) -> None:
    """Saving when the metric improves, as it does at the end."""
    script = {2: 0.5, 4: 0.7, 6: 0.3, 8: 0.2}

    def train(job: Job) -> None:
        hf.run_repaired(
            job,
            script=script,
            max_steps=8,
            eval_strategy="steps",
            eval_steps=2,
            save_strategy="best",
            metric_for_best_model="loss",
        )

    assert_all_hold(judge, train, not_applicable=("steps", "count"))
    assert (2, 6, 8) == judge.baseline.saved_steps


@pytest.mark.parametrize("limit", [None, 2])
def test_the_best_model_is_loaded_at_the_end(judge: Judge, limit: int | None) -> None:
    """Loading the best model puts an older state into memory; the last step is on disk all the same."""

    def train(job: Job) -> None:
        trainer = hf.trainer(
            job,
            script={2: 0.5, 4: 0.1, 6: 0.7, 8: 0.9},
            max_steps=8,
            eval_strategy="steps",
            eval_steps=2,
            save_steps=2,
            save_total_limit=limit,
            load_best_model_at_end=True,
            callbacks=hf.repairs(),
        )
        trainer.train(resume_from_checkpoint=job.resume_from)
        trainer.save_model(f"{job.dir}/best")

    forgets = hf.VERSION < (4, 50)  # the best is recorded by its absolute path, and not looked for in a moved directory
    assert_all_hold(judge, train, not_applicable=("count",), broken=("relocatable",) if forgets else ())


def test_an_export_beside_the_checkpoints(judge: Judge) -> None:
    """save_model() after training writes the weights once more, at the root."""

    def train(job: Job) -> None:
        trainer = hf.trainer(job, max_steps=10, save_steps=4, callbacks=hf.repairs())
        trainer.train(resume_from_checkpoint=job.resume_from)
        trainer.save_model()

    assert_all_hold(judge, train)


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
def test_language_models(judge: Judge, arch: str) -> None:
    """Tiny language models, one with tied weights, on shuffled text."""
    model, text = tiny.causal_lm(arch=arch), tiny.text()

    def train(job: Job) -> None:
        given = hf.arguments(job, max_steps=10, save_steps=4)
        trainer = Trainer(model, given, train_dataset=text, callbacks=hf.repairs())
        trainer.train(resume_from_checkpoint=job.resume_from)

    assert_all_hold(judge, train)


LANGUAGE: dict[str, dict[str, Any]] = {
    "gradient_checkpointing": {
        "gradient_checkpointing": True,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
    },
    "reentrant_checkpointing": {
        "gradient_checkpointing": True,
        "gradient_checkpointing_kwargs": {"use_reentrant": True},
    },
    "label_smoothing": {"label_smoothing_factor": 0.1},
    "compiled": {"torch_compile": True, "torch_compile_backend": "aot_eager"},
    "neftune": {"neftune_noise_alpha": 0.1},
}


@pytest.mark.parametrize("settings", LANGUAGE)
def test_training_of_language_models(judge: Judge, settings: str) -> None:
    """What is used for language models in particular."""
    model, text = tiny.causal_lm(), tiny.text()

    def train(job: Job) -> None:
        given = hf.arguments(job, max_steps=7, save_steps=3, **LANGUAGE[settings])
        Trainer(model, given, train_dataset=text, callbacks=hf.repairs()).train(resume_from_checkpoint=job.resume_from)

    assert_all_hold(judge, train)


def test_lora(judge: Judge) -> None:
    """An adapter is trained and saved; the base model is not."""
    peft = pytest.importorskip("peft")
    text = tiny.text()

    def train(job: Job) -> None:
        config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], lora_dropout=0.1)
        model = peft.get_peft_model(tiny.causal_lm(), config)
        given = hf.arguments(job, max_steps=7, save_steps=3)
        Trainer(model, given, train_dataset=text, callbacks=hf.repairs()).train(resume_from_checkpoint=job.resume_from)

    assert_all_hold(judge, train, not_applicable=("loadable",))


def test_data_made_by_the_global_generator_in_a_fixture(judge: Judge) -> None:
    """A data set that was built before the job's processes start is the same in all of them."""
    inputs = torch.randn(hf.SAMPLES, 4)
    data = [{"x": row, "labels": row.sum()} for row in inputs]
    assert_all_hold(judge, lambda job: hf.run_repaired(job, data=data, max_steps=8, save_steps=3))


def test_a_trainer_is_driven_by_the_job(judge: Judge) -> None:
    """`job.train` resumes a trainer and cuts its schedule."""

    def train(job: Job) -> None:
        job.train(hf.trainer(job, num_train_epochs=50, save_steps=3, callbacks=hf.repairs()), max_steps=7)

    assert_all_hold(judge, train)
    assert 7 == judge.baseline.last_step


def test_a_trainer_built_by_a_fixture(judge: Judge) -> None:
    """A Trainer that was built once, outside of the job, serves every process."""
    trainer = hf.trainer(Job(judge.next_directory), max_steps=7, save_steps=3)

    def train(job: Job) -> None:
        for callback in hf.repairs():
            trainer.add_callback(callback)
        trainer.train(resume_from_checkpoint=job.resume_from)

    assert_all_hold(judge, train)


def test_early_stopping_at_a_save(judge: Judge) -> None:
    """A run that stops early at a step which is saved anyway loses nothing."""

    def train(job: Job) -> None:
        hf.run_repaired(
            job,
            script={2: 0.1, 4: 0.5, 6: 0.7},
            max_steps=20,
            eval_strategy="steps",
            eval_steps=2,
            save_steps=2,
            load_best_model_at_end=True,
            callbacks=[transformers.EarlyStoppingCallback(2)],
            **({"restore_callback_states_from_checkpoint": True} if hf.VERSION >= (4, 42) else {}),
        )

    verdicts = default_set(judge, train)
    assert "held" == verdicts["final_step"].status
    assert "held" == verdicts["faithful"].status
    assert 6 == judge.baseline.last_step
    if hf.VERSION >= (4, 42):
        assert "held" == verdicts["resumable"].status, verdicts["resumable"]


def test_two_trainings_one_after_the_other(judge: Judge) -> None:
    """Each phase counts its steps from one, in a directory of its own."""

    def train(job: Job) -> None:
        model = hf.Net(hf.Config())
        second = job.resume_from is not None and "/second/" in job.resume_from
        for phase in ("second",) if second else ("first", "second"):
            arguments = hf.arguments(job, max_steps=10, save_steps=5)
            arguments.output_dir = f"{job.dir}/{phase}"
            resumed = job.resume_from if job.resume_from is not None and f"/{phase}/" in job.resume_from else None
            trainer = Trainer(model, arguments, train_dataset=hf.Samples(), data_collator=hf.collate)
            trainer.train(resume_from_checkpoint=resumed)

    assert_all_hold(judge, train, not_applicable=("steps", "count"))
    assert (5, 10, 15, 20) == judge.baseline.saved_steps


@pytest.mark.parametrize("limit", [None, 1])
def test_an_export_is_no_checkpoint_of_the_configuration(judge: Judge, limit: int | None) -> None:
    """With save_strategy="no" none is promised; the model that is exported in the end is not counted as one."""

    def train(job: Job) -> None:
        trainer = hf.trainer(job, max_steps=5, save_strategy="no", save_total_limit=limit)
        trainer.train(resume_from_checkpoint=job.resume_from)
        trainer.save_model()

    verdicts = default_set(judge, train)
    assert verdicts.pop("logged").status in {
        "held",
        "inconclusive",
    }  # newer releases tell of the export, older ones do not
    other = {"best": "not_applicable", "retention": "not_applicable"}
    other |= dict.fromkeys(("resumable", "stable_schedule", "relocatable", "pure"), "inconclusive")
    assert {**dict.fromkeys(verdicts, "held"), **other} == {name: v.status for name, v in verdicts.items()}
