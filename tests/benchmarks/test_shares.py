import time

import torch
from shares import time_shares

from densescan.nets.blocks import make_stem
from densescan.sparse.tensor import SparseTensor, voxelise


def test_kinds_of_work_are_told_apart():
    coords = torch.randint(0, 12, (3000, 4), generator=torch.Generator().manual_seed(0))
    coords[:, 0] = 0
    stem = make_stem(3, 16, "batch")
    voxels = voxelise(coords).voxels
    x = SparseTensor(torch.randn(len(voxels), 3), voxels)

    def work():
        with torch.inference_mode():
            stem(x)
        time.sleep(0.2)

    shares = time_shares(work)
    for name in ("gather", "multiply", "scatter"):
        assert shares[f"convolution: {name}"] > 0
    assert shares["voxels and kernel maps"] > 0
    assert shares["norm and ReLU"] > 0
    assert shares["matching to the condition"] == 0
    assert shares["the rest"] >= 0.2
    assert min(shares.values()) >= 0
