"""A fixture that hands over a trainer it has built: the job's processes inherit it, with the seed that it set."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import pytest

from plugin.test_hooks import FRAMEWORK

if TYPE_CHECKING:
    from plugin.conftest import Sessions

WARNING: Final = (
    "*PytestWarning: the fixture {} hands a {} to the training job: it is built and seeded once, and each *"
)
LOOP: Final = """
    import torch
    import my_loop
    from jobs import plain

    class MyTrainer:
        \"\"\"Seeds when it is built, and draws noise without saving the state of the generator.\"\"\"

        def __init__(self):
            torch.manual_seed(7)
            self.model = torch.nn.Linear(plain.FEATURES, plain.CLASSES)
            self.noise = torch.rand(9)

        def fit(self, job):
            noise = torch.rand(9)
            optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05)
            first = 0
            if job.resume_from:
                state = torch.load(job.resume_from)
                self.model.load_state_dict(state["model"])
                optimizer.load_state_dict(state["optimizer"])
                first = state["step"]
            for step in range(first + 1, 5):
                inputs, targets = plain.batch(step)
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(self.model(inputs + noise[step]), targets).backward()
                optimizer.step()
                if step % 2 == 0:
                    state = {"model": self.model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
                    torch.save(state, job.path / f"step_{step}.pt")
"""


@pytest.fixture
def with_loop(sessions: Sessions) -> Sessions:
    """A repository with a framework of its own."""
    sessions.pytester.makeconftest(FRAMEWORK)
    sessions.pytester.makepyfile(my_loop="")
    return sessions


@pytest.mark.parametrize("returned", ["MyTrainer()", "(3, MyTrainer())"])
def test_a_trainer_that_a_fixture_has_built(with_loop: Sessions, returned: str) -> None:
    """A warning names the fixture; what the trainer has seeded is the same in each process, so nothing seems to differ."""
    index = "" if returned == "MyTrainer()" else "[1]"
    with_loop.write(
        LOOP
        + f"""
    @pytest.fixture
    def built():
        return {returned}

    @pytest.mark.ckpt_resumable
    def test_job(ckpt_job, built):
        built{index}.fit(ckpt_job)
    """
    )
    result = with_loop()
    result.assert_outcomes(passed=1, warnings=1)
    result.stdout.fnmatch_lines([WARNING.format("built", "MyTrainer")])


def test_a_trainer_that_is_built_in_the_job(with_loop: Sessions) -> None:
    """There is nothing to warn of, and each process seeds for itself."""
    with_loop.write(
        LOOP
        + """
    @pytest.mark.ckpt_resumable
    def test_job(ckpt_job):
        MyTrainer().fit(ckpt_job)
    """
    )
    with_loop().assert_outcomes(passed=1, warnings=0)


def test_other_fixtures_do_not_keep_the_random_state(with_loop: Sessions) -> None:
    """A job that depends on what it does not seed is told so, as long as no trainer comes from a fixture."""
    with_loop.write(
        LOOP.replace("torch.manual_seed(7)", "pass")
        + """
    @pytest.fixture
    def kind():
        return MyTrainer

    @pytest.mark.ckpt_resumable
    def test_job(ckpt_job, kind):
        kind().fit(ckpt_job)
    """
    )
    result = with_loop()
    result.assert_outcomes(failed=1, warnings=0)
    result.stdout.fnmatch_lines(["*unseeded*"])


def test_trainers_of_transformers(sessions: Sessions) -> None:
    """A Trainer from a fixture and one from the body: both are judged alike, and the first is warned of."""
    pytest.importorskip("transformers")
    sessions.write(
        """
        from jobs import hf

        @pytest.fixture
        def trainer(ckpt_job):
            return hf.trainer(ckpt_job, max_steps=7, save_steps=3, callbacks=hf.repairs())

        @pytest.mark.ckpt_contract
        def test_fixture(ckpt_job, trainer):
            trainer.train(resume_from_checkpoint=ckpt_job.resume_from)

        @pytest.mark.ckpt_contract
        def test_body(ckpt_job):
            trainer = hf.trainer(ckpt_job, max_steps=7, save_steps=3, callbacks=hf.repairs())
            trainer.train(resume_from_checkpoint=ckpt_job.resume_from)

        @pytest.mark.ckpt_final_step
        def test_elsewhere(ckpt_job, tmp_path):
            class Elsewhere:
                dir, resume_from = str(tmp_path), ckpt_job.resume_from
            hf.run(Elsewhere, max_steps=4, save_steps=2)
        """
    )
    result = sessions.apart("-W", "ignore::FutureWarning", timeout=120)
    result.assert_outcomes(passed=14, skipped=4, failed=1, warnings=1)
    result.stdout.fnmatch_lines([WARNING.format("trainer", "Trainer")])
    result.stdout.fnmatch_lines(["  the job saved outside ckpt_job.dir:*"])
    assert "transformers" not in sys.modules or "1 warning" in result.stdout.str()
