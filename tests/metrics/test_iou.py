import math

import numpy as np
import pytest

from densescan.errors import InputError
from densescan.metrics.iou import VoxelCounts, VoxelIoU, iou, voxel_counts


def cells(points, voxel_size):
    return {tuple(math.floor(c / voxel_size) for c in point) for point in points if max(map(abs, point)) < 50}


def test_equals_sets_of_voxels():
    rng = np.random.default_rng(0)
    pred, truth = rng.normal(0, 1, (400, 3)), rng.normal(0.2, 1, (300, 3))
    pred = np.concatenate([pred, [[51.0, 0.0, 0.0], [0.0, -80.0, 0.0]]])
    a, b = cells(pred.tolist(), 0.5), cells(truth.tolist(), 0.5)
    assert voxel_counts(pred, truth, 0.5) == VoxelCounts(len(a & b), len(b - a), len(a - b))
    assert iou(pred, truth, 0.5) == len(a & b) / len(a | b)


@pytest.mark.parametrize("voxel_size", [0.5, 0.2, 0.1])
def test_equals_the_released_evaluation(reference, voxel_size):
    pred, truth, values = reference
    expected = values["iou_lidiff_metres"][str(voxel_size)]
    assert voxel_counts(pred, truth, voxel_size) == VoxelCounts(
        expected["tp"], expected["fn"], expected["fp"]
    )
    assert iou(pred, truth, voxel_size) == pytest.approx(expected["iou"], rel=1e-12)


def test_invariances():
    rng = np.random.default_rng(1)
    pred, truth = rng.normal(size=(300, 3)), rng.normal(size=(200, 3))
    once = iou(pred, truth, 0.5)
    assert 0 < once < 1
    assert iou(rng.permutation(pred), rng.permutation(truth), 0.5) == once
    assert iou(truth, pred, 0.5) == once
    assert iou(pred + 0.5, truth + 0.5, 0.5) == pytest.approx(once, abs=0.02)
    assert iou(pred, np.repeat(pred, 2, axis=0), 0.5) == 1.0


def test_mean_over_samples_differs_from_added_counts():
    metric = VoxelIoU(0.5)
    one, other = np.array([[0.1, 0.1, 0.1]]), np.array([[9.1, 0.1, 0.1]])
    line = np.array([[0.1 + i, 0.1, 0.1] for i in range(8)])
    assert metric.update(one, other) == 0.0
    assert metric.update(line, line) == 1.0
    assert metric.mean() == 0.5
    assert metric.micro() == 8 / 10
    assert metric.measure(one, one) == 1.0
    assert metric.micro() == 8 / 10
    assert metric.higher_is_better


def test_errors():
    near, far = np.zeros((2, 3)), np.full((2, 3), 60.0)
    with pytest.raises(InputError, match="got none in either cloud"):
        iou(far, far, 0.5)
    for size in (0.3, 0.0, -1.0):
        with pytest.raises(InputError, match=f"divides 100 m, got {size}"):
            iou(near, near, size)
        with pytest.raises(InputError, match="divides 100 m"):
            VoxelIoU(size)
    metric = VoxelIoU(0.5)
    with pytest.raises(InputError, match="no sample was measured for IoU"):
        metric.micro()
    with pytest.raises(InputError, match="got none"):
        metric.update(far, far)
    assert metric.values == []
