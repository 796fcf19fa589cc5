import load
import torch
from load import Load, measure_load

from densescan.sparse.epilogue import Epilogue
from densescan.sparse.functional import finished_conv
from densescan.sparse.int8 import Int8Kernel
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


def test_convolutions_of_another_type_are_left_out():
    level = voxelise(torch.tensor([[0, 0, 0, 0], [0, 0, 0, 1], [0, 5, 5, 5]])).voxels.submanifold
    kernel = torch.randn(27, 4, 8)

    def work():
        finished_conv(torch.randn(3, 4), kernel, level, Epilogue())
        finished_conv(torch.randn(3, 2, 4), Int8Kernel.rounded(kernel, torch.float32), level, Epilogue())

    assert measure_load(work, torch.float32).flop == 5 * (2 * 4 * 8)
    whole = measure_load(work, torch.int8)
    assert whole.flop == 2 * 5 * (2 * 4 * 8)
    assert whole.peak > 1e9


def test_the_peak_is_that_of_all_stretches():
    found = Load(flop=30.0, seconds=2.0, peaks=(20.0, 40.0))
    assert (found.peak, found.share, found.share_of_highest) == (30.0, 0.5, 0.375)
