"""Triton's kernels run on the GPU where there is one, otherwise in Triton's interpreter on CPU tensors."""

import os
import sys

import pytest
import torch

ON_GPU = torch.cuda.is_available()
if not ON_GPU and "triton" not in sys.modules:  # it reads the variable when it is imported
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(scope="session")
def device():
    """Where kernels run. The tests are skipped without Triton, and fail where it is imported in the wrong way."""
    pytest.importorskip("triton", reason="needs Triton: pip install triton")
    from densescan.sparse.backends.launch import INTERPRETED

    assert INTERPRETED != ON_GPU, "Triton was imported before TRITON_INTERPRET=1 was set" * (not ON_GPU)
    return "cuda" if ON_GPU else "cpu"


@pytest.fixture
def level(device, random_coords, level_of):
    """(counts, low, high, seed) -> the voxels of a batch of random clouds, on the device."""
    from densescan.sparse.tensor import Voxels

    def level(counts, low=-4, high=4, seed=0):
        voxels, _ = level_of(random_coords(counts, low, high, seed))
        return Voxels(voxels.keys.to(device))

    return level


@pytest.fixture
def draw(device):
    """(*shape, seed, dtype) -> normal numbers on the device."""

    def draw(*shape, seed=1, dtype=torch.float32):
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(*shape, generator=generator).to(device, dtype)

    return draw
