"""What follows a convolution, against the plain formulas: the shortcuts for reduced types change no bit."""

from itertools import product

import pytest
import torch

from densescan.sparse.epilogue import Epilogue
from densescan.sparse.functional import pointwise_conv
from densescan.sparse.rectify import clamp, rectify

TYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64]
EXTREME = [0.0, -0.0, 1e-7, -1e-7, 1.0, -1.0, 60_000.0, -60_000.0, float("inf"), -float("inf")]


def features(dtype, n=37, channels=48):
    rows = torch.randn(n, 2, channels, generator=torch.Generator().manual_seed(0)) * 5
    rows.view(-1)[: len(EXTREME)] = torch.tensor(EXTREME)
    return rows.to(dtype)


def some_limits(dtype, channels=48):
    """Of either sign, at either end."""
    ends = torch.randn(2, channels, generator=torch.Generator().manual_seed(1)) * 4
    return ends.sort(0).values.to(dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("limited", [False, True])
def test_rectify_is_clamp_then_relu(dtype, limited):
    x = features(dtype)
    limits = some_limits(dtype) if limited else None
    expected = torch.relu(torch.clamp(x, *limits) if limited else x)
    out = torch.empty_like(x)
    rectify(x, limits, out)
    assert torch.equal(out, expected)


@pytest.mark.parametrize("dtype", TYPES)
def test_clamp_is_that_of_pytorch(dtype):
    x, limits = features(dtype), some_limits(dtype)
    expected = torch.clamp(x, *limits)
    clamp(x, limits, x)
    assert torch.equal(x, expected)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("limited", "added", "relu"), list(product([False, True], repeat=3)))
def test_the_epilogue_is_its_parts_in_their_order(dtype, limited, added, relu):
    rows, shift = features(dtype), torch.linspace(-2, 2, 48).to(dtype)
    residual = features(dtype, n=50).flip(0) if added else None
    limits = some_limits(dtype) if limited else None
    where = slice(5, 5 + len(rows))
    expected = rows + shift
    if limited:
        expected = torch.clamp(expected, *limits)
    if added:
        expected = expected + residual[where]
    if relu:
        expected = torch.relu(expected)
    epilogue = Epilogue(shift=shift, limits=limits, residual=residual, relu=relu)
    for one in (epilogue, epilogue.repeated(torch.Size((60, 2, 48)))):
        out = torch.empty_like(rows)
        one(rows.clone(), where, out)
        assert torch.equal(out.nan_to_num(7), expected.nan_to_num(7))


@pytest.mark.parametrize("n", [0, 1, 3_000])
def test_a_pointwise_convolution_is_followed_up_once(n):
    feats, kernel = torch.randn(n, 2, 8), torch.randn(8, 16)
    epilogue = Epilogue(shift=torch.randn(16), limits=some_limits(torch.float32, 16))
    expected = torch.clamp(feats @ kernel + epilogue.shift, *epilogue.limits)
    torch.testing.assert_close(pointwise_conv(feats, kernel, epilogue), expected)
