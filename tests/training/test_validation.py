"""Held-out crops: the same every time, judged by the averages, without a trace in training."""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from densescan.data.dataset import CropDataset
from densescan.errors import InputError
from densescan.training.config import LoopConfig
from densescan.training.curves import Curves
from densescan.training.loop import Listener, fit
from densescan.training.processes import Processes
from densescan.training.validation import DRAWN_CROPS, VALIDATION_SEED, Clouds, ValidationSet

QUICK = LoopConfig(
    max_steps=5, warmup_steps=2, workers=0, bfloat16=False, cpu=True, validate_every=2, validation_crops=4
)


class Heard(Listener):
    """Keeps what validation tells."""

    def __init__(self) -> None:
        self.told: list[tuple[int, dict[str, float], Sequence[Clouds]]] = []

    def on_validation(self, step: int, figures: dict[str, float], clouds: Sequence[Clouds]) -> None:
        self.told.append((step, figures, clouds))


def rows(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_it_judges_the_averages_on_the_same_crops(street: Path, tmp_path: Path, line_stage: type) -> None:
    heard, stage = Heard(), line_stage()
    averages = fit(stage, street, QUICK, tmp_path, validation=street, listener=heard)
    assert [step for step, *_ in heard.told] == [2, 4, 5]
    crops = CropDataset(street, stage.crops, VALIDATION_SEED, 4)
    with torch.no_grad():
        offsets = [averages["line"](crops[i].truth).abs().mean().item() for i in range(4)]
    _, figures, clouds = heard.told[-1]
    assert figures["validation/offset"] == pytest.approx(sum(offsets) / 4)
    assert {figures["validation/draw"] for _, figures, _ in heard.told} == {figures["validation/draw"]}
    assert len(clouds) == DRAWN_CROPS
    for i, crop in enumerate(clouds):
        assert list(crop) == ["scan", "truth"]
        assert torch.equal(crop["truth"], crops[i].truth)
    told = [{"step": step, **figures} for step, figures, _ in heard.told]
    assert [row for row in rows(tmp_path) if "loss" not in row] == told


def test_training_does_not_notice(street: Path, tmp_path: Path, line_stage: type) -> None:
    judged, unjudged = line_stage(), line_stage()
    with_it = fit(judged, street, QUICK, tmp_path / "with", validation=street)
    without = fit(unjudged, street, QUICK, tmp_path / "without")
    assert judged.line.training
    for ours, theirs in ((with_it["line"], without["line"]), (judged.line, unjudged.line)):
        for key, value in theirs.state_dict().items():
            assert torch.equal(ours.state_dict()[key], value), key


def test_a_failure_leaves_weights_and_averages_in_their_places(
    street: Path, tmp_path: Path, line_stage: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = line_stage()
    monkeypatch.setattr(stage, "validate", lambda batch: {}["nothing"])
    with pytest.raises(KeyError, match="nothing"):
        fit(stage, street, replace(QUICK, max_steps=2), tmp_path, validation=street)
    expected = line_stage()
    fit(expected, street, replace(QUICK, max_steps=2), tmp_path / "other")
    assert torch.equal(stage.line[0].weight, expected.line[0].weight)


def test_held_out_data_must_be_there_before_anything_is_written(
    street: Path, tmp_path: Path, line_stage: type
) -> None:
    with pytest.raises(InputError, match="holds no sequences"):
        fit(line_stage(), street, QUICK, tmp_path / "run", validation=tmp_path / "none")
    assert not (tmp_path / "run").exists()


def test_every_process_needs_a_crop(street: Path, line_stage: type) -> None:
    several = Processes(cpu=True)
    several.count = 3
    with pytest.raises(InputError, match="a validation crop for each of 3 processes, got 2: use more"):
        ValidationSet(street, line_stage().crops, 2, several)


def test_processes_share_the_crops_and_let_the_frames_go(street: Path, line_stage: type) -> None:
    second = Processes(cpu=True)
    second.index, second.count = 1, 2
    crops = CropDataset(street, line_stage().crops, VALIDATION_SEED, 5)
    held_out = ValidationSet(street, line_stage().crops, 5, second)
    held_out._cut()
    assert held_out._dataset is None
    assert list(held_out._crops) == [1, 3]
    assert all(torch.equal(crop.truth[0], crops[i].truth) for i, crop in held_out._crops.items())


def test_curves_hold_the_figures(street: Path, tmp_path: Path, line_stage: type) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    fit(line_stage(), street, replace(QUICK, tensorboard=True), tmp_path, validation=street)
    curves = events.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    logged = [(row["step"], row["loss"]) for row in rows(tmp_path) if "loss" in row]
    assert [(e.step, pytest.approx(e.value, rel=1e-6)) for e in curves.Scalars("loss")] == logged
    assert [e.step for e in curves.Scalars("validation/offset")] == [2, 4, 5]


def test_tensorboard_is_named_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match=r"pip install 'densescan\[tensorboard\]'"):
        Curves(tmp_path, 0)
