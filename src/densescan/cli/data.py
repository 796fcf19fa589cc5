"""`densescan data`: training data."""

import multiprocessing
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import tyro

from densescan.cli.console import progress, say
from densescan.cli.options import Command, check_folder
from densescan.data.simulator import simulate_sequence, write_sequence
from densescan.errors import InputError


@dataclass(frozen=True)
class Simulate(Command):
    """Simulate drives along random streets: scans and their exact ground truth, in the layout of SemanticKITTI.

    A sequence that is complete is kept; the same command later makes those that are missing.

    Examples:
      densescan data simulate data/train --seeds 0:100 --frames 8 --spacing 5 --workers 4
      densescan data simulate data/validation --seeds 1000:1004
    """

    folder: tyro.conf.Positional[Path]
    """Where to write sequences/SEED/."""
    seeds: str = "0:100"
    """The streets: one seed, or FIRST:END without END itself."""
    frames: int = 8
    """Scans of each drive."""
    spacing: float = 5.0
    """Distance between two scans [m]."""
    workers: int = os.cpu_count() or 1
    """Processes at work at once."""

    def run(self) -> None:
        """Write all sequences that are not there yet.

        Raises: InputError: bad seeds, frames or spacing, or a folder that cannot be written.
        """
        check_folder(self.folder)
        if self.workers < 1:
            raise InputError(f"workers must be at least 1, got {self.workers}")
        seeds = parse_seeds(self.seeds)
        missing = [seed for seed in seeds if not _is_complete(self.folder, seed)]
        with progress("sequences", len(seeds)) as update:
            update(len(seeds) - len(missing), "")
            for done, _ in enumerate(self._simulate(missing), len(seeds) - len(missing) + 1):
                update(done, "")
        kept = f", {len(seeds) - len(missing)} were there" if len(missing) < len(seeds) else ""
        say(f"{self.folder}: {len(seeds)} sequences of {self.frames} frames{kept}")

    def _simulate(self, seeds: list[int]) -> Iterator[Path]:
        """The folder of each sequence as it is finished, in any order."""
        jobs = [(self.folder, seed, self.frames, self.spacing) for seed in seeds]
        if self.workers == 1 or len(jobs) < 2:
            yield from (simulate(*job) for job in jobs)
            return
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(self.workers, len(jobs)), spawn, _ignore_interrupt) as pool:
            futures = [pool.submit(simulate, *job) for job in jobs]
            try:
                for future in as_completed(futures):
                    yield future.result()
            except BrokenProcessPool as error:
                raise MemoryError(
                    "a process was killed, most likely for want of memory: use fewer --workers"
                ) from error
            finally:
                pool.shutdown(wait=False, cancel_futures=True)


def simulate(folder: Path, seed: int, frames: int, spacing: float) -> Path:
    """Make and write one sequence. In a module of its own name, so that a spawned process finds it."""
    return write_sequence(folder, seed, simulate_sequence(seed, frames, spacing))


def parse_seeds(text: str) -> range:
    """ "7" or "0:100" as a range.

    Raises: InputError: anything else, or no seed in it.
    """
    first, separator, end = text.partition(":")
    if first.isdecimal() and (end.isdecimal() if separator else not end):
        seeds = range(int(first), int(end) if separator else int(first) + 1)
        if seeds:
            return seeds
    raise InputError(f"expected --seeds as one number or FIRST:END with FIRST < END, got {text}")


def _is_complete(folder: Path, seed: int) -> bool:
    return (folder / "sequences" / f"{seed:02d}" / "poses.txt").is_file()


def _ignore_interrupt() -> None:
    """Leave Ctrl-C to the parent, which then asks for no further sequence."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
