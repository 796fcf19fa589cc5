"""Rigid motions: where the LiDAR stood at each scan, and where its points lie in another frame.

T_a_b maps coordinates in frame b to coordinates in frame a; matrices act on columns, points are stored in rows.
"""

import numpy as np
from jaxtyping import Float, Float64
from scipy.linalg import logm

from densescan.errors import InputError

_EXPONENTIAL_TERMS = 14
"""Terms of the exponential's series; the angle is at most pi / 4, so what is left out is below 1e-12 of the range."""


def lidar_poses(
    T_camera: Float[np.ndarray, "F 4 4"], Tr: Float[np.ndarray, "4 4"]
) -> Float64[np.ndarray, "F 4 4"]:
    """LiDAR poses from KITTI's camera poses, T_world_lidar = inv(Tr) T_camera Tr; the world is the first LiDAR frame.

    Args: T_camera: poses of the left camera in the frame of its first pose. Tr: LiDAR to camera.
    Source: SemanticKITTI's own tools.   Deviation: none.
    """
    return np.linalg.inv(Tr) @ T_camera @ Tr


def transform(T: Float[np.ndarray, "4 4"], points: Float[np.ndarray, "N 3"]) -> Float64[np.ndarray, "N 3"]:
    """Points moved to another frame: T_a_b and points in b give points in a, in float64.

    Args: T: rigid motion. points: coordinates [m].
    """
    return points.astype(np.float64) @ T[:3, :3].T + T[:3, 3]


def relative_motion(
    T_world_a: Float[np.ndarray, "4 4"], T_world_b: Float[np.ndarray, "4 4"]
) -> Float64[np.ndarray, "4 4"]:
    """T_a_b, the pose of frame b seen from frame a; between consecutive scans the motion during one sweep."""
    return np.linalg.inv(T_world_a) @ T_world_b


def deskew(points: Float[np.ndarray, "N 3"], T_step: Float[np.ndarray, "4 4"]) -> Float64[np.ndarray, "N 3"]:
    """Move each point to where the sensor would have seen it at mid sweep, for a sensor that spins while it drives.

    The sensor turns clockwise seen from above, from straight back over straight ahead (mid sweep) to straight back. A
    point at azimuth a was measured at the time s = -a / (2 pi) of a sweep, from the pose exp(s log T_step) relative to
    the one at mid sweep: constant velocity and turn rate.

    Args: points: raw coordinates [m], each in the sensor frame of its own instant. T_step: T_a_b from this scan to the
        next, one sweep later.
    Raises: InputError: T_step is no rigid motion, or turns by a right angle or more.
    """
    rotation = T_step[:3, :3]
    if not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3) or np.trace(rotation) <= 1.0:
        raise InputError(
            "expected a rigid motion of less than a quarter turn between two scans: check the poses"
        )
    s = -np.arctan2(points[:, 1:2], points[:, :1]) / (2 * np.pi)
    velocity = logm(T_step).real
    term = np.column_stack([points.astype(np.float64), np.ones(len(points))])
    moved = term.copy()
    for k in range(1, _EXPONENTIAL_TERMS):
        term = s / k * (term @ velocity.T)
        moved += term
    return moved[:, :3]
