import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from densescan.errors import InputError
from densescan.metrics.jsd import JensenShannon3D, JensenShannonBEV, jsd


def dense_reference(pred: np.ndarray, truth: np.ndarray, bev: bool) -> float:
    """Full histograms over the cube, compared by scipy."""
    edges = [np.linspace(-50, 50, 201)] * 3
    histograms = [np.histogramdd(points, edges)[0] for points in (pred, truth)]
    if bev:
        histograms = [np.clip(histogram, 0, 1).sum(axis=2) for histogram in histograms]
    return float(jensenshannon(*[histogram.ravel() for histogram in histograms]))


@pytest.mark.parametrize("bev", [False, True])
def test_equals_dense_histograms_with_points_on_edges_and_outside(bev):
    rng = np.random.default_rng(0)
    pred = np.concatenate(
        [rng.normal(0, 4, (2000, 3)), [[50, 0, 0], [-50, 50, 1], [50.1, 0, 0], [0, 0, -70]]]
    )
    truth = np.concatenate([rng.normal(1, 5, (1500, 3)), rng.integers(-10, 10, (200, 3)) / 2])
    assert jsd(pred, truth, bev) == pytest.approx(dense_reference(pred, truth, bev), rel=1e-9)


def test_equals_the_released_evaluation(reference):
    pred, truth, values = reference
    assert jsd(pred, truth, bev=False) == pytest.approx(values["jsd_3d"], abs=1e-9)
    assert jsd(pred, truth, bev=True) == pytest.approx(values["jsd_bev"], abs=1e-9)


def test_bounds_symmetry_and_order_of_points():
    rng = np.random.default_rng(1)
    pred, truth = rng.normal(0, 3, (500, 3)), rng.normal(0, 4, (400, 3))
    for bev in (False, True):
        assert jsd(pred, pred[::-1], bev) == 0.0
        assert jsd(pred, pred + [30, 0, 0], bev) == pytest.approx(np.sqrt(np.log(2)))
        assert jsd(pred, truth, bev) == pytest.approx(jsd(truth, pred, bev), rel=1e-12)
        assert 0 < jsd(pred, truth, bev) < np.sqrt(np.log(2))


def test_birds_eye_view_ignores_how_many_points_a_cube_holds():
    low, high = np.array([[0.1, 0.1, 0.1]]), np.array([[0.1, 0.1, 9.1]])
    crowded = np.repeat(low, 5, axis=0)
    away = np.array([[5.1, 0.1, 0.1]])
    assert jsd(np.concatenate([crowded, away]), np.concatenate([low, away]), bev=True) == 0.0
    assert jsd(np.concatenate([crowded, away]), np.concatenate([low, away]), bev=False) > 0.1
    assert jsd(np.concatenate([low, away]), np.concatenate([high, away]), bev=True) == 0.0


def test_running_state():
    here, there = np.array([[0.1, 0.1, 0.1]]), np.array([[5.1, 0.1, 0.1]])
    for metric in (JensenShannon3D(), JensenShannonBEV()):
        metric.update(here, here)
        metric.update(here, there)
        assert metric.mean() == pytest.approx(np.sqrt(np.log(2)) / 2)
        assert not metric.higher_is_better


def test_a_cloud_outside_the_cube_is_refused():
    near, far = np.zeros((2, 3)), np.full((2, 3), 60.0)
    with pytest.raises(InputError, match="within \\+-50 m in both clouds"):
        jsd(far, near, bev=True)
    with pytest.raises(InputError, match="drop them first"):
        jsd(np.full((1, 3), np.nan), near, bev=False)
