"""Measuring in processes of their own, while the main process completes the next scene."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np

from densescan.data.workers import killed_for_memory, spawned
from densescan.errors import InputError
from densescan.evaluation.measures import Scores, measure

Submit = Callable[[np.ndarray, np.ndarray, Sequence[str]], "Future[Scores]"]


@dataclass(frozen=True)
class Measurer:
    """Takes scenes and gives their scores when they are ready."""

    submit: Submit
    """submit(pred, truth, names of measures)."""
    ahead: int
    """How many scenes may wait for their scores while the next is made."""


@contextmanager
def measuring(workers: int, device: str = "cpu") -> Iterator[Measurer]:
    """A measurer with so many processes; with none it measures at once, in this process.

    Scores do not depend on the number of workers; the seconds of a method do where it shares the processor, or the GPU
    where they measure on one, with them. Processes are spawned: a script that asks for any needs the usual
    `if __name__ == "__main__":`.

    Args: device: where nearest neighbours are looked for, see `measure`; on a GPU each process takes memory there.
    Raises: InputError: a negative number. MemoryError: a process was killed.
    """
    if workers < 0:
        raise InputError(f"expected 0 or more workers, got {workers}")
    if workers == 0:
        yield Measurer(partial(_at_once, device), 0)
        return
    pool = spawned(workers)
    try:
        with killed_for_memory():
            yield Measurer(lambda *scene: pool.submit(partial(measure, device=device), *scene), workers)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _at_once(device: str, pred: np.ndarray, truth: np.ndarray, names: Sequence[str]) -> "Future[Scores]":
    done: Future[Scores] = Future()
    try:
        done.set_result(measure(pred, truth, names, device))
    except InputError as error:
        done.set_exception(error)
    return done
