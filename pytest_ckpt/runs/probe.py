"""The probe sees the optimizer steps of any torch program through hooks that torch calls for every module and optimizer."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

import torch
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from pytest_ckpt.records.checkpoint import WRAPPERS
from pytest_ckpt.records.run import SaveEvent
from pytest_ckpt.records.state import StateRecord
from pytest_ckpt.records.strike import Struck
from pytest_ckpt.runs import naming, readings
from pytest_ckpt.runs.clock import StepClock
from pytest_ckpt.runs.forwards import Forwards
from pytest_ckpt.runs.harmless import harmless
from pytest_ckpt.runs.imports import worth_importing
from pytest_ckpt.runs.inventory import Inventory
from pytest_ckpt.runs.ownership import at_exit
from pytest_ckpt.runs.striking import Striker, notice_loaders
from pytest_ckpt.runs.together import strangers
from pytest_ckpt.runs.training_calls import is_pretended, is_training

if TYPE_CHECKING:
    from pytest_ckpt.records.state import Reading
    from pytest_ckpt.records.strike import Strike
    from pytest_ckpt.runs.interrupting import Interruption
    from pytest_ckpt.runs.journal import Journal
    from pytest_ckpt.runs.watch import Watcher

#: Exit code of a process that the probe ended because the experiment has seen enough.
STOPPED = 85


class Probe:
    """Writes one journal event for whatever it sees; grouping into steps happens later, from the journal."""

    def __init__(
        self,
        journal: Journal,
        watcher: Watcher,
        interruption: Interruption,
        strike: Strike | None = None,
    ) -> None:
        self._journal = journal
        self._watcher = watcher
        self._interruption = interruption
        self._striker = Striker(strike, self._told_of_strike, journal.ownership.with_others)
        self._strike = strike
        self._clock = StepClock()
        self._inventory = Inventory()
        self._forwards = Forwards(journal, self._inventory)
        self._thread = threading.get_ident()
        self._searched = 0
        self._known: dict[str, str] = {}
        self._troubles: set[str] = set()
        self._ticks = 0
        self._updating = False
        self._skims = False
        self._skimmed = 0
        self._stamp: tuple[object, ...] = ()
        self._modules = frozenset(sys.modules)
        journal.ownership.when_taken(self._take_over)

    # -- what the process calls --------------------------------------------------------------------------------------

    def attach(self) -> None:
        """Register the hooks; they stay for the life of the process."""
        register_module_forward_pre_hook(self._on_forward)
        register_module_forward_hook(self._on_forwarded, with_kwargs=True)
        register_optimizer_step_pre_hook(self._on_tick)
        register_optimizer_step_post_hook(self._on_ticked)
        if self._strike is not None:
            notice_loaders(self._striker, lambda: self._finished)

    def look(self, phase: str) -> None:
        """Look at the job's directory now."""
        if self._is_ours():
            self._watcher.look(self._finished, phase)

    def expect_told(self) -> None:
        """Note that a framework will tell the end of every step."""
        self._clock.expect_told()

    def skim(self) -> None:
        """From the second step on, note of each only how often optimizers ticked in it: there are thousands, all alike."""
        self._skims = True

    def declare_step(self) -> None:
        """Note that the job says that a step ends; what lies on disk by now was saved before it."""
        self.look("step")
        self.end_step()

    def end_step(self, claimed: int | None = None) -> None:
        """Note that a step ends, as the job or its framework says, with their own number of it."""
        if not self._is_ours():
            return
        step = self._clock.end_step()
        self._journal.ownership.trained(step)
        skimmed = {"ticks": self._skimmed} if self._skimmed else {}
        self._journal.write("step_end", {"step": step, "claimed": claimed, **skimmed})
        self._skimmed = 0
        if self._interruption.is_enough(step):
            self.stop(step)

    @harmless
    def saving(self, path: str, by: str) -> None:
        """Note that a save begins, with the state that it can see."""
        ours = threading.get_ident() == self._thread
        self._watcher.begun(SaveEvent(step=self._finished, path=path, by=by, in_main_thread=ours))
        if ours:
            self._clock.save()
            self.state("save")

    def opening(self, path: str) -> None:
        """Note that a file in the job's directory is opened for writing."""
        if self._journal.ownership.is_here(may_take=False) and threading.get_ident() == self._thread:
            self._watcher.begun(SaveEvent(step=self._finished, path=path, by="open"))

    def finish(self) -> None:
        """Write what is known only in the end: which modules own trained parameters, how those are called, what was imported."""
        self._journal.write("owners", {"modules": self._inventory.owners()})
        self._journal.write("renamed", self._inventory.renamed())
        own = naming.own_names(self._inventory.roots, WRAPPERS)
        self._journal.write("names", {"own": own, "allowed": naming.allowed_globals()})
        if not self._journal.ownership.is_program:  # it starts anew each time
            self._journal.write("imported", {"modules": worth_importing(since=self._modules)})

    def stop(self, step: int = 0) -> None:
        """End the process: the experiment has seen enough."""
        self.finish()
        self._journal.write("stopped", {"step": step})
        self._journal.ownership.end_all(STOPPED)

    def come_back(self) -> bool:
        """Look again from the process that was started, if a rank was looked at meanwhile, and say whether that is so."""
        steps = self._journal.ownership.come_back()
        if steps is not None:
            self._clock.step = steps
        return steps is not None

    @harmless
    def state(self, when: str) -> None:
        """Record what a save may write now, weights as far as they are new; a save in several files is looked at once."""
        stamp = (self._ticks, *self._inventory.fingerprint())
        if stamp == self._stamp:
            return
        self._stamp = stamp
        found = {
            key: reading
            for key, reading in self._inventory.saveable()
            if not key.startswith("weights/") or self._is_new(key, reading)
        }
        if found:
            self._journal.write("state", StateRecord(step=self._finished, when=when, readings=found))

    def trouble(self, text: str) -> None:
        """Note something that could not be read, once."""
        if text not in self._troubles:
            self._troubles.add(text)
            self._journal.write("note", {"text": f"the probe could not read something: {text}"})

    # -- modules -----------------------------------------------------------------------------------------------------

    def _on_forward(self, module: torch.nn.Module, _args: object) -> None:
        if torch.compiler.is_compiling() or not (self._is_ours() and is_training()):
            if self._strike is not None and self._is_ours() and not torch.is_grad_enabled():
                self._striker.reached("evaluation", self._finished)
            return
        if self._forwards.outside:
            self._interruption.fail(self._finished, updates=self._ticks)
            self._begin_forward(module)
            self._striker.reached("forward", self._finished)
        self._forwards.enter(module)

    def _on_forwarded(self, module: torch.nn.Module, args: object, kwargs: object, output: object) -> None:
        if torch.compiler.is_compiling() or not (self._is_ours() and is_training()):
            return
        if self._forwards.leave(module):
            self._end_forward(module, args, kwargs, output)

    @harmless
    def _begin_forward(self, module: torch.nn.Module) -> None:
        if self._interruption.is_enough(self._finished):
            self.stop(self._finished)
        self.look("step")
        self._forwards.begin(module)

    @harmless
    def _end_forward(self, module: torch.nn.Module, args: object, kwargs: object, output: object) -> None:
        known = len(self._inventory.roots)
        if not self._forwards.end(module, args, kwargs, output):
            return
        self._clock.forward()
        if self._updating and self._clock.step == 1 and len(self._inventory.roots) > known:
            # in the optimizer's closure: this model was not known as the step began
            self._inventory.search()
            self._journal.write("averages", {"step": 1, "readings": dict(self._inventory.averages())})

    # -- optimizers --------------------------------------------------------------------------------------------------

    def _on_tick(self, optimizer: torch.optim.Optimizer, _args: object, _kwargs: object) -> None:
        if self._counts() and not self._is_skimming():
            self._before_update(optimizer)

    def _on_ticked(self, optimizer: torch.optim.Optimizer, _args: object, _kwargs: object) -> None:
        if not self._counts():
            return
        if self._is_skimming():
            self._skimmed += 1
        else:
            self._after_update(optimizer)
            self._striker.reached("step", self._finished)

    def _counts(self) -> bool:
        """Say whether a call of an optimizer is an update: not in another thread, not traced, not for its state alone."""
        return self._is_ours() and not torch.compiler.is_compiling() and not is_pretended()

    def _is_skimming(self) -> bool:
        """Say whether steps are only counted: the first one is looked at, so that it is known what is trained."""
        return self._skims and self._clock.step > 0 and not self._updating

    @harmless
    def _before_update(self, optimizer: torch.optim.Optimizer) -> None:
        number = self._inventory.add_optimizer(optimizer)
        if self._clock.begins_step(number):  # forward passes may follow only now, in the optimizer's closure
            self.look("step")
            self._inventory.new_step()
        step = self._clock.tick(number)
        if self._searched < min(step, 2):
            self._searched = step
            self._inventory.search()
        self._updating = True
        state = self._inventory.state_of(optimizer)
        for name, reading in state["weights"].items():
            self._known[f"weights/{name}"] = reading.digest
        rng = readings.random_states()  # counts where no forward pass is seen
        self._journal.write("tick", {"step": step, "optimizer": number, "state": state, "rng": rng})

    @harmless
    def _after_update(self, optimizer: torch.optim.Optimizer) -> None:
        self._updating = False
        number = self._inventory.add_optimizer(optimizer)
        state = self._inventory.update_of(optimizer)
        for name, reading in state["update"].items():
            self._known[f"weights/{name}"] = reading.digest
        self._journal.write("ticked", {"step": self._clock.step, "optimizer": number, "state": state})
        self._forwards.new_step()
        self._ticks += 1
        self._journal.ownership.trained(self._clock.step)

    def _told_of_strike(self, step: int) -> None:
        """Note that the process gets a signal now, and all that is noted at its end only: it may end by that."""
        self.finish()
        if self._strike is not None:
            self._journal.write("struck", Struck(step=step, phase=self._strike.phase))

    # -- ranks -------------------------------------------------------------------------------------------------------

    def _take_over(self) -> None:
        """Go on in this process: it is of rank 0, and was forked to train."""
        self._thread = threading.get_ident()
        if self._journal.ownership.has_rank():
            self._journal.write("rank")
        if text := strangers():
            self._journal.write("note", {"text": text})
        at_exit(self._leave)

    @harmless
    def _leave(self) -> None:
        """Note what is known at the end of the process of rank 0."""
        if self._is_ours():
            self.look("train_end")
            self.state("exit")
            self.finish()

    # -- the rest ----------------------------------------------------------------------------------------------------

    def _is_ours(self) -> bool:
        return threading.get_ident() == self._thread and self._journal.is_ours

    def _is_new(self, key: str, reading: Reading) -> bool:
        if self._known.get(key) == reading.digest:
            return False
        self._known[key] = reading.digest
        return True

    @property
    def _finished(self) -> int:
        """How many steps are done; a forward pass in an optimizer's closure belongs to a step that is not."""
        return self._clock.step - self._updating
