"""Training frames without a folder: streets that are simulated as training asks for them."""

from dataclasses import dataclass

import numpy as np

from densescan.data.frames import Choice, FrameSource
from densescan.data.scan import Scan
from densescan.data.simulation.sensors import SENSORS, SensorName
from densescan.data.simulation.street import CLEAR
from densescan.data.simulator import simulate_sequence
from densescan.data.truth import ArrayTruth, Truth
from densescan.errors import InputError

FIRST_SEED = 2**32
"""Streets have seeds from here on: none that `densescan data simulate` is asked for, so none that is held out."""


@dataclass(frozen=True)
class StreetConfig:
    """What is simulated, and how often it is used.

    Raises: InputError: a count below 1, or a drive longer than the clear stretch of a street.
    """

    sensor: SensorName = "hdl-64e"
    """What scans the streets."""
    frames: int = 8
    """Scans of each street."""
    spacing: float = 5.0
    """Distance between two scans [m]."""
    crops: int = 500
    """Crops that a street is used for: fewer show more streets, and cost more time."""
    at_once: int = 8
    """Streets that crops are taken from in turn, 45 MB each; a multiple of batch size x workers spares double work."""

    def __post_init__(self) -> None:
        rules = {
            "frames, crops and at_once of at least 1": min(self.frames, self.crops, self.at_once) >= 1,
            f"a drive of at most {2 * CLEAR:g} m": 0 <= (self.frames - 1) * self.spacing <= 2 * CLEAR,
        }
        broken = [rule for rule, kept in rules.items() if not kept]
        if broken:
            raise InputError(f"expected streets with {'; '.join(broken)}, got {self}: change these values")


class SimulatedStreets(FrameSource):
    """Streets without end, `at_once` of them at a time; every `crops` crops one of them gives way to another.

    Crop i is cut from a street that (seed, i) decides, whichever process draws it.
    """

    def __init__(self, config: StreetConfig | None = None) -> None:
        self.config = config or StreetConfig()
        self.name = f"simulated streets ({self.config.sensor})"

    def choose(self, i: int, seed: int, rng: np.random.Generator) -> Choice:
        c = self.config
        lane, turn = i % c.at_once, i // c.at_once
        number = (turn + lane * c.crops // c.at_once) // c.crops  # lanes change streets one after the other
        return Choice(lane, number, int(rng.integers(c.frames)))

    def read(self, choice: Choice, seed: int) -> list[tuple[Scan, Truth]]:
        c = self.config
        street = street_seed(seed, choice.slot, choice.group)
        frames = simulate_sequence(street, c.frames, c.spacing, SENSORS[c.sensor]())
        return [
            (Scan(frame.scan, frame.remission), ArrayTruth(f"street {street}, frame {i}", frame.truth))
            for i, frame in enumerate(frames)
        ]


def street_seed(seed: int, lane: int, number: int) -> int:
    """The seed of a lane's street of that number, in the run of a seed."""
    words = np.random.SeedSequence([seed, lane, number]).generate_state(1, np.uint64)
    return FIRST_SEED + int(words[0])
