"""The step clock turns ticks of optimizers into steps of a job, whatever kind of loop it is."""

from __future__ import annotations


class StepClock:
    """Counts optimizer steps.

    A tick is one call of one optimizer's `step`. They are not steps: two optimizers tick twice a step, an optimizer in
    the backward pass once per parameter, and an update that a gradient scaler skips may not tick at all. Where
    somebody who knows tells the end of each step (a framework, or the job itself), that counts. Otherwise a step goes on until
    an optimizer ticks again after another forward pass, or any does after a save and another forward pass: a job that
    trains its parts in turn saves between them.
    """

    def __init__(self) -> None:
        self.step = 0
        self._told = False
        self._open = False
        self._ticked: set[int] = set()
        self._forward = False
        self._ever_forward = False
        self._saved = False

    def forward(self) -> None:
        """Note a forward pass that will be trained on."""
        self._forward = self._ever_forward = True

    def save(self) -> None:
        """Note a save; one that follows a forward pass lies within a step."""
        self._saved = self._saved or not self._forward

    def tick(self, optimizer: int) -> int:
        """Note that the optimizer of that number steps, and return the step this belongs to."""
        if self.begins_step(optimizer):
            self.step += 1
            self._open = True
            self._ticked = set()
        self._ticked.add(optimizer)
        self._forward = self._saved = False
        return self.step

    def begins_step(self, optimizer: int) -> bool:
        """Say whether a tick of that optimizer would be the first of a step."""
        if not self._open:
            return True
        if self._told:
            return False
        return (self._saved or optimizer in self._ticked) and (self._forward or not self._ever_forward)

    def end_step(self) -> int:
        """Note that the step ends, as told by the job or its framework, and return its number."""
        if not self._open:
            self.step += 1
        self._told = True
        self._open = False
        self._ticked = set()
        return self.step

    def expect_told(self) -> None:
        """Note that the end of every step will be told from now on."""
        self._told = True
