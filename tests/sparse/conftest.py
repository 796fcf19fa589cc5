"""Sets of voxels and recorded layers for the tests of sparse tensors.

tests/data_arrays/layers_small.npz holds inputs, outputs and gradients of MinkowskiEngine's layers under random weights,
named `file.case.array`; gradients are those of sum(out * R). Coordinates C<stride> are shared by the convolutions.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from densescan.sparse.keys import pack
from densescan.sparse.tensor import Voxels

ARRAYS = Path(__file__).parents[1] / "data_arrays" / "layers_small.npz"


@pytest.fixture(scope="session")
def arrays():
    with np.load(ARRAYS) as file:
        return dict(file)


@pytest.fixture
def recorded(arrays):
    """The recorded arrays as tensors, by name; a copy for each test."""
    return {name: torch.tensor(array) for name, array in arrays.items()}


@pytest.fixture(scope="session")
def level_of():
    """(coords, stride) -> the level of these voxels, and the order that sorts rows beside `coords` into its rows."""

    def level_of(coords, stride=1):
        local = coords.long().clone()
        local[:, 1:] //= stride
        keys = pack(local)
        order = torch.argsort(keys)
        return Voxels(keys[order], stride), order

    return level_of


@pytest.fixture(scope="session")
def random_coords():
    """(counts, low, high, seed) -> unique voxels of a batch of clouds, counts[b] in cloud b, in shuffled order."""

    def random_coords(counts, low=-4, high=4, seed=0):
        rng = np.random.default_rng(seed)
        cells = np.stack(np.meshgrid(*[np.arange(low, high)] * 3), -1).reshape(-1, 3)
        clouds = [
            np.column_stack((np.full(count, b), rng.choice(cells, count, replace=False)))
            for b, count in enumerate(counts)
        ]
        return torch.from_numpy(rng.permutation(np.concatenate(clouds)))

    return random_coords
