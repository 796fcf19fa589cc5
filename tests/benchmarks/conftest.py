"""Checked annotations and a small scan for the tests of the benchmarks."""

import numpy as np
import pytest
from jaxtyping import install_import_hook

install_import_hook(
    [
        "completion",
        "convolutions",
        "expected",
        "ground_truth",
        "kernels",
        "load",
        "map_costs",
        "metrics",
        "moving_points",
        "plain",
        "plain_layers",
        "plain_metrics",
        "pages",
        "random_networks",
        "roofline",
        "runs",
        "samples",
        "shares",
        "simulator",
    ],
    "beartype.beartype",
)


@pytest.fixture(scope="session")
def street() -> np.ndarray:
    """900 points of a road between two walls, none nearer than 3.5 m [m], sensor frame."""
    rng = np.random.default_rng(0)
    x = np.sign(rng.uniform(-1, 1, 900)) * rng.uniform(4, 20, 900)
    y, z = rng.uniform(-6, 6, 900), rng.normal(-1.7, 0.02, 900)
    wall = rng.random(900) < 0.4
    y[wall], z[wall] = np.sign(y[wall]) * 6, rng.uniform(-1.7, 2, wall.sum())
    return np.column_stack((x, y, z)).astype(np.float32)
