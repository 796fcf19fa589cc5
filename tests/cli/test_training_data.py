"""What `densescan train` is told of its data: folders, sequences of them, the simulator, and mistakes."""

import re
from pathlib import Path

import numpy as np
import pytest

from densescan.cli import main
from densescan.cli.training_data import TrainingData
from densescan.data import streets
from densescan.data.frames import FolderFrames
from densescan.data.simulator import SimulatedFrame
from densescan.data.streets import SimulatedStreets, StreetConfig

TINY = (
    *("--crops.scan-points", "60", "--crops.truth-points", "100", "--crops.min-reduced", "100"),
    *("--crops.max-reduced", "200", "--net.width", "0.125", "--net.voxel-size", "0.4", "--repeat", "2"),
    *("--workers", "0", "--no-bfloat16", "--cpu", "--max-steps", "1", "--validation-crops", "2"),
)


def surface(n: int) -> np.ndarray:
    points = np.random.default_rng(n).uniform((4, -8, -1.8), (13, 8, -1.7), (n, 3)).astype(np.float32)
    points[::3, 1] = 8
    return points


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with simulated sequences 00 and 08 of one frame."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("densescan.cli.console.LINE_SECONDS", np.inf)
    for name in ("00", "08"):
        folder = Path("d/sequences") / name
        for inner in ("velodyne", "truth"):
            (folder / inner).mkdir(parents=True)
        np.column_stack([surface(400), np.zeros(400, "<f4")]).tofile(folder / "velodyne" / "000000.bin")
        np.save(folder / "truth" / "000000.npy", surface(900))
    return tmp_path


def test_sequences_to_train_on_and_to_be_judged_by(place, capsys):
    chosen = ("--sequences", "00", "--validation", "d", "--validation-sequences", "08")
    options = TrainingData(Path("d"), ("00",), Path("d"), ("08",))
    frames, held_out = options.open()
    assert isinstance(frames, FolderFrames)
    assert isinstance(held_out, FolderFrames)
    assert (frames._split.keys, held_out._split.keys) == (["00/000000"], ["08/000000"])
    assert main(["train", "refiner", "--data", "d", *chosen, "--out", "r", *TINY]) == 0
    assert "Trained on d, sequences 00: at most 1 steps" in Path("r/model/README.md").read_text()


def test_the_simulator_needs_no_folder(place, monkeypatch, capsys):
    def simulate(seed, frames, spacing, sensor):
        scan, truth = surface(400), surface(900)
        bright, road = np.zeros(400, np.float32), np.full(400, 40, np.uint32)
        cloud = SimulatedFrame(scan, bright, road, truth, np.full(900, 40, np.uint32), np.eye(4))
        assert len(sensor.elevations) == 16
        return [cloud] * frames

    monkeypatch.setattr(streets, "simulate_sequence", simulate)
    options = ("--validation", "simulator", "--streets.sensor", "vlp-16", "--out", "r")
    assert main(["train", "refiner", "--data", "simulator", *options, *TINY]) == 0, capsys.readouterr().err
    assert "Trained on simulated streets (vlp-16): at most" in Path("r/model/README.md").read_text()


def test_another_folder_of_that_name_is_given_by_its_path(place):
    Path("d").rename("simulator")
    folder = TrainingData(Path("simulator").resolve(), streets=StreetConfig())
    assert isinstance(folder.open()[0], FolderFrames)
    assert isinstance(TrainingData(Path("simulator")).open()[0], SimulatedStreets)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--data", "d", "--sequences", "00", "03"), "d has no sequence 03: found 00, 08"),
        (("--data", "d", "--validation-sequences", "08"), "needs --validation: name the folder"),
        (("--data", "simulator", "--sequences", "00"), "the simulator has no sequences, got 00"),
        (("--data", "simulator", "--streets.frames", "0"), "expected streets with frames"),
        (("--data", "d", "--crops.augmentation.max-scale", "0.5"), "a max_scale of at least 1"),
        (("--data", "d", "--validation", "e"), "e holds no sequences/: make them with"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
@pytest.mark.parametrize("stage", ["teacher", "score-distillation"])
def test_mistakes(place, capsys, stage, args, message):
    assert main(["train", stage, "--out", "r", *args]) == 2
    err = capsys.readouterr().err
    assert re.fullmatch(rf"densescan: .*{re.escape(message)}.*\n", err), err
    assert not Path("r").exists()


def test_a_mistake_that_a_worker_finds_is_one_line(place, capsys):
    path = Path("d/sequences/00/truth/000000.npy")
    path.write_bytes(path.read_bytes()[:500])
    options = [*TINY, "--workers", "1", "--sequences", "00"]
    assert main(["train", "refiner", "--data", "d", "--out", "r", *options]) == 2
    err = capsys.readouterr().err
    assert re.fullmatch(rf"densescan: cannot read {path}: .* prepare the data set again\n", err), err
