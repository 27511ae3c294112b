"""How a Trainer comes to its interval of saves, and which settings near by fit the length of the run."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from pytest_ckpt.records.intervals import divisors_near, multiples_near
from pytest_ckpt.records.verdict import Advice

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pytest_ckpt.records.run import FrameworkFacts


#: `num_train_epochs` of a Trainer that was not told any.
_DEFAULT_EPOCHS: Final = 3
#: How many times as many saves as were asked for may be advised.
_NEAR: Final = 4


def interval_of(facts: FrameworkFacts) -> int:
    """Return after every how many steps is saved with save_strategy='steps'; 0 where that is not said."""
    given, planned = float(facts.settings.get("save_steps") or 0), facts.planned_steps or 0
    return math.ceil(planned * given) if 0 < given < 1 else int(given)


def origin(facts: FrameworkFacts) -> str:
    """Say where the interval comes from."""
    asked, planned, interval = _asked(facts), facts.planned_steps or 0, interval_of(facts)
    if not 0 < asked < 1:
        return f"save_steps={interval}"
    parts = round(1 / asked)
    if math.isclose(asked * parts, 1, rel_tol=1e-6):
        return f"save_steps={asked:.4g} of {planned} steps is ceil({planned}/{parts}) = {interval} steps"
    return f"save_steps={asked:.4g} of {planned} steps is {asked * planned:.6g}, rounded up to {interval}"


def fitting(facts: FrameworkFacts, total: int) -> str:
    """Return the settings near by with which the last save comes after the last step."""
    interval, epochs, texts = interval_of(facts), _epochs(facts), []
    if near := divisors_near(total, interval):
        texts.append(f"save_steps={_either(near)}, which divides {total}")
    if per_epoch := list(_per_epoch(facts, total, epochs)):
        texts.append(f"saves_per_epoch: {_either(per_epoch)} with {epochs} epochs, where that decides")
    texts.append(f"max_steps={_either(multiples_near(total, interval))}, which {interval} divides")
    return f"set {'; or '.join(texts)}"


def aligned(facts: FrameworkFacts, total: int) -> Advice:
    """Explain an interval that does not divide the steps of the run."""
    if facts.settings.get("save_strategy") != "steps" or not interval_of(facts):
        return Advice()
    return Advice(
        cause=f"{origin(facts)}, which does not divide the {total} steps of the run.",
        fix=f"{fitting(facts, total)}.",
    )


def _either(numbers: Iterable[int]) -> str:
    return " or ".join(map(str, numbers))


def _asked(facts: FrameworkFacts) -> float:
    return float(facts.settings.get("save_steps asked for") or 0)


def _epochs(facts: FrameworkFacts) -> int:
    """Return the number of epochs that was asked for, if it is a whole one; beside `max_steps` the default means nothing."""
    epochs, limit = float(facts.settings.get("num_train_epochs") or 0), float(facts.settings.get("max_steps") or 0)
    return int(epochs) if epochs.is_integer() and (limit <= 0 or epochs != _DEFAULT_EPOCHS) else 0


def _per_epoch(facts: FrameworkFacts, total: int, epochs: int) -> Iterator[int]:
    """Yield the saves per epoch next to those asked for whose interval, rounded up, divides the run.

    Axolotl turns `saves_per_epoch` into a fraction of the run, and the Trainer rounds what comes of it up.
    """
    asked = _asked(facts)
    wanted = 1 / asked / epochs if epochs and 0 < asked < 1 else 0.0
    if not wanted or not math.isclose(wanted, round(wanted), rel_tol=1e-6):
        return
    most = min(total // epochs, _NEAR * round(wanted))
    fits = [n for n in range(1, most + 1) if total % math.ceil(total / (n * epochs)) == 0]
    yield from [n for n in fits if n < round(wanted)][-1:]
    yield from [n for n in fits if n > round(wanted)][:1]
