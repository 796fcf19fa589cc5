"""Farthest points by Triton against the selection of one after the other, for clouds with ties, copies and outliers."""

import numpy as np
import pytest
import torch

from densescan.errors import InputError
from densescan.geometry import sampling

SMALL = {
    "_BLOCK": 128,
    "_NEAR": (32, 16),
    "_SAFE": (32, 32),
    "_TOGETHER": 2,
    "_LENGTHS": 256,
    "_CANDIDATES": 64,
    "_ROUNDS": 4,
}
"""Sizes by which small clouds take several programs, loops and batches of rounds."""

FEW_PROGRAMS = {
    "_BLOCK": 1024,
    "_NEAR": (1024, 64),
    "_SAFE": (256, 256),
    "_LENGTHS": 1024,
    "_CANDIDATES": 512,
}


@pytest.fixture
def farthest(device, monkeypatch):
    """The module; in the interpreter, with small sizes."""
    from densescan.sparse.backends import farthest

    if device == "cpu":
        for name, value in SMALL.items():
            monkeypatch.setattr(farthest, name, value)
    farthest._selection.cache_clear()
    yield farthest
    farthest._selection.cache_clear()


@pytest.fixture
def assert_same(device, farthest, monkeypatch):
    """(points, n, start) -> nothing, when the selection is that of the scan of all points."""
    monkeypatch.setattr(sampling, "_sample_by_tree", None)

    def assert_same(points, n, start=0):
        points = torch.tensor(points, dtype=torch.float32)
        chosen = farthest.farthest_points(points.to(device), n, start)
        assert chosen.device.type == device
        assert chosen.dtype == torch.int64
        assert chosen.tolist() == sampling.farthest_point_sampling(points, n, start).tolist()

    return assert_same


def uniform(seed: int, n: int, extent=(20.0, 20.0, 3.0)) -> np.ndarray:
    """Points spread evenly over a box [m]."""
    return np.random.default_rng(seed).uniform(0, extent, (n, 3))


def outliers() -> np.ndarray:
    """Two dense clusters, and a few points far from them and from each other."""
    rng = np.random.default_rng(1)
    clusters = rng.normal(scale=0.1, size=(240, 3)) + rng.choice([0, 5], (240, 1))
    return rng.permutation(np.concatenate([clusters, rng.normal(scale=100, size=(6, 3))]))


def lattice(shape: tuple[int, int, int]) -> np.ndarray:
    """Points of a regular grid, in any order: most of them are as far as many others."""
    points = np.argwhere(np.ones(shape)) * 0.5
    return np.random.default_rng(2).permutation(points)


def copies() -> np.ndarray:
    """Each of 60 places several times."""
    return uniform(3, 60)[np.random.default_rng(4).integers(0, 60, 250)]


CLOUDS = {
    "random": (uniform(0, 300), 60),
    "outliers": (outliers(), 50),
    "surface with ties": (lattice((16, 16, 1)), 60),
    "volume with ties": (lattice((6, 6, 7)), 70),
    "as far as each other, but for rounding": (lattice((16, 16, 1)) + uniform(5, 256) * 1e-7, 60),
    "along a line": (uniform(6, 200) * (0, 1, 0), 50),
    "along a diagonal": (uniform(7, 200)[:, :1] * (1, 2, -1), 50),
    "copies": (copies(), 50),
    "copies used up": (copies(), 200),
    "one place": (np.ones((150, 3)), 20),
    "whole blocks": (uniform(8, 256), 60),
    "two points": (uniform(9, 2), 1),
    "all but one": (uniform(10, 70), 69),
}


@pytest.mark.parametrize("cloud", CLOUDS)
def test_selection_is_that_of_one_point_after_the_other(assert_same, cloud):
    assert_same(*CLOUDS[cloud])


@pytest.mark.parametrize("start", [1, 87, 249])
def test_selection_begins_at_the_start(assert_same, start):
    """Of equal points it is the start that counts as the first."""
    assert_same(copies(), 30, start)


@pytest.mark.parametrize(("points", "n"), [(5, 1), (5, 5), (5, 9), (1, 1), (0, 3)])
def test_no_more_points_than_there_are_and_then_in_their_own_order(assert_same, points, n):
    assert_same(uniform(11, points), n)


def test_real_scan(device, assert_same, farthest, monkeypatch, shared):
    if device == "cpu":
        for name, value in FEW_PROGRAMS.items():
            monkeypatch.setattr(farthest, name, value)
    points = np.load(shared / "reference" / "fps_open3d.npz")["points"]
    assert_same(points[:3000], 200)


def test_sizes_as_on_a_gpu(assert_same, farthest, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(farthest, "_ROUNDS", 2)
    monkeypatch.setattr(sampling, "_sample_by_tree", None)
    assert_same(uniform(12, 500), 4)


def test_memory_of_one_selection_serves_the_next(device, farthest, assert_same):
    """Smaller clouds after larger ones, and the same one again."""
    for n in (240, 130, 240):
        assert_same(uniform(n, n), 20)
    assert farthest._selection.cache_info().misses == 1


def test_rounds_after_the_last_do_nothing(device, farthest):
    points = torch.tensor(uniform(13, 200), dtype=torch.float32, device=device)
    selection = farthest._Selection(farthest._LENGTHS, points.device)
    found = []
    for _ in range(2):
        selection.begin(points, 20, 0)
        while not bool(selection.done):
            selection.advance()
        found.append(selection.values.clone())
        selection.advance()
        assert torch.equal(selection.values, found[-1])
    assert torch.equal(*found)


def test_memory_made_in_inference_mode_serves_outside_it(device, farthest):
    points = torch.tensor(uniform(14, 100), dtype=torch.float32, device=device, requires_grad=True)
    with torch.inference_mode():
        chosen = farthest.farthest_points(points, 10)
    assert torch.equal(farthest.farthest_points(points, 10), chosen)


def test_float64_is_rounded(device, farthest):
    points = torch.tensor(uniform(15, 100), device=device)
    assert torch.equal(farthest.farthest_points(points, 10), farthest.farthest_points(points.float(), 10))


@pytest.mark.parametrize(("n", "start"), [(0, 0), (3, -1), (3, 5)])
def test_numbers_out_of_range(device, farthest, n, start):
    with pytest.raises(
        InputError, match=rf"expected n >= 1 and start below 5, got n = {n} and start = {start}"
    ):
        farthest.farthest_points(torch.ones(5, 3, device=device), n, start)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("n", [3, 9])
def test_points_that_are_not_finite(device, farthest, value, n):
    points = torch.ones(5, 3, device=device)
    points[3, 1] = value
    with pytest.raises(InputError, match="expected finite points"):
        farthest.farthest_points(points, n)


def test_too_many_points(device, farthest, monkeypatch):
    monkeypatch.setattr(farthest, "MAX_POINTS", 4)
    with pytest.raises(InputError, match="expected 4 points at most, got 5"):
        farthest.farthest_points(torch.ones(5, 3, device=device), 2)
