"""The package itself: both parts are fit, what is broken is found, and what is mended is not."""

from __future__ import annotations

import pytest
from acme_ckpt.framework import AcmeTrain
from acme_ckpt.model_card import ModelCard

from pytest_ckpt.testing import check_contract, check_framework

JOB = """
import pytest, torch
from acme_train import Trainer

@pytest.mark.ckpt_model_card
@pytest.mark.ckpt_final_step
@pytest.mark.ckpt_resumable
def test_job(ckpt_job):
    seeded = torch.Generator().manual_seed(0)
    batches = [torch.randn(2, 8, 4, generator=seeded) for _ in range(5)]
    trainer = Trainer(torch.nn.Linear(4, 4), batches, folder=ckpt_job.dir, steps=7, save_every=2, {settings})
    ckpt_job.train(trainer)
"""


def run(pytester, settings, *arguments):
    """Run pytest on a job with these settings of the trainer."""
    pytester.makepyfile(JOB.format(settings=settings))
    return pytester.runpytest_subprocess("--ckpt-contract", *arguments)


def test_both_parts_are_fit():
    """pytest-ckpt checks for us that the classes have what it asks for."""
    check_contract(ModelCard)
    check_contract(ModelCard, file="MODEL_CARD.md", least=200)
    check_framework(AcmeTrain())


def test_checkpoints_without_a_card_are_found(pytester):
    """The failure has a line for each checkpoint, and says what to write."""
    result = run(pytester, "card=''")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(
        [
            "checkpoint contract broken: model_card",
            "  4 of 4 checkpoints have no README.md of at least 1 byte",
            "    ckpt/step00002   no README.md",
            "  fix: write a README.md of at least 1 byte into each checkpoint.",
        ]
    )


def test_the_last_step_is_lost_in_the_trainers_own_words(pytester):
    """The adapter explains by the settings of the trainer why nothing was saved."""
    result = run(pytester, "save_last=False")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(
        [
            "checkpoint contract broken: final_step",
            "  save_last=False and save_every=2: step 7 is not saved.",
            "  fix: set save_last=True.",
        ]
    )


def test_the_mended_job_holds(pytester):
    """No contract is broken where the trainer is left as it comes."""
    run(pytester, "").assert_outcomes(passed=3)


def test_a_wrong_argument_is_refused(pytester):
    """As with the built-in marks, that ends the session with one line."""
    pytester.makepyfile("import pytest\n@pytest.mark.ckpt_model_card(least=0)\ndef test_job(ckpt_job): pass")
    result = pytester.runpytest_subprocess("--ckpt-contract")
    assert result.ret == pytest.ExitCode.USAGE_ERROR  # noqa: S101 - a test
    result.stderr.fnmatch_lines(["*least must be 1 or more; got 0*"])


def test_without_pytest_ckpt_nothing_happens(pytester):
    """A session without it goes on as if this package were not there."""
    pytester.makepyfile("def test_other(): pass")
    pytester.runpytest_subprocess("-p", "no:ckpt").assert_outcomes(passed=1)
