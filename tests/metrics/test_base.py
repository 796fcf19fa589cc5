import numpy as np
import pytest

from densescan.errors import InputError
from densescan.metrics.base import Metric


class Spread(Metric):
    name, unit, higher_is_better = "spread", "m", True

    def measure(self, pred, truth):
        return float(pred.max() - truth.min())


def test_mean_over_samples_and_values_in_order():
    metric = Spread()
    zero = np.zeros((1, 3))
    assert metric.update(np.full((2, 3), 3.0), zero) == 3.0
    assert metric.update(np.full((2, 3), 6.0), zero) == 6.0
    assert metric.values == [3.0, 6.0]
    assert metric.mean() == 4.5


def test_measuring_alone_leaves_the_state():
    metric = Spread()
    metric.measure(np.ones((1, 3)), np.zeros((1, 3)))
    assert metric.values == []


def test_no_sample_and_no_finite_value_are_errors():
    metric = Spread()
    with pytest.raises(InputError, match="no sample was measured for spread"):
        metric.mean()
    with pytest.raises(InputError, match="spread of this sample is nan"):
        metric.update(np.full((1, 3), np.nan), np.zeros((1, 3)))
    assert metric.values == []
