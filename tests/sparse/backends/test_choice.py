"""Who computes: the choice between plain PyTorch and the Triton kernels."""

import subprocess
import sys

import torch

from densescan.sparse.backends import backend_of, using


class Claims:
    """A tensor as far as the choice looks at it."""

    def __init__(self, device, dtype):
        self.device, self.dtype = torch.device(device), dtype


def test_the_device_and_the_type_choose(monkeypatch):
    choose = getattr(backend_of, "__wrapped__", backend_of)  # without the check of the argument's type
    for present, expected in ((object(), "triton"), (None, "torch")):
        monkeypatch.setattr("densescan.sparse.backends.find_spec", lambda name, found=present: found)
        assert choose(Claims("cuda", torch.bfloat16)) == expected
        assert choose(Claims("cuda", torch.float64)) == "torch"
        assert choose(Claims("cpu", torch.float32)) == "torch"


def test_a_named_backend_is_used_until_the_end_of_the_block():
    feats = torch.zeros(1, 1)
    with using("triton"):
        with using("torch"):
            assert backend_of(feats) == "torch"
        assert backend_of(feats) == "triton"
    assert backend_of(feats) == "torch"


def test_the_package_does_without_triton():
    """As where it is not installed: its import is made to fail."""
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "import torch, densescan.sparse.functional as functional, densescan.completer\n"
        "from densescan.sparse.tensor import voxelise\n"
        "voxels = voxelise(torch.tensor([[0, 1, 2, 3], [0, 1, 2, 4]])).voxels\n"
        "out = functional.sparse_conv(torch.ones(2, 1), torch.ones(27, 1, 1), voxels.submanifold)\n"
        "assert out.flatten().tolist() == [2.0, 2.0]\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
