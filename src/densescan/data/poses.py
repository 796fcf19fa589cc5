"""KITTI's text files of poses and calibration."""

from pathlib import Path

import numpy as np
from jaxtyping import Float64

from densescan.errors import InputError
from densescan.geometry.poses import lidar_poses


def read_poses(path: str | Path) -> Float64[np.ndarray, "F 4 4"]:
    """Camera poses, one a line: the upper three rows of the matrix, 12 numbers.

    Raises: InputError: no readable file, no pose in it, or a line that does not hold 12 finite numbers.
    """
    lines = [line for line in _read_text(path).splitlines() if line.strip()]
    if not lines:
        raise InputError(f"cannot read {path}: it holds no pose; expected 12 numbers a line")
    return np.stack([_matrix(line.split(), f"{path}, pose {i + 1}") for i, line in enumerate(lines)])


def read_calibration(path: str | Path, name: str = "Tr") -> Float64[np.ndarray, "4 4"]:
    """One matrix of a calib.txt, by default LiDAR to camera.

    Args: path: the file, of lines such as `Tr: 12 numbers`. name: the matrix.
    Raises: InputError: no readable file, no such line, or a line that does not hold 12 finite numbers.
    """
    for line in _read_text(path).splitlines():
        words = line.replace(":", " ", 1).split()
        if words and words[0] == name:
            return _matrix(words[1:], f"{path}, {name}")
    raise InputError(f"cannot read {path}: it has no line '{name}:'; give the calib.txt of the sequence")


def read_lidar_poses(poses: str | Path, calibration: str | Path) -> Float64[np.ndarray, "F 4 4"]:
    """T_world_lidar of every scan of a sequence.

    Args: poses: KITTI poses of the camera. calibration: calib.txt with the matrix Tr.
    Raises: InputError: see `read_poses` and `read_calibration`.
    """
    return lidar_poses(read_poses(poses), read_calibration(calibration))


def _read_text(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="ascii")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}; check the path") from error
    except UnicodeDecodeError as error:
        raise InputError(f"cannot read {path}: it is no text file; expected numbers") from error


def _matrix(words: list[str], where: str) -> np.ndarray:
    """A 4 x 4 matrix from the 12 numbers of its upper three rows."""
    try:
        values = np.array([float(word) for word in words])
    except ValueError as error:
        raise InputError(f"cannot read {where}: {error}; expected 12 numbers") from error
    if values.shape != (12,) or not np.isfinite(values).all():
        raise InputError(f"cannot read {where}: expected 12 finite numbers, got {len(words)} entries")
    return np.concatenate([values.reshape(3, 4), [[0.0, 0.0, 0.0, 1.0]]])
