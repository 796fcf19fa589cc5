"""A spinning LiDAR: its beams, its ray casting against a mesh, and what its receiver misses."""

from dataclasses import dataclass, field

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from jaxtyping import Float, Float32, Int, UInt32

from densescan.data.mesh import Mesh

HDL_64E_ELEVATIONS = np.concatenate([np.linspace(2.0, -8.33, 32), np.linspace(-8.83, -24.33, 32)])
"""Beam elevations of a Velodyne HDL-64E [deg]: an upper block every third, a lower block every half degree."""


@dataclass(frozen=True, eq=False)
class SpinningLidar:
    """A sensor with fixed beam elevations that turns about its upright axis."""

    elevations: Float[np.ndarray, " E"] = field(default_factory=HDL_64E_ELEVATIONS.copy)
    """Elevation of each beam above the horizon [deg]."""
    azimuths: int = 2048
    """Firings of each beam in one revolution."""
    min_range: float = 1.5
    """Nothing nearer is reported [m]."""
    max_range: float = 80.0
    """Nothing farther is reported [m]."""
    range_sigma: float = 0.02
    """Standard deviation of a range [m]."""
    azimuth_sigma: float = 0.02
    """Standard deviation of the direction of a firing about the upright axis [deg]."""
    dropout: float = 0.02
    """Share of returns lost whatever the surface."""
    reach: float = 270.0
    """Range at which a surface of median reflectivity, met head-on, is seen every other time [m]; infinite: always."""
    height: float = 1.73
    """Height of the sensor above the road [m]."""

    def directions(self, azimuth_offsets: Float[np.ndarray, "E A"] | float = 0.0) -> Float32[np.ndarray, "E*A 3"]:
        """Unit vector of each ray in the sensor frame (x forward, y left, z up), beam by beam.

        Args: azimuth_offsets: added to the azimuth of each firing [rad].
        """
        turn = -np.arange(self.azimuths) * (2 * np.pi / self.azimuths) + azimuth_offsets
        rise = np.radians(self.elevations)[:, None]
        parts = np.broadcast_arrays(np.cos(rise) * np.cos(turn), np.cos(rise) * np.sin(turn), np.sin(rise))
        return np.stack(parts, -1).reshape(-1, 3).astype(np.float32)


@dataclass(frozen=True)
class Hits:
    """What a scan returns: H rays that met a surface and were received."""

    points: Float32[np.ndarray, "H 3"]
    """Measured positions [m], sensor frame (x forward, y left, z up)."""
    remission: Float32[np.ndarray, " H"]
    """Strength of the return in [0, 1]."""
    labels: UInt32[np.ndarray, " H"]
    """SemanticKITTI label id of the surface met."""
    faces: Int[np.ndarray, " H"]
    """Row of the mesh's face that was met."""


class Raycaster:
    """A mesh prepared for ray casting."""

    def __init__(self, mesh: Mesh):
        self.mesh = mesh
        self.normals = mesh.normals().astype(np.float32)
        self._scene = EmbreeScene()
        TriangleMesh(self._scene, mesh.vertices.astype(np.float32), mesh.faces.astype(np.int32))

    def cast(
        self, origins: Float[np.ndarray, "R 3"], directions: Float[np.ndarray, "R 3"]
    ) -> tuple[Float32[np.ndarray, " R"], Int[np.ndarray, " R"]]:
        """Distance [m] to the first surface along each ray, and the face met; infinity and -1 where there is none.

        Args: origins, directions: rays in the frame of the mesh [m], directions of unit length.
        """
        found = self._scene.run(
            np.ascontiguousarray(origins, np.float32), np.ascontiguousarray(directions, np.float32), output=1
        )
        missed = found["primID"] < 0
        return np.where(missed, np.float32(np.inf), found["tfar"]), found["primID"]


def scan(
    caster: Raycaster, T_world_lidar: Float[np.ndarray, "4 4"], sensor: SpinningLidar, rng: np.random.Generator
) -> Hits:
    """One revolution of the sensor, all rays from one pose.

    A return is received where its strength, reflectivity * cos(incidence) / range^2, exceeds that of a median
    surface met head-on at `sensor.reach`; reflectivity is log-normal. So losses grow with range and grazing angle.

    Args: T_world_lidar: pose of the sensor, world from sensor [m].
    Deviation: a real sensor moves during a revolution; this one stands still, as after motion compensation.
    """
    offsets = np.radians(sensor.azimuth_sigma) * rng.standard_normal((len(sensor.elevations), sensor.azimuths))
    local = sensor.directions(offsets)
    world = local @ T_world_lidar[:3, :3].T.astype(np.float32)
    origins = np.broadcast_to(T_world_lidar[:3, 3].astype(np.float32), world.shape)
    ranges, faces = caster.cast(origins, world)
    hit = np.flatnonzero((ranges > sensor.min_range) & (ranges < sensor.max_range))
    ranges, faces, local = ranges[hit], faces[hit], local[hit]
    cosine = np.abs(np.einsum("rc,rc->r", world[hit], caster.normals[faces]))
    strength = cosine * rng.lognormal(0.0, 0.6, len(hit)).astype(np.float32)
    received = (strength * sensor.reach**2 > ranges**2) & (rng.random(len(hit)) >= sensor.dropout)
    noisy = ranges + np.float32(sensor.range_sigma) * rng.standard_normal(len(hit), dtype=np.float32)
    points = (local * noisy[:, None])[received]
    remission = np.clip(0.3 * strength, 0.0, 0.99)[received]
    faces = faces[received]
    return Hits(points, remission.astype(np.float32), caster.mesh.labels[faces], faces)


def surface(
    caster: Raycaster, T_world_lidar: Float[np.ndarray, "4 4"], directions: Float[np.ndarray, "R 3"], max_range: float
) -> tuple[Float[np.ndarray, "H 3"], UInt32[np.ndarray, " H"]]:
    """Exact surface points that rays from one pose meet, world frame [m], and their labels: no noise, no losses.

    Args: directions: unit vectors in the sensor frame. max_range: nothing farther is returned [m].
    """
    world = directions @ T_world_lidar[:3, :3].T
    origin = T_world_lidar[:3, 3]
    ranges, faces = caster.cast(np.broadcast_to(origin, world.shape), world)
    hit = np.flatnonzero(ranges < max_range)
    return origin + world[hit] * ranges[hit, None].astype(np.float64), caster.mesh.labels[faces[hit]]
