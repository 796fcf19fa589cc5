"""The evaluation: seeds, order, workers, failures, and resumption after a kill."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from densescan.data.split import open_split
from densescan.errors import InputError
from densescan.evaluation.evaluate import Plan, evaluate, evaluate_together, frame_seed
from densescan.evaluation.measures import measure
from densescan.evaluation.measuring import measuring
from densescan.evaluation.methods import Method, Scene, bare_scan, jittered_scan
from densescan.evaluation.records import read_run

QUICK = ("chamfer", "jsd")
PLAN = Plan(
    "street", seed=3, metrics=QUICK, environment={"commit": "c0ffee", "cpu": "Abacus", "torch": "2.6"}
)


def timeless(path) -> list[dict]:
    """The lines of a record without what the clock put there."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        line.pop("seconds", None)
    return lines


def test_every_frame_is_measured_against_its_truth(split, noisy, tmp_path):
    reports = []
    run = evaluate(noisy, split, tmp_path / "noisy.jsonl", PLAN, on_frame=lambda *r: reports.append(r))
    assert run.keys == split.keys
    assert reports == [(i, 6) for i in range(7)]
    for i, row in enumerate(run.rows):
        case, seed = split[i], frame_seed(3, split.keys[i])
        assert row.seed == seed
        assert row.scores == measure(noisy.complete(case, seed).points, case.truth, QUICK)
        assert (row.method, row.commit, row.points, row.truth_points) == ("noisy", "c0ffee", 900, 900)
        assert row.hardware.startswith("Abacus, ")
        assert "torch 2.6" in row.versions
        assert row.seconds == {"make": 0.25, "shake": 0.5, "total": 0.75}
    assert read_run(tmp_path / "noisy.jsonl") == run


def test_seeds_are_stable_and_differ():
    assert frame_seed(0, "08/000000") == 4573997102091146091, "records of old are made again by their seeds"
    seeds = {frame_seed(seed, f"08/{i:06d}") for seed in range(3) for i in range(200)}
    assert len(seeds) == 600
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("workers", [0, 2])
def test_methods_side_by_side_are_recorded_as_alone(split, noisy, tmp_path, workers):
    """Also where one of them is ahead of the other, because it was interrupted later."""
    other = replace(noisy, name="other")
    alone = [
        evaluate(noisy, split, tmp_path / "a.jsonl", PLAN),
        evaluate(other, split, tmp_path / "b.jsonl", PLAN),
    ]
    begun = (tmp_path / "a.jsonl").read_text().splitlines(keepends=True)[:3]
    (tmp_path / "c.jsonl").write_text("".join(begun))
    reports, records = [], [(noisy, tmp_path / "c.jsonl"), (other, tmp_path / "d.jsonl")]
    with measuring(workers) as measurer:
        both = evaluate_together(records, split, PLAN, measurer, lambda *report: reports.append(report))
    assert [run.rows for run in both] == [run.rows for run in alone]
    assert reports == [(i, 6) for i in range(7)]


def test_a_frames_record_does_not_depend_on_the_others(split, noisy, tmp_path):
    whole = evaluate(noisy, split, tmp_path / "whole.jsonl", PLAN)
    alone = evaluate(noisy, replace(split, keys=split.keys[3:4]), tmp_path / "alone.jsonl", PLAN)
    assert alone.rows == [whole.rows[3]]


def test_workers_change_nothing_but_the_time(split, noisy, tmp_path):
    evaluate(noisy, split, tmp_path / "none.jsonl", PLAN)
    made, written, path = [], [], tmp_path / "some.jsonl"

    def complete(case, seed):
        made.append(case.key)
        written.append(len(path.read_text().splitlines()) - 1)
        return noisy.complete(case, seed)

    with measuring(1) as measurer:
        evaluate(replace(noisy, complete=complete), split, path, PLAN, measurer)
    assert timeless(path) == timeless(tmp_path / "none.jsonl")
    assert max(len(made[: i + 1]) - written[i] for i in range(6)) == 2, "at most workers + 1 scenes in flight"
    with pytest.raises(InputError, match="0 or more workers"), measuring(-1):
        pass


@pytest.mark.parametrize("workers", [0, 1])
def test_scenes_are_measured_on_the_device(split, noisy, workers):
    case = split[0]
    scene = noisy.complete(case, 0).points
    with measuring(workers, "cpu") as measurer:
        assert measurer.submit(scene, case.truth, QUICK).result() == measure(scene, case.truth, QUICK)
    with measuring(workers, "nowhere") as measurer, pytest.raises(RuntimeError, match="nowhere"):
        measurer.submit(scene, case.truth, QUICK).result()


