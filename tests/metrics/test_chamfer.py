import numpy as np
import pytest

from densescan.errors import InputError
from densescan.metrics.chamfer import ChamferDistance, chamfer_distance


def test_by_hand():
    pred = np.array([[0.0, 0.0, 0.0], [3.0, 0.0, 0.0]])
    truth = np.array([[0.0, 4.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 2.0]])
    result = chamfer_distance(pred, truth)
    assert result.pred_to_truth == pytest.approx((0 + 3) / 2)
    assert result.truth_to_pred == pytest.approx((4 + 0 + 2) / 3)
    assert result.cd == pytest.approx((1.5 + 2.0) / 2)


def test_equals_the_released_evaluation(reference):
    pred, truth, values = reference
    result = chamfer_distance(pred, truth)
    assert result.pred_to_truth == pytest.approx(values["mean_dist_pred_to_gt"], rel=1e-9)
    assert result.truth_to_pred == pytest.approx(values["mean_dist_gt_to_pred"], rel=1e-9)
    assert result.cd == pytest.approx(values["chamfer"], rel=1e-9)


def test_invariances():
    rng = np.random.default_rng(0)
    pred, truth = rng.normal(size=(300, 3)), rng.normal(size=(200, 3))
    quarter_turn = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    once = chamfer_distance(pred, truth)
    assert chamfer_distance(pred @ quarter_turn.T, truth @ quarter_turn.T).cd == pytest.approx(
        once.cd, rel=1e-12
    )
    assert chamfer_distance(rng.permutation(pred), rng.permutation(truth)).cd == pytest.approx(
        once.cd, rel=1e-12
    )
    swapped = chamfer_distance(truth, pred)
    assert (swapped.pred_to_truth, swapped.truth_to_pred) == (once.truth_to_pred, once.pred_to_truth)
    assert once.pred_to_truth != once.truth_to_pred


def test_running_state():
    metric = ChamferDistance()
    origin = np.zeros((1, 3))
    metric.update(np.array([[1.0, 0.0, 0.0]]), origin)
    metric.update(np.array([[0.0, 3.0, 0.0]]), origin)
    assert (metric.values, metric.mean()) == ([1.0, 3.0], 2.0)
    assert (metric.unit, metric.higher_is_better) == ("m", False)


@pytest.mark.parametrize(("n_pred", "n_truth"), [(0, 2), (2, 0)])
def test_empty_clouds_are_refused(n_pred, n_truth):
    with pytest.raises(InputError, match=f"got {n_pred} predicted and {n_truth} true"):
        chamfer_distance(np.zeros((n_pred, 3)), np.zeros((n_truth, 3)))
