"""Tries architectures, each in a process of its own, so that one which hangs or crashes is a line in a table."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from .training import Trained, train

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.connection import Connection

TIMEOUT: Final = 120.0
_AT_ONCE: Final = 2
#: What every child would import for itself; transformers loads its parts when they are first used.
_IMPORTED: Final = [
    "torch._dynamo",
    "transformers.modeling_utils",
    "transformers.models.llama.modeling_llama",
    f"{__package__}.training",
]


def try_all(model_types: Sequence[str], show: Callable[[Trained], None]) -> list[Trained]:
    """Train each of them in a process of its own, two at a time; `show` is told of each as it ends."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(_IMPORTED)

    def one(model_type: str) -> Trained:
        here, there = processes.Pipe(duplex=False)
        process = processes.Process(target=_tell, args=(there, model_type))
        process.start()
        there.close()
        told = _answer(here, model_type)
        process.kill()
        process.join()
        show(told)
        return told

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(one, model_types))


def _tell(connection: Connection, model_type: str) -> None:
    import torch

    torch.set_num_threads(1)
    connection.send(train(model_type))


def _answer(connection: Connection, model_type: str) -> Trained:
    if not connection.poll(TIMEOUT):
        return Trained(model_type=model_type, problem=f"it takes longer than {TIMEOUT:.0f} s", seconds=TIMEOUT)
    try:
        answer: Trained = connection.recv()
    except EOFError:
        return Trained(model_type=model_type, problem="its process ended without a word")
    return answer
