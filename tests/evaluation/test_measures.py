"""The figures of a record against the functions that compute them."""

import numpy as np
import pytest
import torch

from densescan.errors import InputError
from densescan.evaluation.measures import FIGURES, MEASURES, Figure, check_measures, measure
from densescan.metrics.chamfer import chamfer_distance
from densescan.metrics.emd import emd
from densescan.metrics.emd_released import emd_released
from densescan.metrics.iou import voxel_counts
from densescan.metrics.jsd import jsd
from densescan.metrics.nearest import in_float32
from densescan.metrics.precision_recall import precision_recall
from densescan.sparse.backends import using

GPU = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(scope="module")
def clouds() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    truth = rng.uniform((-12, -9, -1), (12, 9, 1), (2000, 3)).astype(np.float32)
    return truth[::2] + rng.normal(scale=0.1, size=(1000, 3)).astype(np.float32), truth


@pytest.fixture
def triton():
    """Distances by Triton, in its interpreter without a GPU."""
    pytest.importorskip("triton", reason="needs Triton: pip install triton")
    with using("triton"):
        yield


@pytest.fixture(scope="module")
def scores(clouds) -> dict[str, float]:
    return measure(*clouds)


def test_figures_are_those_of_the_metrics(clouds, scores):
    chamfer = chamfer_distance(*clouds)
    assert scores["pred_to_truth"] == chamfer.pred_to_truth
    assert scores["truth_to_pred"] == chamfer.truth_to_pred
    assert scores["cd"] == chamfer.cd
    assert scores["jsd_bev"] == jsd(*clouds, bev=True)
    assert scores["jsd_3d"] == jsd(*clouds, bev=False)
    for size in (0.5, 0.2, 0.1):
        counts = voxel_counts(*clouds, size)
        assert scores[f"iou_{size}"] == counts.iou
        assert scores[f"iou_{size}_tp"] == counts.true_positives
        assert scores[f"iou_{size}_fn"] == counts.false_negatives
        assert scores[f"iou_{size}_fp"] == counts.false_positives


def test_figures_of_transport_and_of_shares_are_those_of_the_metrics(clouds, scores):
    transport = emd(*clouds)
    assert scores["emd"] == transport.value
    assert scores["emd_gap"] == transport.gap
    assert scores["emd_binning"] == transport.binning
    assert scores["emd_released"] == emd_released(*clouds)
    for distance in (0.05, 0.1):
        at = precision_recall(*clouds, distance)
        assert scores[f"precision_{distance}"] == at.precision[0]
        assert scores[f"recall_{distance}"] == at.recall[0]
        assert scores[f"f_{distance}"] == at.f[0]
    between = precision_recall(*clouds)
    assert scores["precision_auc"] == between.precision_auc
    assert scores["recall_auc"] == between.recall_auc
    assert scores["f_auc"] == between.f_auc


def test_every_figure_of_a_table_is_measured(scores):
    assert set(FIGURES) <= set(scores)
    assert len(FIGURES) == sum(len(measure.figures) for measure in MEASURES.values())


@pytest.mark.parametrize("name", MEASURES)
def test_directions_are_those_of_a_worse_scene(clouds, name):
    pred, truth = clouds
    worse = pred + np.random.default_rng(1).normal(scale=0.3, size=pred.shape).astype(np.float32)
    good, bad = measure(pred, truth, [name]), measure(worse, truth, [name])
    for figure in MEASURES[name].figures:
        change = bad[figure.key] - good[figure.key]
        assert change < 0 if figure.higher_is_better else change > 0, figure.key


def test_only_what_is_asked_for_is_measured(clouds):
    assert set(measure(*clouds, ["jsd"])) == {"jsd_bev", "jsd_3d"}


def test_headings():
    assert FIGURES["cd"].heading == "CD [m] ↓"
    assert Figure("x", "IoU 0.5", "", True).heading == "IoU 0.5 ↑"


def test_measures_are_named_once_and_known():
    assert check_measures(["iou", "chamfer"]) == ("chamfer", "iou")
    for names in (["rmse"], [], ["iou", "iou"]):
        with pytest.raises(InputError, match="expected different metrics out of chamfer"):
            check_measures(names)


def test_an_empty_scene_cannot_be_measured(clouds):
    with pytest.raises(InputError, match="expected points in scene and truth, got 0 and 2000"):
        measure(np.zeros((0, 3), np.float32), clouds[1])


def test_distances_on_a_gpu_differ_by_the_rounding_of_float32(triton, clouds):
    """Shares at a distance change by whole points, and hold for almost every distance."""
    pred, truth = clouds[0][:200].astype(np.float64), clouds[1][:300]
    names = ("chamfer", "precision_recall")
    on_gpu = measure(pred, truth, names, GPU)
    with using("torch"):
        expected = measure(pred, truth, names)
    assert on_gpu == pytest.approx(expected, rel=1e-5)
    assert on_gpu["cd"] != expected["cd"], "computed the same way"


def test_points_that_are_not_finite_cannot_be_measured(triton, clouds):
    pred, truth = clouds[0][:100].copy(), clouds[1][:100]
    pred[7, 2] = np.nan
    with pytest.raises(InputError, match="expected finite points"):
        measure(pred, truth, ["chamfer"], GPU)


def test_the_processor_computes_in_float64():
    assert not in_float32("cpu")
    with using("triton"):
        assert in_float32("cpu")
