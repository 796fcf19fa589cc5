import numpy as np
import pytest

from densescan.data.scan import Scan
from densescan.errors import InputError


def test_holds_points_and_cannot_be_changed():
    scan = Scan(np.ones((4, 3), dtype=np.float32), np.zeros(4, dtype=np.float32))
    assert len(scan) == 4
    assert scan.path is None
    with pytest.raises(AttributeError):
        scan.points = np.zeros((1, 3), dtype=np.float32)


def test_wrong_type_or_length_is_refused():
    with pytest.raises(InputError, match=r"float32, got \(4, 3\) in float64"):
        Scan(np.ones((4, 3)))
    with pytest.raises((InputError, TypeError)):  # under pytest the annotation refuses it first
        Scan(np.ones((4, 4), dtype=np.float32))
    with pytest.raises((InputError, TypeError)):
        Scan(np.ones((4, 3), dtype=np.float32), np.ones(5, dtype=np.float32))
