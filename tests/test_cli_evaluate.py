"""The commands `evaluate` and `results` from the data on the disk to tables and pictures."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from densescan.cli import console, main
from densescan.completion import CompletionConfig
from densescan.data.io import read_scan, write_points
from densescan.data.simulator import SimulatedFrame, write_sequence
from densescan.data.split import open_split
from densescan.evaluation.measures import measure
from densescan.evaluation.records import read_run
from densescan.nets.minkunet import NetConfig
from densescan.sparse.backends import using
from densescan.weights.folder import ModelConfig, build, load, save_model

FORM = NetConfig(width=1 / 8, norm="layer", voxel_size=0.4, point_features="local")
CONFIG = CompletionConfig(scan_points=60, repeat=2, steps=2, sampler="consistent")
QUICK = ("--metrics", "chamfer", "jsd", "iou", "--workers", "0", "--device", "cpu")


def street(seed: int) -> np.ndarray:
    """A road, a wall and a box as tall as a car (N, 3) [m], sensor frame."""
    rng = np.random.default_rng(seed)
    road = rng.uniform((4, -8, -1.8), (24, 8, -1.7), (1200, 3))
    wall = rng.uniform((4, 8, -1.7), (24, 8.1, 3), (600, 3))
    box = rng.uniform((12, -4, -1.7), (16, -2, -0.3), (400, 3))
    return np.concatenate([road, wall, box]).astype(np.float32)


def simulated(seed: int, frames: int) -> list[SimulatedFrame]:
    """Frames as the simulator gives them, from one seed."""
    sequence = []
    for index in range(frames):
        truth = street(10 * seed + index)
        scan = truth[::6]
        labels, pose = np.full(len(truth), 40, np.uint32), np.eye(4)
        pose[0, 3] = 2.0 * index
        remission = np.zeros(len(scan), np.float32)
        sequence.append(SimulatedFrame(scan, remission, labels[: len(scan)], truth, labels, pose))
    return sequence


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("street")
    for seed in (3, 4):
        write_sequence(folder, seed, simulated(seed, 3))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_model(folder, build(ModelConfig(FORM, FORM)), CONFIG, "# A tiny model\n")
    return folder


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch) -> Path:
    """A working folder of its own, and nothing on stderr but complaints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "LINE_SECONDS", np.inf)
    return tmp_path


@pytest.fixture
def shown(capsys):
    """Run a command that must succeed, and return what it wrote to stdout."""

    def shown(*args: str | Path) -> str:
        status = main(list(map(str, args)))
        out, err = capsys.readouterr()
        assert (status, err) == (0, "")
        return out

    return shown


@pytest.fixture
def refused(capsys):
    """Run a command that must fail, and return its one line."""

    def refused(*args: str | Path) -> str:
        status = main(list(map(str, args)))
        out, err = capsys.readouterr()
        assert (status, out) == (2, "")
        assert err.count("\n") == 1
        return err

    return refused


def cells(table: str, method: str) -> list[str]:
    """The cells of a method's row, without bold."""
    [line] = [line for line in table.splitlines() if line.startswith(f"| {method} |")]
    return [cell.strip("* ") for cell in line.strip("|").split("|")]


def test_evaluate_scores_every_method_on_every_frame(data, model, place, shown):
    split = open_split(data, every=2)
    for case in split:
        (place / "done" / case.key).parent.mkdir(parents=True, exist_ok=True)
        write_points(place / "done" / f"{case.key}.ply", case.truth[::2])
    methods = ("bare", "jitter:0.2", "half=scenes:done", str(model), f"{model}:coarse")
    table = shown(
        "evaluate", data, *methods, "--out", "out", *QUICK, "--every", "2", "--published", "semantic-kitti"
    )
    names = ["bare", "jitter-0.2", "half", "tiny", "tiny-coarse"]
    assert sorted(path.stem for path in Path("out").iterdir()) == sorted(names)
    runs = {name: read_run(Path("out") / f"{name}.jsonl") for name in names}
    for run in runs.values():
        assert run.keys == split.keys == [f"{s:02d}/{i:06d}" for s in (3, 4) for i in (0, 2)]
    case, row = split[3], runs["tiny"].rows[3]
    scene = load(model)(case.scan, seed=row.seed)
    assert row.scores == measure(scene.points, case.truth, ("chamfer", "jsd", "iou"))
    coarse = runs["tiny-coarse"].rows[3]
    assert coarse.scores == measure(scene.coarse, case.truth, ("chamfer", "jsd", "iou"))
    mean = np.mean([measure(c.truth[::2], c.truth, ["chamfer"])["cd"] for c in split])
    assert cells(table, "half")[:2] == ["half", "4"]
    assert cells(table, "half")[4].startswith(f"{mean:.3f} [")
    assert cells(table, "half")[-1] == "–", "scenes from files have no seconds"
    assert re.search(r"\| Distillation-DPO \(refined\) \| 8 \| 0.354 \|", table)
    text = "".join(path.read_text() for path in Path("out").iterdir())
    assert str(place) not in text
    assert str(data.parent) not in text
    assert str(model.parent) not in text


