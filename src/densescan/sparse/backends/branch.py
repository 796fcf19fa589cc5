"""Launches that need not wait for each other: a branch of a recording, which a GPU runs beside the rest of it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Branch:
    """A point among the launches that are being recorded from which on some may go their own way.

    What is launched within `aside` follows what came before that point; what is launched after `join` follows both.
    What was made aside must be kept until all that reads it has been launched: memory that is let go of there is used
    again there, whether the others are done with it or not. Where nothing is recorded, launches follow each other as
    ever.
    """

    def __init__(self, device: torch.device) -> None:
        recording = device.type == "cuda" and torch.cuda.is_current_stream_capturing()
        self._side = torch.cuda.Stream(device) if recording else None
        if self._side is not None:
            self._point = torch.cuda.current_stream(device).record_event()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Launches within need not wait for those after the point, nor those for them."""
        if self._side is None:
            yield
            return
        self._side.wait_event(self._point)
        with torch.cuda.stream(self._side):
            yield

    def join(self) -> None:
        """What is launched from now on follows what was launched aside."""
        if self._side is not None:
            torch.cuda.current_stream(self._side.device).wait_stream(self._side)
