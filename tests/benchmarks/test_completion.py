import json

import completion
import numpy as np
import pytest
import runs
import torch
from completion import common_rows, differences
from plain import PlainPipeline
from runs import Options, PlainPredictor, Run, in_own_process

from densescan.errors import InputError


def scattered(n, seed=0):
    return np.random.default_rng(seed).uniform(-50, 50, (n, 3)).astype(np.float32)


def test_rows_are_matched_past_those_that_one_scene_dropped():
    scene = scattered(200)
    kept_a, kept_b = np.delete(np.arange(200), [0, 50, 51, 120]), np.delete(np.arange(200), [7, 50, 121, 199])
    rows_a, rows_b = common_rows(scene[kept_a], scene[kept_b] + np.float32(1e-4))
    np.testing.assert_array_equal(kept_a[rows_a], kept_b[rows_b])
    both = np.intersect1d(kept_a, kept_b)
    assert set(kept_a[rows_a]) >= set(both) - {119, 120, 121, 122}


def test_differences_are_those_of_corresponding_points():
    coarse = scattered(1000)
    moved = coarse.copy()
    moved[3, 1] += 0.25
    refined = coarse.repeat(6, axis=0)
    ours, plain = Run({}, 0.0, refined, coarse), Run({}, 0.0, moved[1:].repeat(6, axis=0), moved[1:])
    found = differences(ours, plain)
    for name, copies in (("coarse", 1), ("refined", 6)):
        assert found[name]["median"] == 0
        assert found[name]["largest"] == pytest.approx(0.25, abs=1e-5)
        assert found[name]["share above 1 mm"] == pytest.approx(1 / 999)
        assert found[name]["without counterpart"] == copies


def test_unmeasured_steps_lie_on_the_line_between_measured_ones():
    predict = PlainPredictor(PlainPipeline({}), {}, steps=5, plain_steps=5)
    predict.chosen, predict.measured = [0, 4], {"encode": [1.0, 1.0], "denoise": [10.0, 2.0]}
    assert predict.seconds() == {"encode": 5.0, "denoise": pytest.approx(30.0)}


def test_another_process_does_the_work():
    import os

    assert in_own_process(os.getpid) != os.getpid()


@pytest.mark.parametrize(
    ("options", "match"),
    [({"points": 905}, "multiple of 10"), ({"plain_steps": 9}, "plain_steps"), ({"repeats": 0}, "repeats")],
)
def test_options_that_make_no_sense(options, match):
    with pytest.raises(InputError, match=match):
        Options(**options)


def test_a_scan_with_too_few_points_is_refused(tmp_path, street, monkeypatch):
    monkeypatch.setattr(runs, "_limit", lambda threads: None)
    np.save(tmp_path / "street.npy", street)
    with pytest.raises(InputError, match="901 scan points"):
        runs.prepare(Options(scan=tmp_path / "street.npy", points=9010), tmp_path)


def test_the_whole_benchmark_prints_and_records(tmp_path, street, monkeypatch, capsys):
    monkeypatch.setattr(completion, "in_own_process", lambda function, *a, **k: function(*a, **k))
    monkeypatch.setattr(runs, "_limit", lambda threads: None)
    monkeypatch.setattr(completion, "RESULTS", tmp_path / "results")
    np.save(tmp_path / "street.npy", street)
    threads = torch.get_num_threads()
    scan = tmp_path / "street.npy"
    completion.main(
        Options(
            scan=scan,
            points=2000,
            width=0.25,
            steps=3,
            plain_steps=2,
            threads=threads,
            bfloat16=True,
            int8=True,
            record=True,
        )
    )
    printed = capsys.readouterr().out
    assert "| **total** |" in printed
    assert "| ours in bfloat16 |" in printed
    assert (
        "| stage | int8 [s] | bfloat16 [s] | / int8 | float32 [s] | / int8 | plain [s] | / int8 |" in printed
    )
    assert "EXTRAPOLATED" in printed
    row = json.loads((tmp_path / "results" / "completion-2000.json").read_text())
    assert f"{row['ours']['total']:.2f}" in printed
    assert row["plain"]["coarse points"] == pytest.approx(row["ours"]["coarse points"], abs=5)
    assert row["differences [m]"]["refined"]["median"] < 1e-4
    assert row["differences of one prediction"]["largest"] < 1e-4
    assert min(row["shares of ours [s]"].values()) > 0
    far = row["Chamfer distance to ours in float32 [m]"]
    assert far["the plain pipeline"] < 1e-3 < far["ours with another seed"]
    assert far["ours in bfloat16"] < far["ours with another seed"]
    assert far["ours in int8"] < far["ours with another seed"]
    assert all(0 < load["share"] < 1.1 for load in row["convolutions"].values())