def test_evaluate_goes_on_where_it_stopped(data, place, shown, refused):
    first = shown("evaluate", data, "jitter:0.2", "--out", "out", *QUICK)
    record = Path("out/jitter-0.2.jsonl")
    lines = record.read_text().splitlines(keepends=True)
    record.write_text("".join(lines[:3]) + lines[3][:20])
    again = shown("evaluate", data, "jitter:0.2", "--out", "out", *QUICK)
    seconds = r"\d+\.\d\d \|\n"
    assert re.sub(seconds, "", again) == re.sub(seconds, "", first)
    whole = [json.loads(line) for line in lines]
    resumed = [json.loads(line) for line in record.read_text().splitlines()]
    for line in (*whole, *resumed):
        line.pop("seconds", None)
    assert resumed == whole
    assert "seed = 0, got 1" in refused("evaluate", data, "jitter:0.2", "--out", "out", *QUICK, "--seed", "1")


def test_evaluate_takes_the_frames_asked_for(data, shown):
    shown("evaluate", data, "bare", "--out", "a", *QUICK, "--sequences", "04", "--every", "2")
    assert read_run(Path("a/bare.jsonl")).keys == ["04/000000", "04/000002"]
    shown("evaluate", data, "bare", "--out", "b", *QUICK, "--limit", "3")
    assert len(read_run(Path("b/bare.jsonl")).keys) == 3


def test_evaluate_changes_the_models_options(data, model, shown):
    table = shown("evaluate", data, model, "bare", "--out", "out", *QUICK, "--limit", "1", "--steps", "1")
    assert cells(table, "tiny:steps=1")
    header = read_run(Path("out/tiny-steps1.jsonl")).header
    assert header.options["completion"]["steps"] == 1
    assert header.environment["workers"] == 0


def test_a_frame_that_fails_stops_or_leaves_no_mean(data, place, shown, refused):
    (place / "done").mkdir()
    for case in open_split(data, ("03",)):
        write_points(place / "done" / f"{case.key[3:]}.ply", case.truth)
    (place / "done" / "000001.ply").write_bytes(b"ply\n")
    error = refused("evaluate", data, "scenes:done", "--out", "a", *QUICK, "--sequences", "03")
    assert re.search(r"scenes:done failed on frame 03/000001: cannot read .*000001.ply", error)
    table = shown(
        "evaluate", data, "scenes:done", "bare", "--out", "b", *QUICK, "--sequences", "03", "--keep-going"
    )
    assert cells(table, "scenes:done")[1:4] == ["1 of 3 failed", "–", "–"]
    assert "(1 of 3 failed" not in cells(table, "bare")[1]
    assert "1 of 3 failed, the first is 03/000001" in refused(
        "results", "compare", "b/scenes-done.jsonl", "b/bare.jsonl"
    )


@pytest.fixture
def records(data, shown) -> Path:
    shown("evaluate", data, "bare", "jitter:0.2", "--out", "records", *QUICK)
    return Path("records")


def test_results_table(records, shown, refused):
    table = shown("results", "table", records, "--columns", "cd", "iou_0.5_micro", "--no-intervals")
    assert "| method | frames | CD [m] ↓ | IoU 0.5 of all frames ↑ | s ↓ |" in table
    assert re.fullmatch(r"0\.\d{3}", cells(table, "bare")[2])
    text = shown(
        "results", "table", records / "bare.jsonl", "--latex", "--published", "kitti-360", "--block", "3"
    )
    assert text.count(r"\begin{tabular}") == 2
    assert "jitter" not in text
    assert "blocks of 3 consecutive frames" in text
    assert "holds no record" in refused("results", "table", ".")
    assert "unknown column rmse" in refused("results", "table", records, "--columns", "rmse")
    Path("other.jsonl").write_text("{}\n")
    assert "other.jsonl is no record" in refused("results", "table", "other.jsonl")


