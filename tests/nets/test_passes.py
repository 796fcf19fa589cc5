"""Passes that are recorded against plain ones. On a processor nothing is recorded; the room is the same."""

import gc
import weakref
from contextlib import contextmanager
from functools import cache

import pytest
import torch

from densescan.nets import denoiser, refiner
from densescan.nets.blocks import ResidualBlock
from densescan.nets.denoiser import Denoiser
from densescan.nets.encoder import ConditionEncoder
from densescan.nets.fused import FusedPointwise, FusedResidual, fuse
from densescan.nets.minkunet import NetConfig
from densescan.nets.networks import Networks
from densescan.nets.passes import Passes, RecordedPasses, Recordings
from densescan.nets.refiner import Refiner
from densescan.sparse.backends import using
from densescan.sparse.backends.recording import NoRoom
from densescan.sparse.tensor import SparseTensor

CONFIGS = {
    "released": NetConfig(width=1 / 24, voxel_size=0.01),
    "ours": NetConfig(
        width=1 / 24,
        voxel_size=0.01,
        norm="bounded",
        point_features="local",
        see_scan=True,
        predicts="displacement",
    ),
}
T = torch.tensor(500)
SMALL = 12  # points of a scan: Triton's interpreter is slow


@pytest.fixture(scope="module")
def device():
    pytest.importorskip("triton", reason="needs Triton: pip install triton")
    from densescan.sparse.backends.launch import INTERPRETED

    assert torch.cuda.is_available() != INTERPRETED
    return "cpu" if INTERPRETED else "cuda"


@pytest.fixture(autouse=True)
def by_triton():
    with using("triton"), torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def networks(device):
    @cache
    def networks(form):
        torch.manual_seed(0)
        config = CONFIGS[form]
        made = Networks(ConditionEncoder(config), Denoiser(config), Refiner(config)).to(device)
        with using("triton"), torch.inference_mode():
            return made.eval().map(fuse)

    return networks


def same(found, expected):
    """To the bit on a GPU; in Triton's interpreter a row's product depends, in its last bit, on its place in a tile."""
    if found.device.type == "cuda":
        return torch.equal(found, expected)
    return torch.allclose(found, expected, rtol=1e-5, atol=1e-6)


def points(count, seed, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    return spread * torch.randn(1, count, 3, generator=generator)


@contextmanager
def nothing_is_waited_for(monkeypatch):
    """Where tensors become numbers, or lengths depend on them."""
    with monkeypatch.context() as patch:
        for name in ("tolist", "item", "nonzero", "__bool__", "__int__", "__float__", "cpu"):
            patch.setattr(torch.Tensor, name, lambda *_, n=name: pytest.fail(f"waited: {n}"))
        yield


@pytest.mark.parametrize(("form", "scale"), [("released", 3.5), ("ours", 1.0)])
def test_recorded_passes_are_the_plain_ones_and_wait_for_nothing(networks, device, form, scale, monkeypatch):
    plain, recorded = Passes(networks(form), scale), RecordedPasses(networks(form), scale)
    for module in (denoiser, refiner):  # on a GPU rows need no number that repeats
        monkeypatch.setattr(module, "with_repeating_rows", lambda function, rows: function(rows))

    rows = torch.arange(0, 2 * SMALL, 3, device=device)  # the others are absent

    def run(passes, seed, spread):
        scan, scene = points(SMALL, seed, spread).to(device), points(2 * SMALL, 9 + seed, spread).to(device)
        found = passes.predictor(scan)(scene, T.to(device))
        return found, passes.refine(scene[0], rows)

    run(recorded, seed=0, spread=1.0)  # finds the sizes, which it waits for
    with nothing_is_waited_for(monkeypatch):
        found, refined = run(recorded, seed=1, spread=0.5)
    recorded.check()
    expected, expected_refined = run(plain, seed=1, spread=0.5)
    assert same(found, expected)
    assert found.abs().max() > 1e-3
    assert same(refined, expected_refined)


@pytest.mark.parametrize("norm", ["batch", "bounded", "layer"])
def test_a_shortcut_of_batch_norm_is_part_of_its_block_s_second_convolution(norm, device, monkeypatch):
    from densescan.sparse.backends import levels

    torch.manual_seed(0)
    plain = ResidualBlock(6, 10, norm).eval()
    for module in plain.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            for values in (module.running_mean, module.running_var, module.weight, module.bias):
                values.data.uniform_(0.5, 1.5)
    coords = torch.nn.functional.pad(torch.randint(-3, 3, (40, 3)), (1, 0)).to(device)
    voxels = levels.voxelise(coords).voxels
    x = SparseTensor(torch.randn(len(voxels), 6, device=device), voxels)
    block, launched = FusedResidual(plain).to(device), []
    original = FusedPointwise.forward
    monkeypatch.setattr(FusedPointwise, "forward", lambda *args: launched.append(1) or original(*args))
    with using("torch"):
        expected = plain.to(device)(x).feats
    torch.testing.assert_close(block(x).feats, expected)
    assert len(launched) == (norm != "batch")


def test_sizes_that_come_again_are_recorded(networks):
    plain, recordings = Passes(networks("released"), 1.0), Recordings()
    assert recordings.of(plain, 10, 2) is None
    assert recordings.of(plain, 11, 2) is None
    first = recordings.of(plain, 10, 2)
    assert isinstance(first, RecordedPasses)
    assert recordings.of(plain, 10, 2) is first
    assert first._predicting._boxed
    recordings.forget(first)
    second = recordings.of(plain, 10, 2)
    assert isinstance(second, RecordedPasses)
    assert second is not first
    assert not second._predicting._boxed, "it would be found too small again and again"


def test_the_latest_recordings_are_kept_and_others_leave_the_memory(networks):
    plain, recordings = Passes(networks("released"), 1.0), Recordings()
    for size in (10, 11, 12, 10, 11):
        recorded = recordings.of(plain, size)
    first = weakref.ref(recordings.of(plain, 10))
    for odd_size in range(20, 40):  # each comes once, and does not push out what is recorded
        assert recordings.of(plain, odd_size) is None
    assert recordings.of(plain, 11) is recorded
    recordings.of(plain, 12)
    gc.collect()
    assert first() is None


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # what rows without a voxel hold is anything, NaN too
def test_a_scan_out_of_range_is_found_and_harms_nothing(networks, device):
    """Its condition has no voxel at all; on a GPU an assertion there would be the end of the process."""
    recorded = RecordedPasses(networks("released"), 1.0)
    recorded.predictor(points(SMALL, 0).to(device) + 1e5)(points(2 * SMALL, 1).to(device), T.to(device))
    with pytest.raises(NoRoom):
        recorded.check()
