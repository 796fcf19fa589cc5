"""Layers on sparse tensors: recorded arrays, dense counterparts, names of parameters, refusals."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from densescan.sparse.functional import points_to_voxels
from densescan.sparse.modules import (
    BatchNorm,
    LayerNorm,
    PointwiseConv,
    ReLU,
    StridedConv,
    SubmanifoldConv,
    TransposedConv,
    concat,
)
from densescan.sparse.rows import gather
from densescan.sparse.tensor import SparseTensor, voxelise


def draw(*shape, seed=1, dtype=torch.float64):
    """The same normal numbers, rounded, in every type."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def part(recorded, prefix):
    """The recorded arrays below a prefix."""
    return {name.removeprefix(prefix): x for name, x in recorded.items() if name.startswith(prefix)}


class Chain(nn.Module):
    """A U of two levels out of every layer, as recorded."""

    def __init__(self):
        super().__init__()
        self.c1, self.b1 = SubmanifoldConv(3, 6), BatchNorm(6)
        self.d, self.b2 = StridedConv(6, 8), BatchNorm(8)
        self.c2, self.b3 = SubmanifoldConv(8, 8), BatchNorm(8)
        self.u, self.b4 = TransposedConv(8, 5), BatchNorm(5)
        self.c3, self.lin, self.relu = PointwiseConv(11, 4), nn.Linear(4, 3), ReLU()

    def forward(self, feats, coords):
        point_map = voxelise(coords)
        x = SparseTensor(points_to_voxels(feats, point_map), point_map.voxels)
        x0 = self.relu(self.b1(self.c1(x)))
        x1 = self.relu(self.b2(self.d(x0)))
        y = self.b3(self.c2(x1))
        y = self.relu(y.with_feats(y.feats + x1.feats))
        y = self.c3(concat(self.relu(self.b4(self.u(y, x0.voxels))), x0))
        return self.lin(gather(y.feats, point_map.inverse))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_a_chain_of_all_layers_reproduces_the_recorded_arrays(mode, dtype, recorded):
    chain = Chain()
    state = part(recorded, "chain.sd.")
    assert state.keys() == chain.state_dict().keys()
    if mode == "eval":
        state |= part(recorded, "chain.sd_after_train.")
    chain.load_state_dict(state)
    chain.to(dtype).train(mode == "train")
    feats = recorded["chain.F"].to(dtype).requires_grad_()
    out = chain(feats, recorded["chain.coords"])
    (out * recorded["chain.R"].to(dtype)).sum().backward()

    def agrees(ours, name):
        expected = recorded[f"chain.{name}"].to(dtype)
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=2e-6 * expected.abs().max().item())

    agrees(out, f"{mode}.out")
    agrees(feats.grad, f"{mode}.grad_F")
    for name, parameter in chain.named_parameters():
        agrees(parameter.grad, f"{mode}.grad.{name}")
    after = part(recorded, "chain.sd_after_train.")
    for name, buffer in chain.named_buffers():
        torch.testing.assert_close(buffer.to(after[name].dtype), after[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_a_bounded_norm_keeps_features_within_its_reach(mode, level_of):
    voxels, _ = level_of(torch.tensor([[0, 0, 0, i] for i in range(4)]))
    feats = torch.tensor([[-90.0, 0.1], [0.5, 90.0], [0.0, 0.0], [-0.5, -1.0]])
    norms = BatchNorm(2), BatchNorm(2, bound=1.5)
    for norm in norms:
        norm.train(mode == "train")
        norm.bn.load_state_dict(
            {**norm.bn.state_dict(), "weight": torch.tensor([2.0, -1.0]), "bias": torch.ones(2)}
        )
    free, bounded = (norm(SparseTensor(feats, voxels)).feats for norm in norms)
    low, high = torch.tensor([[-2.0, -0.5], [4.0, 2.5]])
    assert torch.equal(bounded, free.clamp(low, high))
    assert not torch.equal(bounded, free)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_batch_norm_reproduces_the_recorded_arrays(mode, recorded, level_of):
    arrays = part(recorded, "bn_cat.")
    norm = BatchNorm(4)
    norm.load_state_dict(part(recorded, "bn_cat.before." if mode == "train" else "bn_cat.after_train."))
    norm.train(mode == "train")
    voxels, _ = level_of(recorded["conv.C1"])  # any 420 voxels: the norm does not look at them
    feats = arrays["in_F"].requires_grad_()
    out = norm(SparseTensor(feats, voxels)).feats
    (out * arrays["R"]).sum().backward()
    for ours, name in (
        (out, "out"),
        (feats.grad, "grad_in"),
        (norm.bn.weight.grad, "grad_weight"),
        (norm.bn.bias.grad, "grad_bias"),
    ):
        torch.testing.assert_close(ours, arrays[f"{mode}_{name}"], rtol=1e-5, atol=2e-5)
    for name, after in part(recorded, "bn_cat.after_train.").items():
        torch.testing.assert_close(norm.state_dict()[name], after)


def test_concatenation_reproduces_the_recorded_array(recorded, level_of):
    voxels, _ = level_of(recorded["conv.C1"][:60])
    a, b = (SparseTensor(recorded[f"bn_cat.cat_{name}"], voxels) for name in "ab")
    assert torch.equal(concat(a, b).feats, recorded["bn_cat.cat_out"])


def test_pointwise_convolution_reproduces_the_recorded_arrays(recorded, level_of):
    voxels, order = level_of(recorded["conv.C1"])
    case = part(recorded, "conv.conv_k1.")
    conv = PointwiseConv(4, 6)
    conv.load_state_dict({"kernel": case["kernel"]})
    feats = recorded["conv.F1"][order].requires_grad_()
    out = conv(SparseTensor(feats, voxels)).feats
    torch.testing.assert_close(out, case["out_F"][order], rtol=1e-5, atol=1e-6)
    (out * case["R"][order]).sum().backward()
    torch.testing.assert_close(feats.grad, case["grad_in_F"][order], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(conv.kernel.grad, case["grad_kernel"], rtol=1e-5, atol=1e-5)


def test_pointwise_convolution_equals_the_dense_one(random_coords, level_of):
    voxels, _ = level_of(random_coords((30, 12)))
    conv = PointwiseConv(3, 4).double()
    x = draw(42, 3).requires_grad_()
    dense = F.conv3d(x[:, :, None, None, None], conv.kernel.T[:, :, None, None, None]).flatten(1)
    sparse = conv(SparseTensor(x, voxels)).feats
    torch.testing.assert_close(sparse, dense)
    weight = draw(42, 4, seed=2)
    for one, other in zip(
        torch.autograd.grad((sparse * weight).sum(), (x, conv.kernel)),
        torch.autograd.grad((dense * weight).sum(), (x, conv.kernel)),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_layers_keep_or_change_the_level(random_coords, level_of):
    voxels, _ = level_of(random_coords((30, 12)))
    x = SparseTensor(draw(42, 3, dtype=torch.float32), voxels)
    for layer in (SubmanifoldConv(3, 4), PointwiseConv(3, 4), BatchNorm(3), LayerNorm(3), ReLU()):
        assert layer(x).voxels is voxels
    coarse = StridedConv(3, 4)(x)
    assert coarse.voxels is voxels.coarser
    assert TransposedConv(4, 5)(coarse, voxels).voxels is voxels


def test_layer_norm_sees_one_voxel_at_a_time(random_coords, level_of):
    voxels, _ = level_of(random_coords((30, 12)))
    norm = LayerNorm(5).double()
    with torch.no_grad():
        norm.ln.weight.copy_(draw(5, seed=2))
        norm.ln.bias.copy_(draw(5, seed=3))
    x = draw(42, 5)
    out = norm(SparseTensor(x, voxels)).feats
    centred = x - x.mean(1, keepdim=True)
    expected = centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt() * draw(5, seed=2) + draw(
        5, seed=3
    )
    torch.testing.assert_close(out, expected)


def test_relu_cuts_below_zero(level_of):
    voxels, _ = level_of(torch.tensor([[0, 0, 0, 0], [0, 0, 0, 1]]))
    x = torch.tensor([[-1.0, 2.0], [0.0, -3.0]])
    assert torch.equal(ReLU()(SparseTensor(x, voxels)).feats, torch.tensor([[0.0, 2.0], [0.0, 0.0]]))
    assert x[0, 0] == -1, "the input stays as it was"


@pytest.mark.parametrize(
    ("layer", "shape", "inputs"),
    [(SubmanifoldConv, (27, 32, 64), 27), (PointwiseConv, (32, 64), 1), (StridedConv, (8, 32, 64), 8)],
)
def test_kernels_start_with_the_spread_that_relu_keeps(layer, shape, inputs):
    torch.manual_seed(0)
    kernel = layer(32, 64).kernel
    assert kernel.shape == shape
    assert kernel.requires_grad
    assert kernel.std().item() == pytest.approx(math.sqrt(2 / (32 * inputs)), rel=0.05)


def test_transposed_kernels_start_wider_since_every_output_has_one_input():
    torch.manual_seed(0)
    assert TransposedConv(32, 64).kernel.std().item() == pytest.approx(math.sqrt(2 / 32), rel=0.05)


def test_names_of_parameters_are_the_official_ones():
    assert list(SubmanifoldConv(2, 3).state_dict()) == ["kernel"]
    statistics = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    assert list(BatchNorm(3).state_dict()) == [f"bn.{name}" for name in statistics]
    assert list(LayerNorm(3).state_dict()) == ["ln.weight", "ln.bias"]


def test_upsampling_onto_a_foreign_level_is_refused(random_coords, level_of):
    voxels, _ = level_of(random_coords((30,)))
    foreign, _ = level_of(random_coords((30,)))
    coarse = SparseTensor(torch.zeros(len(voxels.coarser), 2), voxels.coarser)
    with pytest.raises(ValueError, match=r"stride 1.*does not coarsen"):
        TransposedConv(2, 3)(coarse, foreign)


def test_concatenation_across_levels_is_refused(random_coords, level_of):
    a, b = (SparseTensor(torch.zeros(n, 2), level_of(random_coords((n,)))[0]) for n in (30, 20))
    with pytest.raises(ValueError, match=r"different voxels \(30 and 20\)"):
        concat(a, b)
