"""Frames of prepared and simulated folders: crops equal those of the whole ground truth, and what is amiss is named."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from densescan.data.augment import Augmentation
from densescan.data.dataset import CropConfig, CropDataset
from densescan.data.frames import FolderFrames
from densescan.data.prepare import prepare
from densescan.data.source import find_sources
from densescan.data.split import open_split
from densescan.data.truth import ArrayTruth
from densescan.errors import InputError

CROPS = CropConfig(scan_points=40, truth_points=200, min_reduced=300, max_reduced=400, truth_margin=1.0)
RAW = "2011_09_26_drive_0005_sync"


@pytest.fixture(scope="module")
def tree(fixtures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scans in tree/, their maps in out/."""
    place = tmp_path_factory.mktemp("data")
    shutil.copytree(fixtures / "semantic_kitti", place / "tree")
    prepare(find_sources(place / "tree")[0], place / "out")
    return place


@pytest.fixture(scope="module")
def prepared(tree: Path, fixtures: Path) -> Path:
    """A labelled sequence and a raw drive, prepared."""
    prepare(find_sources(fixtures / "kitti_raw")[0], tree / "out")
    return tree / "out"


@pytest.fixture
def copy(tree: Path, tmp_path: Path) -> Path:
    """The same, but for a test to spoil: the scans lie in tree/ of another place, which the maps do not know."""
    shutil.copytree(tree / "tree", tmp_path / "tree")
    prepare(find_sources(tmp_path / "tree")[0], tmp_path / "out")
    return tmp_path


@pytest.fixture
def simulated(tmp_path: Path) -> Path:
    """Two sequences of two frames as `densescan data simulate` leaves them."""
    rng = np.random.default_rng(0)
    for name in ("00", "01"):
        sequence = tmp_path / "streets" / "sequences" / name
        for inner in ("velodyne", "truth"):
            (sequence / inner).mkdir(parents=True)
        for frame in ("000000", "000001"):
            rng.normal(0, 8, (500, 4)).astype("<f4").tofile(sequence / "velodyne" / f"{frame}.bin")
            np.save(sequence / "truth" / f"{frame}.npy", rng.normal(0, 8, (900, 3)).astype(np.float32))
        for file in ("options.json", "poses.txt"):
            (sequence / file).touch()
    return tmp_path / "streets"


@pytest.mark.parametrize("augmentation", [Augmentation(), Augmentation(perturb_sigma=0.1)])
def test_crops_of_a_map_are_those_of_the_whole_ground_truth(
    prepared: Path, augmentation: Augmentation
) -> None:
    config = CropConfig(**{**vars(CROPS), "augmentation": augmentation})
    crops = CropDataset(prepared, config, seed=1, length=20)
    found = [crops[i] for i in range(20)]
    split, whole = open_split(prepared), CropDataset(prepared, config, seed=1, length=20)
    whole._kept = {
        frame: (group, [kept._replace(truth=ArrayTruth("whole", split[frame].truth)) for kept in frames])
        for frame, (group, frames) in crops._kept.items()
    }
    assert len(whole._kept) > 8, "of both sequences"
    for i, crop in enumerate(found):
        for ours, theirs in zip(crop, whole[i], strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_sequences_are_chosen(prepared: Path) -> None:
    every, chosen = FolderFrames(prepared), FolderFrames(prepared, ("08",))
    assert (len(every), len(chosen)) == (12, 6)
    crops, rng = CropDataset(chosen, CROPS, 0, 1), np.random.default_rng(0)
    choices = [chosen.choose(i, 0, rng) for i in range(100)]
    assert {choice.group for choice in choices} == set(range(6))
    assert {chosen.read(choice, 0)[0][1].name[:2] for choice in choices[:20]} == {"08"}
    other = CropDataset(FolderFrames(prepared, (RAW,)), CROPS, 0, 1)
    assert not torch.equal(crops[0].truth, other[0].truth)


def test_frames_go_to_another_process(prepared: Path) -> None:
    crops = CropDataset(prepared, CROPS, seed=0, length=3)
    crops[0]
    copy = pickle.loads(pickle.dumps(crops))  # noqa: S301
    assert torch.equal(copy[2].truth, crops[2].truth)


def one_line(folder: Path, match: str, sequences: tuple[str, ...] = ()) -> None:
    with pytest.raises(InputError, match=match) as caught:
        FolderFrames(folder, sequences)
    assert "\n" not in str(caught.value)


def test_nothing_and_an_unknown_sequence_are_named(prepared: Path, tmp_path: Path) -> None:
    one_line(tmp_path, r"holds no sequences/: make them with `densescan data prepare`")
    one_line(prepared, rf"has no sequence 00: found 08, {RAW}|has no sequence 00: found {RAW}, 08", ("00",))


def test_scans_that_have_moved_are_named_before_any_is_read(copy: Path) -> None:
    (copy / "tree").rename(copy / "elsewhere")
    one_line(copy / "out", r"no longer in .*tree: move them back, or prepare the data again")
    (copy / "elsewhere").rename(copy / "tree")
    scans = copy / "tree" / "sequences" / "08" / "velodyne"
    FolderFrames(copy / "out")
    shutil.move(scans, copy)
    one_line(copy / "out", str(scans))


def test_missing_tiles_and_a_drive_not_prepared_to_the_end_are_named(copy: Path) -> None:
    sequence = copy / "out" / "sequences" / "08"
    tile = sorted((sequence / "map").glob("*.npy"))[0]
    content = tile.read_bytes()
    tile.unlink()
    one_line(copy / "out", rf"{tile} is missing: remove {sequence} and prepare it again")
    tile.write_bytes(content)
    (sequence / "sequence.json").unlink()
    one_line(copy / "out", "08 is neither prepared to the end nor simulated: run `densescan data prepare`")


def test_a_simulation_that_was_interrupted_is_named(simulated: Path) -> None:
    assert len(FolderFrames(simulated)) == 4
    (simulated / "sequences" / "01" / "poses.txt").unlink()
    one_line(simulated, "01 is simulated only in part: the same `densescan data simulate` again")
    assert len(FolderFrames(simulated, ("00",))) == 2
    truth = simulated / "sequences" / "00" / "truth" / "000001.npy"
    truth.unlink()
    one_line(simulated, f"{truth} is missing: every scan needs its ground truth", ("00",))
