"""What `densescan train` trains on, and what it is judged by."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from densescan.data.frames import FolderFrames, FrameSource
from densescan.data.streets import SimulatedStreets, StreetConfig
from densescan.errors import InputError

SIMULATOR = Path("simulator")
"""What is given in place of a folder; a folder of that name is given by its full path."""

Names = Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME [NAME ...]")]


@dataclass(frozen=True)
class TrainingData:
    """Frames to train on, and held-out ones."""

    data: Path
    """Training data: a folder of `densescan data prepare` or `data simulate`, or `simulator`, which needs none."""
    sequences: Names = ()
    """Sequences of it, such as 00 01; none: all."""
    validation: Path | None = None
    """Held-out data, likewise: judges the run now and then, and draws OUT/pictures."""
    validation_sequences: Names = ()
    """Sequences of it, such as 08; none: all."""
    streets: StreetConfig = field(default_factory=StreetConfig)
    """What the simulator makes."""

    def open(self) -> tuple[FrameSource, FrameSource | None]:
        """Frames to train on and held-out frames, if there are any.

        Raises: InputError: no such folder or sequence, or one that is not complete; sequences of the simulator, or
            held-out ones without held-out data.
        """
        if self.validation is None and self.validation_sequences:
            raise InputError("--validation-sequences needs --validation: name the folder that holds them")
        held_out = None
        if self.validation is not None:
            held_out = self._source(self.validation, self.validation_sequences)
        return self._source(self.data, self.sequences), held_out

    def describe(self) -> str:
        """What was trained on, in words."""
        if self.data == SIMULATOR:
            return SimulatedStreets(self.streets).name
        chosen = f", sequences {', '.join(self.sequences)}" if self.sequences else ""
        return self.data.resolve().name + chosen

    def _source(self, folder: Path, sequences: tuple[str, ...]) -> FrameSource:
        if folder != SIMULATOR:
            return FolderFrames(folder, sequences)
        if sequences:
            raise InputError(
                f"the simulator has no sequences, got {', '.join(sequences)}: leave them out, or name a folder"
            )
        return SimulatedStreets(self.streets)