def test_results_paper(records, shown, refused):
    table = shown("results", "paper", "8", records, "--no-intervals")
    assert "Table 8 (score distillation, refined)" in table
    methods = [line.split(" | ")[0] for line in table.splitlines() if line.startswith("| ")]
    assert methods[2:] == ["| bare", "| jitter:0.2", "| LiDiff", "| Score Distillation", "| Distillation-DPO"]
    assert "0.419" in table
    assert "tabular" in shown("results", "paper", "8", records, "--latex")
    assert "tables 1 to 8" in refused("results", "paper", "0", records)


def test_results_compare(records, data, shown, refused):
    pair = (records / "bare.jsonl", records / "jitter-0.2.jsonl")
    text = shown("results", "compare", *pair, "--columns", "cd")
    assert text.startswith("**bare against jitter:0.2: ")
    a, b = (read_run(path).values("cd") for path in pair)
    assert f"{(a - b).mean():+.4f} [" in cells(text, "CD [m] ↓")[3]
    assert r"\begin{tabular}" in shown("results", "compare", *pair, "--latex")
    shown("evaluate", data, "bare", "--out", "few", *QUICK, "--limit", "2")
    assert "few/bare.jsonl lacks 03/000001" in refused("results", "compare", pair[0], "few/bare.jsonl")


def test_results_sheet(data, model, shown, refused):
    out = shown("results", "sheet", data, "jitter:0.1", model, "-o", "sheet.png", "--frames", "04/000001")
    assert "sheet.png" in out
    x, y, size = map(float, re.search(r"04/000001 +zoom (\S+) (\S+) (\S+)", out).groups())
    assert abs(x - 14) < 4 > abs(y + 3)
    assert size == 8
    one = imread("sheet.png")
    shown("results", "sheet", data, "bare", "-o", "two.png", "--zoom", "14", "-3", "6")
    assert imread("two.png").shape[0] > 1.8 * one.shape[0], "two frames, each with its closer look"
    assert "has no frame 04/9: write SEQUENCE/FRAME" in refused(
        "results", "sheet", data, "bare", "-o", "three.png", "--frames", "04/9"
    )
    assert "unknown file ending" in refused("results", "sheet", data, "bare", "-o", "sheet.jpg")


def test_a_record_tells_of_distances_in_float32(data, shown):
    pytest.importorskip("triton", reason="needs Triton: pip install triton")
    options = ("--every", "3", "--metrics", "chamfer", "--workers", "0")
    shown("evaluate", data, "bare", "--out", "out", *options, "--device", "cpu")
    with using("triton"):  # on a processor, in its interpreter, as it would be on a GPU
        shown("evaluate", data, "bare", "--out", "gpu", *options, "--device", "auto")
    on_cpu, on_gpu = (read_run(Path(folder) / "bare.jsonl") for folder in ("out", "gpu"))
    assert "nearest_distances" not in on_cpu.header.environment
    assert on_gpu.header.environment["nearest_distances"] == "float32, on the GPU"
    assert on_gpu.rows[0].scores == pytest.approx(on_cpu.rows[0].scores, rel=1e-5)
    assert on_gpu.rows[0].scores != on_cpu.rows[0].scores


def test_the_scenes_of_a_sheet_are_those_of_the_records(data, records, shown, monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        "densescan.cli.sheet.render_sheet", lambda columns, *args, **options: drawn.update(columns)
    )
    shown("results", "sheet", data, "jitter:0.2", "-o", "sheet.png", "--frames", "03/000002", "04/000000")
    rows = {row.key: row for row in read_run(records / "jitter-0.2.jsonl").rows}
    for points, key, truth in zip(
        drawn["jitter:0.2"], ("03/000002", "04/000000"), drawn["ground truth"], strict=True
    ):
        assert measure(points, truth, ["chamfer"])["cd"] == rows[key].scores["cd"]
    np.testing.assert_array_equal(
        drawn["scan"][1], read_scan(data / "sequences/04/velodyne/000000.bin").points
    )


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("nowhere", "bare", "--out", "out"), "nowhere holds no sequences/"),
        (("DATA", "--out", "out"), "got none"),
        (("DATA", "theirs", "--out", "out"), "no model theirs"),
        (("DATA", "bare", "bare", "--out", "out"), "different names, got bare"),
        (("DATA", "bare", "--out", "out", "--metrics", "rmse"), "expected different metrics out of chamfer"),
        (("DATA", "bare", "--out", "out", "--sequences", "99"), "has no sequence 99"),
        (("DATA", "bare", "--out", "out", "--workers", "-1"), "0 or more workers"),
    ],
)
def test_mistakes_are_named_in_one_line(data, refused, args, message):
    assert message in refused("evaluate", *[str(data) if arg == "DATA" else arg for arg in args])
    assert not list(Path().glob("out/*"))
