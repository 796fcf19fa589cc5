"""What the command line shows: results on stdout; warnings, errors and progress on stderr."""

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from densescan.errors import InputError

PROGRAM = "densescan"
LINE_SECONDS = 10.0
"""Where there is no terminal, progress is a line each time this long has passed [s]."""

Update = Callable[[int, str], None]
"""update(done, note): how many of the total are done, and what else to show."""


def say(text: str = "") -> None:
    """Write lines to stdout as they are."""
    _write(Console(), text)


def complain(text: str) -> None:
    """Write one line to stderr, beginning with the program's name."""
    _write(Console(stderr=True), f"{PROGRAM}: {' '.join(text.splitlines())}")


def show_error(text: str) -> None:
    """Write lines to stderr as they are."""
    if text:
        _write(Console(stderr=True), text.rstrip())


def _write(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)


def rows(pairs: dict[str, str]) -> str:
    """Names and values in two columns."""
    width = max(map(len, pairs))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in pairs.items())


@contextmanager
def progress(title: str, total: int) -> Iterator[Update]:
    """A bar with the time left, or now and then a line where stderr is no terminal.

    The first update says where the work starts: what is done by then does not count towards the speed.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(title, total)
        return
    time_left = TimeRemainingColumn(compact=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        time_left,
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=total, note="")
        started = False

        def update(done: int, note: str) -> None:
            nonlocal started
            if not started:
                bar.reset(task, completed=done)
                started = True
            bar.update(task, completed=done, note=note)

        yield update


def _lines(title: str, total: int) -> Update:
    began = last = time.monotonic()
    first: int | None = None

    def update(done: int, note: str) -> None:
        nonlocal began, last, first
        now = time.monotonic()
        if first is None:
            began, first = now, done
        if now - last < LINE_SECONDS:
            return
        last = now
        left = (now - began) / (done - first) * (total - done) if done > first else None
        time_left = "" if left is None else f", {duration(left)} left"
        complain(f"{title} {done} of {total}{time_left}{', ' if note else ''}{note}")

    return update


def duration(seconds: float) -> str:
    """12.3 s, 4 min or 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


@contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Show every UserWarning as one line of ours instead of Python's two with a source line."""
    with warnings.catch_warnings():
        warnings.filterwarnings("always", category=UserWarning)
        warnings.showwarning = lambda message, *_: complain(f"warning: {message}")
        yield


def guarded(command: Callable[[], None]) -> int:
    """Run a command and return its exit status; what goes wrong becomes one line on stderr.

    0: done. 1: the computation failed (a loss that is not finite, no memory). 2: the user's input. 130: interrupted.
    """
    try:
        with warnings_as_lines():
            command()
    except (InputError, OSError) as error:
        complain(str(error))
        return 2
    except (FloatingPointError, MemoryError) as error:
        complain(str(error) or "out of memory: use fewer points or a smaller model")
        return 1
    except RuntimeError as error:
        if "memory" not in str(error):  # torch has one class for all that goes wrong inside
            raise
        complain(f"out of memory: use fewer points or a smaller model ({str(error).splitlines()[0]})")
        return 1
    except KeyboardInterrupt:
        complain("interrupted")
        return 130
    return 0
