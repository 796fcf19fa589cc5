"""The studies run, go on where they stopped, and their tables say what their records hold."""

import json
from dataclasses import replace
from pathlib import Path

import bounds
import forms
import numpy as np
import objectives
import pytest

from densescan.data.dataset import CropConfig
from densescan.nets.minkunet import NetConfig

CROPS = CropConfig(scan_points=80, truth_points=200, min_reduced=300, max_reduced=400, max_range=20.0)
NET = NetConfig(width=1 / 8, norm="layer", voxel_size=0.4, point_features="local", see_scan=True)


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sloping ground in the layout of simulated data."""
    folder = tmp_path_factory.mktemp("street")
    sequence, rng = folder / "sequences" / "00", np.random.default_rng(0)
    for name, points in (("velodyne", 1_000), ("truth", 4_000)):
        (sequence / name).mkdir(parents=True)
        x, y = rng.uniform(-12, 12, (2, points))
        cloud = np.column_stack((x, y, -1.7 + 0.03 * x)).astype(np.float32)
        if name == "truth":
            np.save(sequence / name / "000000.npy", cloud)
        else:
            np.column_stack((cloud, np.zeros(points))).astype("<f4").tofile(sequence / name / "000000.bin")
    return folder


def test_a_form_is_trained_judged_and_written_down(
    street: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = replace(forms.BASE, net=NET, crops=CROPS)
    monkeypatch.setattr(forms, "BASE", small)
    monkeypatch.setattr(forms, "STEPS", (2, 1))
    rows = {"small family": small, "batch norm": replace(small, net=replace(NET, norm="batch"))}
    monkeypatch.setattr(forms, "FORMS", rows)
    study = forms.Study(street, street, tmp_path / "runs", tuple(rows), (0,), 2, 2, tmp_path / "record.json")
    forms.main(study)
    record = json.loads(study.record.read_text())
    assert record.keys() == rows.keys()
    found = record["batch norm"]["0"]["scores"]["consistent"]["2"]
    assert len(found["cd"]) == len(found["jsd"]) == 2
    assert all(0 < value < 5 for value in found["cd"])
    shown = capsys.readouterr().out
    assert f"{np.mean(found['cd']):.3f}" in shown
    forms.main(replace(study, table=True))
    assert capsys.readouterr().out == shown
    forms.main(study)  # runs that are complete are judged alike once more
    again = json.loads(study.record.read_text())["batch norm"]
    assert again["0"]["scores"] == record["batch norm"]["0"]["scores"]
    assert again.keys() == {"0"}


def test_forms_are_compared_by_crops_of_the_same_seed() -> None:
    def run(cd: list[float]) -> dict[str, object]:
        errors = {f"validation/mse_t{t}": 0.5 for t in (300, 600, 999)}
        by_steps = {str(n): {"cd": cd} for n in forms.STEPS}
        return {"errors": errors, "scores": dict.fromkeys(forms.SAMPLERS, by_steps)}

    rows = {
        "small family": {"0": run([0.3, 0.5]), "1": run([0.4, 0.4])},
        "batch norm": {"0": run([0.2, 0.3]), "1": run([0.3, 0.3]), "2": run([9.0, 9.0])},
    }
    _, _, _, batch_norm = forms.table(rows)
    assert batch_norm.startswith("| batch norm | 3 | 0.50 | 0.50 | 0.50 | 3.183 |")
    _, _, row = forms.paired(rows)
    half = 1.96 * np.std([-0.1, -0.2, -0.1, -0.1], ddof=1) / 2
    assert row.startswith(f"| batch norm | 0, 1 | -0.1250 [{-0.125 - half:+.4f}, {-0.125 + half:+.4f}] |")


def figures(cd: list[float], jsd: list[float]) -> dict[str, object]:
    scores = {
        str(steps): {"cd": [value + 0.1 * (steps == 1) for value in cd], "jsd": jsd} for steps in (8, 1)
    }
    return {"scores": scores, "curves": {"gap": [0.1] * 12}}


def test_the_table_of_objectives_is_that_of_its_record(tmp_path: Path) -> None:
    rows = {
        objectives.START: {"0": figures([0.3, 0.5], [0.4, 0.4])},
        objectives.PLAIN: {"0": figures([0.30, 0.40], [0.4, 0.4]), "1": figures([0.32, 0.42], [0.4, 0.4])},
        "both, weight 1": {"0": figures([0.28, 0.37], [0.3, 0.4]), "1": figures([0.31, 0.40], [0.3, 0.4])},
    }
    _, _, start, plain, both = objectives.table(rows)
    assert start.startswith("| the teacher itself | 1 | 0.4000 |")
    assert "| 0.3600 ± 0.0141 | 0.4600 ± 0.0141 |" in plain
    differences = np.array([-0.02, -0.03, -0.01, -0.02])
    half = 1.96 * differences.std(ddof=1) / 2
    assert (
        f"{differences.mean():+.4f} [{differences.mean() - half:+.4f}, {differences.mean() + half:+.4f}]"
        in both
    )
    objectives.draw(rows, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_runs_of_objectives_that_the_record_has_are_not_repeated(
    street: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(objectives.SHARED, "crops", CROPS)
    made = []

    def trained(name: str, seed: int, *_: object) -> dict[str, object]:
        made.append((name, seed))
        return figures([0.3], [0.4])

    monkeypatch.setattr(objectives, "trained", trained)
    names = (objectives.PLAIN, "both, weight 1")
    study = objectives.Study((0,), names, street, street, tmp_path, crops=1, record=tmp_path / "record.json")
    objectives.run(study)
    objectives.run(replace(study, seeds=(0, 1)))
    assert made == [(objectives.START, 0), *((name, seed) for seed in (0, 1) for name in names)]


def test_bounds_keep_predictions_in_reach(
    street: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wall of points, denser than any scan: the teacher, which learnt without bounds, runs away without, and not with
    them."""
    y, z = np.random.default_rng(0).uniform((-6, -1.7), (6, 2), (20_000, 2)).astype(np.float32).T
    np.save(tmp_path / "wall.npy", np.column_stack((np.full_like(y, 8), y, z)))
    study = bounds.Study(
        (tmp_path / "wall.npy",), ("small-teacher",), (bounds.EVERY_POINT,), 20_000, tmp_path / "bounds.json"
    )
    bounds.main(study)
    free, _, bounded = json.loads(study.record.read_text())["rows"]
    assert free["beyond"] > 0.01
    assert bounded["beyond"] == 0
    shown = capsys.readouterr().out
    bounds.main(replace(study, table=True))
    assert capsys.readouterr().out == shown
