"""What is measured of a scene: every figure of a record, by name, with its unit and direction."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Float64

from densescan.errors import InputError
from densescan.metrics.chamfer import ChamferResult
from densescan.metrics.emd import emd
from densescan.metrics.emd_released import emd_released
from densescan.metrics.iou import VOXEL_SIZES, voxel_counts
from densescan.metrics.jsd import jsd
from densescan.metrics.nearest import nearest_distances_on
from densescan.metrics.precision_recall import precision_recall_of

THRESHOLDS = (0.05, 0.1)
"""Distances at which precision, recall and F are recorded [m], beside their means between the two."""

Scores = dict[str, float]
"""Figures of one scene by name; voxel counts are whole numbers."""


@dataclass(frozen=True)
class Figure:
    """A number of the records that can stand in a table."""

    key: str
    """Its name in the records."""
    title: str
    """Its name in tables."""
    unit: str
    """Empty for a plain number."""
    higher_is_better: bool
    digits: int = 3
    """Decimals in tables."""
    headline: bool = True
    """Shown unless columns are named."""

    @property
    def heading(self) -> str:
        """Title, unit and direction."""
        unit = f" [{self.unit}]" if self.unit else ""
        return f"{self.title}{unit} {'↑' if self.higher_is_better else '↓'}"


@dataclass(frozen=True)
class Clouds:
    """A scene and its truth [m], sensor frame, and what several measures need of them."""

    pred: Float[np.ndarray, "N 3"]
    truth: Float[np.ndarray, "M 3"]
    device: str = "cpu"
    """Where nearest neighbours are looked for, see `in_float32`."""

    @cached_property
    def to_truth(self) -> Float64[np.ndarray, " N"]:
        """Distance of each predicted point to the nearest true one [m]."""
        return nearest_distances_on(self.device, self.pred, self.truth)

    @cached_property
    def to_pred(self) -> Float64[np.ndarray, " M"]:
        """Distance of each true point to the nearest predicted one [m]."""
        return nearest_distances_on(self.device, self.truth, self.pred)


@dataclass(frozen=True)
class Measure:
    """What is computed together."""

    figures: tuple[Figure, ...]
    compute: Callable[[Clouds], Scores]


def _chamfer(clouds: Clouds) -> Scores:
    result = ChamferResult(float(clouds.to_truth.mean()), float(clouds.to_pred.mean()))
    return {"pred_to_truth": result.pred_to_truth, "truth_to_pred": result.truth_to_pred, "cd": result.cd}


def _jsd(clouds: Clouds) -> Scores:
    return {
        f"jsd_{name}": jsd(clouds.pred, clouds.truth, bev) for name, bev in (("bev", True), ("3d", False))
    }


def _iou(clouds: Clouds) -> Scores:
    scores: Scores = {}
    for size in VOXEL_SIZES:
        counts = voxel_counts(clouds.pred, clouds.truth, size)
        name = f"iou_{size:g}"
        scores |= {
            name: counts.iou,
            f"{name}_tp": counts.true_positives,
            f"{name}_fn": counts.false_negatives,
            f"{name}_fp": counts.false_positives,
        }
    return scores


def _precision_recall(clouds: Clouds) -> Scores:
    scores: Scores = {}
    for distance in THRESHOLDS:
        at = precision_recall_of(clouds.to_truth, clouds.to_pred, distance)
        curves = {"precision": at.precision, "recall": at.recall, "f": at.f}
        scores |= {f"{name}_{distance:g}": float(curve[0]) for name, curve in curves.items()}
    between = precision_recall_of(clouds.to_truth, clouds.to_pred)
    areas = {"precision": between.precision_auc, "recall": between.recall_auc, "f": between.f_auc}
    return scores | {f"{name}_auc": area for name, area in areas.items()}


def _emd(clouds: Clouds) -> Scores:
    result = emd(clouds.pred, clouds.truth)
    return {"emd": float(result.value), "emd_gap": float(result.gap), "emd_binning": float(result.binning)}


def _emd_released(clouds: Clouds) -> Scores:
    return {"emd_released": emd_released(clouds.pred, clouds.truth)}


def _shares(at: str, title: str, headline: bool) -> tuple[Figure, ...]:
    """Precision, recall and F at a distance or over all."""
    return (
        Figure(f"precision_{at}", f"P {title}", "%", True, 1, headline=False),
        Figure(f"recall_{at}", f"R {title}", "%", True, 1, headline=False),
        Figure(f"f_{at}", f"F {title}", "%", True, 1, headline),
    )


MEASURES: dict[str, Measure] = {
    "chamfer": Measure(
        (
            Figure("pred_to_truth", "scene→truth", "m", False),
            Figure("truth_to_pred", "truth→scene", "m", False),
            Figure("cd", "CD", "m", False),
        ),
        _chamfer,
    ),
    "jsd": Measure(
        (Figure("jsd_bev", "JSD BEV", "", False), Figure("jsd_3d", "JSD 3D", "", False)),
        _jsd,
    ),
    "emd": Measure((Figure("emd", "EMD", "m", False),), _emd),
    "emd_released": Measure((Figure("emd_released", "EMD as released", "m", False, 2),), _emd_released),
    "iou": Measure(tuple(Figure(f"iou_{size:g}", f"IoU {size:g}", "", True) for size in VOXEL_SIZES), _iou),
    "precision_recall": Measure(
        (*_shares("auc", "0.05–0.1", True), *_shares("0.05", "0.05", False), *_shares("0.1", "0.1", False)),
        _precision_recall,
    ),
}
"""By the name that selects them. A new metric is a line here."""

FIGURES: dict[str, Figure] = {
    figure.key: figure for measure in MEASURES.values() for figure in measure.figures
}
"""Of all measures, in the order of tables."""


def check_measures(names: Sequence[str]) -> tuple[str, ...]:
    """The names in their fixed order.

    Raises: InputError: an unknown name, one given twice, or none at all.
    """
    unknown = [name for name in names if name not in MEASURES]
    if unknown or not names or len(set(names)) < len(names):
        got = ", ".join(names) or "none"
        raise InputError(f"expected different metrics out of {', '.join(MEASURES)}, got {got}")
    return tuple(name for name in MEASURES if name in names)


def measure(
    pred: Float[np.ndarray, "N 3"],
    truth: Float[np.ndarray, "M 3"],
    names: Sequence[str] = tuple(MEASURES),
    device: str = "cpu",
) -> Scores:
    """All figures of one scene.

    Args: pred, truth: points [m], sensor frame. names: which measures. device: where nearest neighbours are looked for,
        see `in_float32`; the rest is computed on the processor.
    Raises: InputError: a cloud that cannot be measured, such as an empty one.
    """
    if len(pred) == 0 or len(truth) == 0:
        raise InputError(f"expected points in scene and truth, got {len(pred)} and {len(truth)}")
    clouds, scores = Clouds(pred, truth, device), Scores()
    for name in names:
        scores |= MEASURES[name].compute(clouds)
    bad = [f"{key} = {value}" for key, value in scores.items() if not math.isfinite(value)]
    if bad:
        raise InputError(
            f"the scene cannot be measured ({', '.join(bad)}): expected finite points in both clouds"
        )
    return scores
