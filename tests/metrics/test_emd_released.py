import numpy as np
import pytest

from densescan.errors import InputError
from densescan.metrics.emd_released import EarthMoversReleased, emd_released


def test_equals_what_the_releases_print(reference):
    pred, truth, values = reference
    assert emd_released(pred, truth) == pytest.approx(values["emd"]["value"], rel=1e-3, abs=2e-4)
    closed = values["emd"]["closed_form_greedy_shared_then_independent"]
    assert emd_released(pred, truth) == pytest.approx(closed, rel=1e-9, abs=1e-12)


def test_equals_the_iteration_itself():
    """Sinkhorn with the released epsilon and offset, run to convergence on a few voxels."""
    rng = np.random.default_rng(0)
    pred, truth = rng.normal(0, 2, (60, 3)), rng.normal(0.5, 2, (80, 3))
    (x, a), (y, b) = (
        np.unique(np.floor(points / 0.5), axis=0, return_counts=True) for points in (pred, truth)
    )
    a, b = a / a.sum(), b / b.sum()
    costs = np.linalg.norm(x[:, None] - y[None], axis=-1) * 0.5
    kernel = np.exp(-costs / 0.001) + 1e-9
    u, v = np.ones(len(a)), np.ones(len(b))
    for _ in range(20_000):
        u = a / (kernel @ v)
        v = b / (kernel.T @ u)
    assert emd_released(pred, truth) == pytest.approx(
        float((u[:, None] * kernel * v * costs).sum()), rel=1e-3
    )


def test_by_hand_and_invariances():
    pred = np.array([[0.1, 0.1, 0.1], [1.1, 0.1, 0.1]])
    truth = np.array([[0.2, 0.2, 0.2], [4.1, 0.1, 0.1], [4.2, 0.1, 0.1]])
    # 1/3 stays; of the prediction 1/6 is left at 0 m and 1/2 at 1 m, of the truth 2/3 at 4 m
    expected = (1 / 6 * 2 / 3 * 4 + 1 / 2 * 2 / 3 * 3) / (2 / 3)
    assert emd_released(pred, truth) == pytest.approx(expected)
    assert emd_released(truth, pred) == pytest.approx(expected)
    assert emd_released(np.repeat(pred, 3, axis=0), truth[::-1]) == pytest.approx(expected)


def test_blocks_change_nothing(monkeypatch):
    rng = np.random.default_rng(1)
    pred, truth = rng.normal(0, 5, (700, 3)), rng.normal(0, 6, (600, 3))
    once = emd_released(pred, truth)
    monkeypatch.setattr("densescan.metrics.emd_released._BLOCK", 64)
    monkeypatch.setattr("densescan.metrics.emd_released._POINTS", 50)
    assert emd_released(pred, truth) == pytest.approx(once, rel=1e-12)


@pytest.mark.parametrize("scale", [(1.0, 1.0, 1.0), (6.0, 3.0, 0.01)])
def test_offsets_give_what_pairs_give(monkeypatch, scale):
    rng = np.random.default_rng(2)
    pred, truth = rng.normal(3, 2, (900, 3)) * scale, rng.normal(-3, 4, (800, 3)) * scale
    monkeypatch.setattr("densescan.metrics.emd_released._CELLS", 0)
    pairs = emd_released(pred, truth)
    monkeypatch.setattr("densescan.metrics.emd_released._CELLS", 1 << 25)
    monkeypatch.setattr("densescan.metrics.emd_released._PAIRS_PER_CELL", 0)
    monkeypatch.setattr("densescan.metrics.emd_released.cdist", None)
    assert emd_released(pred, truth) == pytest.approx(pairs, rel=1e-12)


def test_a_point_far_away_needs_no_grid(monkeypatch):
    monkeypatch.setattr("densescan.metrics.emd_released._PAIRS_PER_CELL", 0)  # a grid wherever it fits
    pred = np.random.default_rng(3).normal(0, 3, (5000, 3))
    assert emd_released(pred, np.array([[400_000.0, 0.0, 0.0]])) == pytest.approx(400_000.0, rel=1e-4)


def test_running_state_and_errors():
    metric, some = EarthMoversReleased(), np.zeros((2, 3))
    metric.update(some, some + 1.0)
    assert metric.mean() == pytest.approx(np.sqrt(3.0))
    assert not metric.higher_is_better
    with pytest.raises(InputError, match="got 0 predicted and 2 true"):
        metric.update(np.zeros((0, 3)), some)
    assert len(metric.values) == 1
