"""Fused networks against the networks they are made of."""

import copy

import pytest
import torch

from densescan.errors import InputError
from densescan.nets.denoiser import Denoiser
from densescan.nets.encoder import ConditionEncoder
from densescan.nets.fused import fuse
from densescan.nets.refiner import Refiner
from densescan.sparse.int8 import multiplies_int8, rounded_rows

every_norm = pytest.mark.parametrize("norm", ["batch", "bounded", "layer"])
T = torch.tensor([700])


@pytest.fixture
def nets(small):
    """(norm) -> encoder, denoiser and refiner in float32."""
    kinds = (ConditionEncoder, Denoiser, Refiner)
    return lambda norm: [copy.deepcopy(small(kind, norm=norm)).float() for kind in kinds]


def predictions(encoder, denoiser, refiner, points):
    """Guided noise and offsets for the same points."""
    cond, uncond = encoder(points[:, ::5]), encoder.unconditional()
    return denoiser.guided(points, T, cond, uncond, 3.5), refiner.offsets(points)


@every_norm
@torch.no_grad()
def test_a_fused_network_predicts_the_same(norm, nets, cloud):
    plain, points = nets(norm), cloud(1, 900).float()
    expected = predictions(*plain, points)
    for ours, wanted in zip(predictions(*map(fuse, plain), points), expected, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-3 * wanted.std().item())


@every_norm
@torch.no_grad()
def test_a_reduced_type_is_close_and_gives_float32(norm, nets, cloud):
    plain, points = nets(norm), cloud(1, 900).float()
    expected = predictions(*plain, points)
    reduced = predictions(*(fuse(net, torch.bfloat16) for net in plain), points)
    for ours, wanted in zip(reduced, expected, strict=True):
        assert ours.dtype == torch.float32
        assert 0 < (ours - wanted).square().mean().sqrt() < 0.5 * wanted.std()


@pytest.mark.skipif(
    not multiplies_int8(torch.device("cpu")), reason="the processor's sums of 8 bits may overflow"
)
@every_norm
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_whole_numbers_of_8_bits_are_close(norm, dtype, nets, cloud, monkeypatch):
    plain, points, taken = nets(norm), cloud(1, 900).float(), []
    monkeypatch.setattr(
        "densescan.sparse.convolve.rounded_rows", lambda rows: taken.append(1) or rounded_rows(rows)
    )
    expected = predictions(*plain, points)
    reduced = predictions(*(fuse(net, dtype, int8=True) for net in plain), points)
    assert len(taken) > 10
    for ours, wanted in zip(reduced, expected, strict=True):
        assert ours.dtype == torch.float32
        assert 0 < (ours - wanted).square().mean().sqrt() < 0.5 * wanted.std()


@torch.no_grad()
def test_the_original_stays_as_it_was(nets):
    for net in nets("batch"):
        before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
        fuse(net, torch.bfloat16)
        assert before.keys() == net.state_dict().keys()
        assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_no_norm_is_left_of_batch_norm(nets):
    for net in nets("batch"):
        assert not [m for m in fuse(net).modules() if isinstance(m, torch.nn.BatchNorm1d)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_that_are_not_finite_are_refused(nets, dtype):
    denoiser = nets("bounded")[1]
    denoiser.stage3[1].net[0].kernel.data[0, 0, 0] = torch.nan
    with pytest.raises(InputError, match=r"NaN or infinity in stage3.1.net.0.kernel"):
        fuse(denoiser, dtype)
