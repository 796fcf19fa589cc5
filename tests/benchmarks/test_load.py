import load
import torch
from load import Load, measure_load

from densescan.sparse.modules import SubmanifoldConv
from densescan.sparse.tensor import SparseTensor, voxelise


def test_the_pairs_of_every_convolution_are_counted(monkeypatch):
    voxels = voxelise(torch.tensor([[0, 0, 0, 0], [0, 0, 0, 1], [0, 5, 5, 5]])).voxels
    conv, x = SubmanifoldConv(4, 8), SparseTensor(torch.randn(3, 4), voxels)

    def work():
        with torch.inference_mode():
            conv(x)
            conv(x)

    found = measure_load(work, torch.float32)
    pairs = 3 + 2  # every voxel with itself, and two neighbours with each other
    assert found.flop == 2 * pairs * (2 * 4 * 8)
    assert found.seconds > 0
    assert found.peak > 1e9
    monkeypatch.setattr(load, "STRETCH", 0.0)
    assert len(measure_load(work, torch.float32).peaks) == 2


def test_the_peak_is_that_of_all_stretches():
    found = Load(flop=30.0, seconds=2.0, peaks=(20.0, 40.0))
    assert (found.peak, found.share, found.share_of_highest) == (30.0, 0.5, 0.375)
