import itertools

import numpy as np
import pytest
import torch

from densescan.errors import InputError
from densescan.geometry import sampling
from densescan.geometry.sampling import farthest_point_sampling


def quadratic_reference(points: np.ndarray, n: int, start: int) -> list[int]:
    """Greedy selection as in the definition; the first of the farthest, never a point twice."""
    nearest = np.full(len(points), np.inf, dtype=np.float32)
    chosen = [start]
    while len(chosen) < n:
        nearest = np.minimum(nearest, ((points - points[chosen[-1]]) ** 2).sum(axis=1))
        nearest[chosen] = -1.0
        chosen.append(int(nearest.argmax()))
    return chosen


@pytest.fixture(params=["tree", "scan"])
def method(request, monkeypatch):
    """Both ways to select, of which an installation without the search tree has the second only."""
    if request.param == "scan":
        monkeypatch.setattr(sampling, "_sample_by_tree", None)
    elif sampling._sample_by_tree is None:
        pytest.skip("no search tree on this platform")
    return request.param


@pytest.mark.usefixtures("method")
@pytest.mark.parametrize("seed", range(20))
def test_same_order_as_the_quadratic_definition_with_duplicates(seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 300))
    points = rng.normal(size=(count, 3)).astype(np.float32)
    points = np.concatenate([points, points[rng.integers(0, count, count // 2)]])
    points = points[rng.permutation(len(points))]
    n = int(rng.integers(1, len(points)))
    start = int(rng.integers(0, len(points)))
    chosen = farthest_point_sampling(torch.from_numpy(points), n, start)
    assert chosen.dtype == torch.int64
    assert chosen.tolist() == quadratic_reference(points, n, start)


@pytest.mark.usefixtures("method")
def test_same_points_and_order_as_open3d(shared):
    arrays = np.load(shared / "reference" / "fps_open3d.npz")
    chosen = farthest_point_sampling(torch.from_numpy(arrays["points"]), int(arrays["n"])).numpy()
    assert np.array_equal(chosen, arrays["selection_order"])
    assert np.array_equal(np.sort(chosen), arrays["open3d_out_index"])


@pytest.mark.usefixtures("method")
def test_equally_far_points_give_a_valid_greedy_order():
    """On a lattice the order among equals is free; each choice must still be the farthest at its turn."""
    points = np.stack(np.meshgrid(*[np.arange(5.0)] * 3), axis=-1).reshape(-1, 3).astype(np.float32)
    chosen = farthest_point_sampling(torch.from_numpy(points), 60).tolist()
    assert len(set(chosen)) == 60
    nearest = np.full(len(points), np.inf)
    for earlier, later in itertools.pairwise(chosen):
        nearest = np.minimum(nearest, ((points - points[earlier]) ** 2).sum(axis=1))
        assert nearest[later] == nearest.max()


def test_all_points_in_their_own_order_when_enough_are_wanted():
    points = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    assert farthest_point_sampling(points, 7, start=3).tolist() == list(range(7))
    assert farthest_point_sampling(points, 100).tolist() == list(range(7))


def test_copies_come_last_and_the_start_first():
    points = torch.zeros(6, 3)
    points[4, 0] = 1.0
    assert farthest_point_sampling(points, 5, start=2).tolist() == [2, 4, 0, 1, 3]


def test_selection_does_not_change_under_rotation_and_scaling():
    points = torch.randn(400, 3, generator=torch.Generator().manual_seed(1))
    turned = 2 * points[:, [1, 0, 2]] * torch.tensor([-1.0, 1.0, 1.0])
    assert torch.equal(farthest_point_sampling(points, 60), farthest_point_sampling(turned, 60))


@pytest.mark.parametrize(("n", "start"), [(0, 0), (3, 5), (3, -1)])
def test_impossible_requests_are_refused(n, start):
    with pytest.raises(InputError, match=f"got n = {n} and start = {start}"):
        farthest_point_sampling(torch.zeros(5, 3), n, start)


def test_points_that_are_not_finite_are_refused():
    with pytest.raises(InputError, match="drop them first"):
        farthest_point_sampling(torch.tensor([[0.0, 0.0, float("nan")], [1.0, 0.0, 0.0]]), 1)
