"""Random changes of a scene that a street might have had as well: turned, mirrored, scaled, tilted a little."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from densescan.errors import InputError

RELEASED_SIGMA, RELEASED_CLIP = 0.06, 0.18
"""Perturbation in the LiDiff release: standard deviation and limit of each of three angles [rad]."""
MAX_CLIP = 0.5
"""Largest angle of a perturbation that is accepted [rad]."""


@dataclass(frozen=True)
class Augmentation:
    """How scenes are changed at random before they are trained on, scan and truth alike.

    Raises: InputError: a scale below 1, a spread below 0, or a limit outside of 0 to 0.5 rad.
    Deviation: the release draws the scale evenly from 0.95 to 1.05 where here its logarithm is even, and perturbs after
        turning. It perturbs always; here that is off unless asked for: it tilts the street by several degrees, which
        the sensor of a car never sees, and lifts it by metres at 50 m.
    """

    rotate: bool = True
    """Turn scenes about the vertical axis through the sensor, by any angle."""
    flip: bool = True
    """Mirror every other scene."""
    max_scale: float = 1.05
    """Scenes are scaled by a random factor between its inverse and this."""
    perturb_sigma: float = 0.0
    """Standard deviation of small turns about each of the three axes [rad]; 0: none, released: 0.06."""
    perturb_clip: float = RELEASED_CLIP
    """Largest of these small turns [rad]."""

    def __post_init__(self) -> None:
        rules = {
            "a max_scale of at least 1": self.max_scale >= 1,
            "a perturb_sigma of at least 0": self.perturb_sigma >= 0,
            f"0 <= perturb_clip <= {MAX_CLIP}": 0 <= self.perturb_clip <= MAX_CLIP,
        }
        broken = [rule for rule, kept in rules.items() if not kept]
        if broken:
            raise InputError(
                f"expected scenes changed by {'; '.join(broken)}, got {self}: change these values"
            )


RELEASED = Augmentation(perturb_sigma=RELEASED_SIGMA, perturb_clip=RELEASED_CLIP)
"""As the LiDiff release augments, but for the order and the law of the scale."""


def random_turn(rng: np.random.Generator, config: Augmentation) -> Float32[np.ndarray, "3 3"]:
    """A rotation about the vertical axis, mirrored every other time (row vectors: p @ turn).

    What is switched off still takes its random numbers, so that switching it changes nothing else.
    """
    angle, mirrored = rng.uniform(0, 2 * np.pi), rng.random() < 0.5
    turn = np.eye(3, dtype=np.float32)
    if config.rotate:
        turn[:2, :2] = [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
    if config.flip and mirrored:
        turn[1] *= -1
    return turn


def random_scale(rng: np.random.Generator, config: Augmentation) -> float:
    """A factor between 1 / max_scale and max_scale."""
    return float(config.max_scale ** rng.uniform(-1, 1))


def random_tilt(rng: np.random.Generator, config: Augmentation) -> Float32[np.ndarray, "3 3"]:
    """A small rotation about all three axes (row vectors: p @ tilt); the identity where perturbation is off.

    Source: the perturbation of the LiDiff release: R = Rz Ry Rx, angles normal and clipped.
    """
    if config.perturb_sigma == 0:
        return np.eye(3, dtype=np.float32)
    angles = np.clip(rng.normal(0, config.perturb_sigma, 3), -config.perturb_clip, config.perturb_clip)
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return (about_z @ about_y @ about_x).astype(np.float32)


def reach_before(tilt: Float32[np.ndarray, "3 3"], reach: float, rise: float) -> float:
    """How far apart, horizontally, two points may be that a tilt brings within a horizontal distance [m].

    Args: tilt: less than a quarter turn. reach: distance after it [m]. rise: most that their heights differ [m].
    """
    cos = float(tilt[2, 2])
    return reach if cos == 1 else (reach + rise * float(np.hypot(*tilt[2, :2]))) / cos
