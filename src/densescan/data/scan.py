"""One LiDAR sweep as the rest of the package sees it."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from densescan.errors import InputError


@dataclass(frozen=True, eq=False)
class Scan:
    """The points of one sweep.

    Raises: InputError: points that are not an (N, 3) float32 array, or a remission of another length.
    """

    points: Float[np.ndarray, "N 3"]
    """Coordinates [m], float32, sensor frame: x forward, y left, z up."""
    remission: Float[np.ndarray, " N"] | None = None
    """Strength of the returns, in the sensor's own unit."""
    path: Path | None = None
    """The file that the scan was read from."""

    def __post_init__(self) -> None:
        if self.points.ndim != 2 or self.points.shape[1] != 3 or self.points.dtype != np.float32:
            raise InputError(
                f"expected scan points of shape (N, 3) in float32, got {self.points.shape} in {self.points.dtype}: "
                "convert with points[:, :3].astype(numpy.float32)"
            )
        if self.remission is not None and self.remission.shape != self.points.shape[:1]:
            raise InputError(
                f"expected one remission a point, got {self.remission.shape} for {len(self.points)} points: "
                "leave the remission out or give one value a point"
            )

    @classmethod
    def of_array(cls, array: np.ndarray) -> "Scan":
        """The first three columns of an array of numbers; points that are not finite are dropped with a warning that
        counts them.

        Raises: InputError: anything else.
        """
        array = np.asarray(array)
        if array.ndim != 2 or array.shape[1] < 3 or array.dtype.kind not in "fiu":
            raise InputError(
                f"expected a scan as an array of numbers (N, 3) or wider, got shape {array.shape} of {array.dtype}"
            )
        finite = np.isfinite(array[:, :3]).all(axis=1)
        if not finite.all():
            dropped = int((~finite).sum())
            warnings.warn(f"dropped {dropped} of {len(array)} points that are not finite", stacklevel=2)
        return cls(np.ascontiguousarray(array[finite, :3], np.float32))

    def __len__(self) -> int:
        return len(self.points)
