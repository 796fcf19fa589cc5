"""Small networks with lively weights, crowded clouds, and the networks of the reference runs."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from densescan.nets.denoiser import Denoiser
from densescan.nets.encoder import ConditionEncoder
from densescan.nets.minkunet import NetConfig
from densescan.nets.refiner import Refiner

WIDTH = 1 / 8  # of the small networks
REFERENCE_WIDTH = 1 / 4


def enliven(net, seed):
    """Draw all norm parameters and statistics, so that none is at its neutral start."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.LayerNorm):
            for name, tensor in module.state_dict().items():
                if name in ("weight", "running_var"):
                    tensor.uniform_(0.7, 1.4, generator=generator)
                elif name in ("bias", "running_mean"):
                    tensor.normal_(0.0, 0.3, generator=generator)
    return net


@pytest.fixture(scope="session")
def small():
    """(class, **NetConfig) -> a small network of that form, float64, in inference mode; the same one each time."""

    def small(network, seed=0, **form):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            net = network(NetConfig(width=WIDTH, **form))
        return enliven(net, seed).double().eval()

    return small


@pytest.fixture(scope="session")
def cloud():
    """(B, M, seed, spread [m]) -> clouds (B, M, 3) [m]: crowded patches of ground and wall, float64."""

    def cloud(batch, count, seed=0, spread=1.5):
        generator = torch.Generator().manual_seed(seed)
        points = spread * (2 * torch.rand(batch, count, 3, generator=generator, dtype=torch.float64) - 1)
        thin = 0.05 * torch.randn(batch, count, generator=generator, dtype=torch.float64)
        points[:, ::2, 2], points[:, 1::2, 0] = thin[:, ::2] - 1.7, thin[:, 1::2] + spread
        return points

    return cloud


@pytest.fixture(scope="session")
def reference(shared):
    """(name) -> the content of a reference file: arrays of an .npz as tensors, or a .json."""

    def reference(name):
        path = shared / "reference" / name
        if path.suffix == ".json":
            return json.loads(path.read_text())
        with np.load(path) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}

    return reference


@pytest.fixture(scope="session")
def released(shared):
    """(class) -> a network of the reference runs, with its recorded weights, in inference mode."""
    files = {
        ConditionEncoder: ("net_diff_cr025_weights_fp16.safetensors", "partial_enc."),
        Denoiser: ("net_diff_cr025_weights_fp16.safetensors", "model."),
        Refiner: ("net_refine_cr025_weights_fp16.safetensors", "model_refine."),
    }

    def released(network):
        file, prefix = files[network]
        tensors = load_file(shared / "reference" / file)
        net = network(NetConfig(width=REFERENCE_WIDTH))
        net.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
        return net.eval()

    return released