@pytest.mark.parametrize("cut", [0, 1, 30])
def test_an_interrupted_run_ends_as_an_uninterrupted_one(split, noisy, tmp_path, cut):
    whole, path = tmp_path / "whole.jsonl", tmp_path / "path.jsonl"
    evaluate(noisy, split, whole, PLAN)
    lines = whole.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:4])[: -cut or None])
    made = []

    def complete(case, seed):
        made.append(case.key)
        return noisy.complete(case, seed)

    evaluate(replace(noisy, complete=complete), split, path, PLAN)
    assert path.read_text() == whole.read_text()
    assert made == split.keys[3 if not cut else 2 :]
    evaluate(replace(noisy, complete=complete), split, path, PLAN)
    assert len(made) == (3 if not cut else 4), "a complete run makes no scene"


SCRIPT = """
import sys, time
from dataclasses import replace
from pathlib import Path
from densescan.data.split import open_split
from densescan.evaluation.evaluate import Plan, evaluate
from densescan.evaluation.methods import jittered_scan

method = jittered_scan(0.2)
slow = replace(method, complete=lambda case, seed: (time.sleep(0.5), method.complete(case, seed))[1])
evaluate(slow, open_split(sys.argv[1]), Path(sys.argv[2]), Plan("street", metrics=("chamfer", "jsd")))
"""


def test_a_killed_run_resumes_to_the_same_records(split, data, tmp_path):
    killed, whole = tmp_path / "killed.jsonl", tmp_path / "whole.jsonl"
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, data, killed])
    while not killed.exists() or len(killed.read_text().splitlines()) < 4:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(killed.read_text().splitlines()) < 7
    for path in (killed, whole):
        evaluate(jittered_scan(0.2), split, path, replace(PLAN, seed=0, environment={}))
    assert timeless(killed) == timeless(whole)
    assert len(timeless(whole)) == 7


def failing(kind: type[Exception] = InputError) -> Method:
    """Fails on 08/000002."""

    def complete(case, seed):
        if case.key == "08/000002":
            raise kind("no scene in\n /home/me/deep/model of it")
        return Scene(case.scan.points, {})

    return Method("moody", {}, complete)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_failure_stops_the_run_and_names_frame_and_reason(split, tmp_path, workers):
    path = tmp_path / "moody.jsonl"
    with measuring(workers) as measurer, pytest.raises(InputError) as caught:
        evaluate(failing(), split, path, PLAN, measurer)
    assert str(caught.value) == "moody failed on frame 08/000002: no scene in /home/me/deep/model of it"
    assert read_run(path).keys == split.keys[:2]


@pytest.mark.parametrize("kind", [MemoryError, FloatingPointError])
def test_other_failures_keep_their_kind(split, tmp_path, kind):
    with pytest.raises(kind, match="moody failed on frame 08/000002"):
        evaluate(failing(kind), split, tmp_path / "moody.jsonl", PLAN)


def test_an_error_of_the_program_is_not_taken_for_a_failed_frame(split, tmp_path):
    with pytest.raises(ZeroDivisionError):
        evaluate(failing(ZeroDivisionError), split, tmp_path / "moody.jsonl", replace(PLAN, keep_going=True))


def test_keeping_on_records_the_failure_and_gives_no_mean(split, write, tmp_path):
    broken = open_split(write(tmp_path / "data", split.keys))
    (tmp_path / "data/sequences/09/velodyne/000008.bin").write_bytes(b"cut")
    path = tmp_path / "moody.jsonl"
    run = evaluate(failing(), broken, path, replace(PLAN, keep_going=True))
    assert run.keys == split.keys
    assert run.failed == ["08/000002", "09/000008"]
    assert run.rows[2].error == "no scene in model of it", "no folder of this machine in a record"
    assert run.rows[5].error.startswith("cannot read 000008.bin: expected 16 bytes a point, got 3 bytes")
    assert "/home" not in path.read_text()
    with pytest.raises(InputError, match="2 of 6 failed"):
        run.values("cd")
    with pytest.raises(InputError, match=r"2 failed frames, the first is 08/000002.*--keep-going"):
        evaluate(failing(), split, path, PLAN)


def test_a_scene_that_cannot_be_measured_is_a_failure(split, tmp_path):
    empty = Method("empty", {}, lambda case, seed: Scene(np.zeros((0, 3), np.float32), {}))
    for workers in (0, 1):
        with (
            measuring(workers) as measurer,
            pytest.raises(InputError, match="failed on frame 08/000000: expected points"),
        ):
            evaluate(empty, split, tmp_path / f"{workers}.jsonl", PLAN, measurer)


def test_another_method_does_not_go_on_with_the_record(split, noisy, tmp_path):
    evaluate(noisy, split, tmp_path / "noisy.jsonl", PLAN)
    for method, plan in ((bare_scan(), PLAN), (noisy, replace(PLAN, seed=0))):
        with pytest.raises(InputError, match="was started with"):
            evaluate(method, split, tmp_path / "noisy.jsonl", plan)
