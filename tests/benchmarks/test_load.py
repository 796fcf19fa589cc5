import torch
from load import measure_load

from densescan.sparse.modules import SubmanifoldConv
from densescan.sparse.tensor import SparseTensor, voxelise


def test_the_pairs_of_every_convolution_are_counted():
    voxels = voxelise(torch.tensor([[0, 0, 0, 0], [0, 0, 0, 1], [0, 5, 5, 5]])).voxels
    conv, x = SubmanifoldConv(4, 8), SparseTensor(torch.randn(3, 4), voxels)

    def work():
        with torch.inference_mode():
            conv(x)
            conv(x)

    load = measure_load(work, torch.float32)
    pairs = 3 + 2  # every voxel with itself, and two neighbours with each other
    assert load.flop == 2 * pairs * (2 * 4 * 8)
    assert load.seconds > 0
    assert load.peak > 1e9
    assert load.share == load.flop / load.seconds / load.peak
