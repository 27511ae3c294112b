"""What a run in which calls failed said of that, saved all the same and left, beside the same run in which none did."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from pytest_ckpt.contracts.base import promised
from pytest_ckpt.contracts.completeness import family, is_whole
from pytest_ckpt.contracts.crash_scenes import Saved
from pytest_ckpt.contracts.restarts import Choice
from pytest_ckpt.contracts.save_calls import is_below, published

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_ckpt.contracts.base import Advisor
    from pytest_ckpt.records.operation import Operation
    from pytest_ckpt.records.run import RunRecord

#: `failed`: the run ended with an error; `hung`; `saved`: it ended well, with all that it promised; `silent`: it ended well
#: without, and did not say so; `told`: it went on and said so, and saved its last step; `unsaved`: it said so, and ended well
#: without its last step; `unsynced`: it ended well, though a file was not made durable.
Ending: TypeAlias = Literal["failed", "hung", "saved", "silent", "told", "unsaved", "unsynced"]

#: Words of trouble; a value such as `err=0.1` is none, and neither is a part of another word, as in `workspace`.
_TROUBLE: Final = re.compile(
    r"(\berr|error)s?\b(?! ?[=:] ?[-+.\d])|errno|exception|fail|quota|unable|warning|not saved"
    r"|could ?n\W?t\b|could not|can ?not|\bcan\Wt\b|\b(space|full|skip(s|ped|ping)?|warn(s|ed)?|E(NOSPC|DQUOT|IO))\b",
    re.IGNORECASE,
)
_LEVELS: Final = ("WARNING", "ERROR", "CRITICAL")
#: Shorter ones may be units, such as the `it/s` of a progress bar, which are others when it is slow.
_WORD: Final = re.compile(r"[^\W\d_]{3,}")
#: How Python begins to report an exception that ended a thread or a process, or met nobody who could catch it.
_UNHEARD: Final = re.compile(r"Exception (in thread|ignored in)|Process [\w:-]+:$")
_UNHEARD_IN_LOG: Final = re.compile(r"ERROR +(asyncio|concurrent\.futures):")
_OF_TRACEBACK: Final = re.compile(
    r"\s|$|Traceback \(|During handling|The above exception|[A-Za-z_][\w.]*(Error|Exception|Exit|Interrupt)\b"
)
#: Of a file of the same save in the undisturbed run, how much of its size is too little.
_TOO_SMALL: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Faulted:
    """A run in which calls failed.

    Attributes:
        undisturbed: the same run in which none did.
        advisor: says which files a checkpoint has.
    """

    run: RunRecord
    undisturbed: RunRecord
    advisor: Advisor

    # -- what happened -----------------------------------------------------------------------------------------------

    @property
    def refused(self) -> Operation | None:
        """The first call that failed; None where the run came to no such call."""
        return next(iter(self.run.trace.refused), None) if self.run.trace is not None else None

    @property
    def ended_well(self) -> bool:
        """Whether nobody who waits for the job's process would think that anything was wrong."""
        outcome = self.run.outcome
        return outcome.status == "finished" or (outcome.status == "exited" and outcome.exit_code == 0)

    @property
    def ending(self) -> Ending:
        """How it ended, as far as a save that fails has a part in that."""
        if not self.ended_well:
            return "hung" if self.run.outcome.status == "hung" else "failed"
        if not self.lost:
            return "unsynced" if self._is_unsynced and not self.told else "saved"
        if not self.told:
            return "silent"
        return "unsaved" if self.lost[-1] == self._promised[-1] else "told"

    @property
    def told(self) -> tuple[str, ...]:
        """What it said of trouble that the undisturbed run did not say, errors that end a thread left out."""
        before = {_words(one.text) for one in self.undisturbed.said}
        unheard = set(_unheard(self.run.sections.get("stderr", "")))
        known = {_words(line) for line in self.undisturbed.sections.get("warnings", "").splitlines()}
        warned = self.run.sections.get("warnings", "").splitlines()
        said = tuple(
            one.text
            for one in self.run.said
            if one.text
            and _words(one.text) not in before
            and one.text not in unheard
            and not _UNHEARD_IN_LOG.match(one.text)
            and (one.text.startswith(_LEVELS) or _TROUBLE.search(one.text))
        )
        return (*said, *(line for line in warned if _words(line) not in known))

    @property
    def unheard(self) -> tuple[str, ...]:
        """The lines of exceptions that only ended a thread."""
        return tuple(_unheard(self.run.sections.get("stderr", "")))

    @property
    def _is_unsynced(self) -> bool:
        """Whether a file could not be made durable, that was not tried again, and it was used all the same."""
        trace, first = self.run.trace, self.refused
        if trace is None or first is None or first.kind != "sync" or first.path is None:
            return False
        later = [one for one in trace.operations if one.time_ns > first.time_ns]
        if any(one.kind == "sync" and one.path == first.path for one in later):
            return False
        named = any(one.kind in {"rename", "link"} and is_below(first.path, one.path) for one in later)
        return named or any(first.path in saved.checkpoint.files for saved in self.left)

    # -- what was saved ----------------------------------------------------------------------------------------------

    @property
    def lost(self) -> tuple[int, ...]:
        """The steps that the undisturbed run saved wholly and this one never."""
        saved = {one.step for one in self._whole()}
        return tuple(step for step in self._promised if step not in saved)

    @property
    def before(self) -> Saved | None:
        """The newest checkpoint whose save had ended before the one in which calls fail."""
        first, steps = self.refused, self._promised[1:2]
        earlier = [
            one
            for one in self._whole()
            if steps and first is not None and one.step < steps[0] and self._published_ns(one) < first.time_ns
        ]
        return max(earlier, key=lambda saved: saved.step, default=None)

    def _published_ns(self, saved: Saved) -> int:
        """Return when a checkpoint was whole: a thread may have saved it long before it was looked at."""
        number = published(saved, self.run)
        return saved.ended_ns if number < 0 or self.run.trace is None else self.run.trace.operations[number].time_ns

    @property
    def left(self) -> tuple[Saved, ...]:
        """The checkpoints that are there whole in the end, in the order of their steps."""
        there = [one for one in self._whole() if one.is_in(self.run.left)]
        return tuple(sorted(there, key=lambda saved: saved.step))

    @property
    def choice(self) -> Choice:
        """What a restart can go on from."""
        steps = sorted({saved.step for saved in self.left})
        return Choice(step=steps[-1] if steps else 0, older=tuple(steps[:-1]))

    @property
    def key(self) -> tuple[tuple[str, ...], ...]:
        """What is there in the end, to tell whether two runs have left the same."""
        return tuple((entry.path, entry.kind, entry.content) for entry in self.run.left.entries)

    @property
    def _promised(self) -> tuple[int, ...]:
        run = self.undisturbed
        families = {family(checkpoint) for checkpoint in promised(run)}
        own = [checkpoint for checkpoint in run.written if family(checkpoint) in families]
        return tuple(sorted({run.step_of(one) for one in own if is_whole(one, run, self.advisor)}))

    def _whole(self) -> Iterator[Saved]:
        """Yield the checkpoints that were whole at some time: with all that the undisturbed run has under their names."""
        families = {family(checkpoint) for checkpoint in promised(self.undisturbed)}
        for checkpoint in self.run.written:
            own = family(checkpoint) in families or checkpoint.kind == "full"
            if own and is_whole(checkpoint, self.run, self.advisor):
                saved = Saved.of(checkpoint, self.run)
                twins = [one for one in self.undisturbed.written if one.path == checkpoint.path]
                if not twins or any(_holds(saved, Saved.of(twin, self.undisturbed)) for twin in twins):
                    yield saved


def _holds(saved: Saved, twin: Saved) -> bool:
    """Say whether a checkpoint has all files of the same one in another run, none of them cut."""
    sizes = {entry.path: entry.size for entry in saved.entries if entry.kind == "file"}
    return all(sizes.get(entry.path, -1) >= entry.size * _TOO_SMALL for entry in twin.entries if entry.kind == "file")


def _words(text: str) -> frozenset[str]:
    """Return what does not depend on the clock in a line, though it be a bar that is drawn again and again."""
    return frozenset(_WORD.findall(text))


def _unheard(stderr: str) -> Iterator[str]:
    """Yield the lines in which Python reports exceptions that nobody has caught, and that ended no more than a thread."""
    within = False
    for line in stderr.splitlines():
        within = bool(_UNHEARD.match(line)) or (within and bool(_OF_TRACEBACK.match(line)))
        if within and line.strip():
            yield line.strip()
