"""Crops of a small made-up street: what they hold, what they depend on, and what is refused."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from torch.utils.data import default_collate

from densescan.data import dataset as dataset_module
from densescan.data.augment import Augmentation, random_tilt
from densescan.data.dataset import Crop, CropConfig, CropDataset
from densescan.errors import InputError
from densescan.geometry.sampling import farthest_point_sampling

PLAIN = CropConfig(
    scan_points=100,
    margin=1.5,
    truth_points=300,
    min_reduced=500,
    max_reduced=800,
    augmentation=Augmentation(max_scale=1.0),
    max_range=20.0,
)
LOOSE = replace(PLAIN, truth_margin=1.0, augmentation=Augmentation(max_scale=1.3))
UNCHANGED = Augmentation(rotate=False, flip=False, max_scale=1.0)


def surface(n: int, seed: int) -> np.ndarray:
    """Points on gently sloping ground and on a wall, unlike their mirror image and any turn of themselves."""
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(-15, 15, (2, n))
    ground = np.column_stack((x, y, -1.7 + 0.03 * x + 0.002 * y * y))
    ground[: n // 5, 0], ground[: n // 5, 2] = 8.0, rng.uniform(-1.5, 3, n // 5)
    return ground.astype(np.float32)


def write_frame(folder: Path, name: str, scan: np.ndarray, truth: np.ndarray) -> tuple[Path, Path]:
    sequence = folder / "sequences" / "00"
    (sequence / "velodyne").mkdir(parents=True, exist_ok=True)
    (sequence / "truth").mkdir(exist_ok=True)
    paths = sequence / "velodyne" / f"{name}.bin", sequence / "truth" / f"{name}.npy"
    np.column_stack((scan, np.zeros(len(scan)))).astype("<f4").tofile(paths[0])
    np.save(paths[1], truth)
    return paths


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("street")
    for i in range(2):
        write_frame(folder, f"{i:06d}", surface(2_500, i), surface(12_000, 10 + i))
    return folder


@pytest.fixture
def damaged(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A data set of one frame whose files a test may spoil: folder, scan, truth."""
    return (tmp_path, *write_frame(tmp_path, "000000", surface(1_000, 0), surface(4_000, 1)))


def equal(a: Crop, b: Crop) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("config", [PLAIN, LOOSE], ids=["plain", "loose"])
def test_a_crop_holds_scan_and_truth_around_its_centre(street: Path, config: CropConfig) -> None:
    crops = CropDataset(street, config, seed=0, length=30)
    for i in range(30):
        crop = crops[i]
        assert crop.scan.shape == (150, 3)
        assert crop.truth.shape == (300, 3)
        assert {part.dtype for part in crop} == {torch.float32}
        reach = (crop.scan[:, :2] - crop.centre).norm(dim=1)
        assert bool((reach.diff() >= -1e-5).all()), "nearest first"
        assert int((reach <= crop.radius + 1e-4).sum()) == pytest.approx(100, abs=2), (
            "the radius is their reach"
        )
        truth_reach = (crop.truth[:, :2] - crop.centre).norm(dim=1)
        assert truth_reach.max() < crop.radius + config.truth_margin * config.augmentation.max_scale + 1e-4
        if config.truth_margin == 0:
            assert truth_reach.max() > 0.9 * crop.radius, "truth fills the crop"


def straightforward(folder: Path, config: CropConfig, seed: int, i: int) -> Crop:
    """Crop i by the rules, from whole files, without perturbation."""
    scans = sorted(folder.glob("sequences/*/velodyne/*.bin"))
    rng = np.random.default_rng([seed, i, 0])
    path = scans[rng.integers(len(scans))]
    n = rng.integers(config.min_reduced, config.max_reduced + 1)
    points = np.fromfile(path, "<f4").reshape(-1, 4)[:, :3]
    ranges = np.linalg.norm(points, axis=1)
    points = points[(ranges > config.min_range) & (ranges < config.max_range)]
    scan = points[farthest_point_sampling(torch.from_numpy(points), config.max_reduced).numpy()][:n]
    centre = scan[rng.integers(len(scan)), :2]
    away = np.linalg.norm(scan[:, :2] - centre, axis=1)
    nearest = np.argsort(away, kind="stable")[: int(config.margin * config.scan_points)]
    radius = away[nearest[config.scan_points - 1]]
    truth = np.load(path.parents[1] / "truth" / f"{path.stem}.npy")
    near = np.flatnonzero(np.linalg.norm(truth[:, :2] - centre, axis=1) < float(radius) + config.truth_margin)
    drawn = np.sort(rng.choice(near, config.truth_points, replace=len(near) < config.truth_points))
    angle, mirrored = rng.uniform(0, 2 * np.pi), rng.random() < 0.5
    turn = np.float32([[np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    turn[1] *= -1 if mirrored else 1
    scale = config.augmentation.max_scale ** rng.uniform(-1, 1)
    parts = scan[nearest] @ turn, truth[drawn] @ turn, centre @ turn[:2, :2]
    return Crop(
        *(torch.from_numpy(part * np.float32(scale)) for part in parts), torch.tensor(float(radius) * scale)
    )


@pytest.mark.parametrize("config", [PLAIN, LOOSE], ids=["plain", "loose"])
def test_crops_are_bit_for_bit_those_of_the_plain_rules(street: Path, config: CropConfig) -> None:
    crops = CropDataset(street, config, seed=5, length=20)
    assert all(equal(crops[i], straightforward(street, config, 5, i)) for i in range(20))


def test_a_perturbed_crop_is_upright_in_its_tilted_scene(street: Path) -> None:
    tilted = replace(
        PLAIN, truth_margin=1.0, augmentation=replace(UNCHANGED, perturb_sigma=0.3, perturb_clip=0.4)
    )
    crops = CropDataset(street, tilted, seed=0, length=20)
    upright = CropDataset(street, replace(tilted, augmentation=UNCHANGED), seed=0, length=20)
    for i in range(20):
        crop = crops[i]
        away = (crop.scan[:, :2] - crop.centre).norm(dim=1)
        assert bool((away.diff() >= -1e-5).all()), "nearest first, in the tilted scene"
        assert int((away <= crop.radius + 1e-4).sum()) == 100
        reach = (crop.truth[:, :2] - crop.centre).norm(dim=1)
        assert 0.9 * crop.radius < reach.max() < crop.radius + 1.0
        assert not torch.equal(crop.scan, upright[i].scan)
        ranges = crop.scan.norm(dim=1)
        assert bool(((ranges > 3.5) & (ranges < 20.0)).all()), "about the sensor: ranges stay"


def test_no_truth_of_a_tilted_crop_is_missed(street: Path) -> None:
    """Against the whole scene, tilted before it is cut."""
    config = replace(
        PLAIN, truth_points=40_000, augmentation=replace(UNCHANGED, perturb_sigma=0.3, perturb_clip=0.4)
    )
    crops = CropDataset(street, config, seed=0, length=10)
    truths = [np.load(path) for path in sorted(street.glob("sequences/00/truth/*.npy"))]
    for i in range(10):
        rng = np.random.default_rng([0, i, 0])
        frame = int(rng.integers(2))
        rng.integers(rng.integers(config.min_reduced, config.max_reduced + 1))
        crop = crops[i]
        tilt = random_tilt(rng, config.augmentation)
        whole = truths[frame] @ tilt
        within = whole[np.linalg.norm(whole[:, :2] - crop.centre.numpy(), axis=1) < crop.radius.item()]
        assert len(np.unique(crop.truth.numpy(), axis=0)) == pytest.approx(len(within), abs=2)


def test_truth_lies_near_the_scan(street: Path) -> None:
    crop = CropDataset(street, PLAIN, seed=0, length=1)[0]
    inside = crop.scan[(crop.scan[:, :2] - crop.centre).norm(dim=1) < crop.radius]
    assert cKDTree(inside.numpy()).query(crop.truth.numpy())[0].mean() < 1.0
    assert cKDTree(crop.truth.numpy()).query(inside.numpy())[0].mean() < 1.0


def test_truth_margin_reaches_beyond_the_radius(street: Path) -> None:
    crop = CropDataset(street, replace(PLAIN, truth_margin=2.0), seed=0, length=1)[0]
    beyond = (crop.truth[:, :2] - crop.centre).norm(dim=1) - crop.radius
    assert 1.0 < beyond.max() < 2.0 + 1e-4


def test_a_crop_depends_on_its_index_and_seed_alone(street: Path) -> None:
    first, again = (CropDataset(street, LOOSE, seed=3, length=n) for n in (10, 99))
    backwards = {i: again[i] for i in reversed(range(10))}
    assert all(equal(first[i], backwards[i]) for i in range(10))
    assert not any(equal(first[i], first[j]) for i in range(10) for j in range(i))
    assert not equal(first[0], CropDataset(street, LOOSE, seed=4, length=10)[0])
    assert len(again) == 99


def test_augmentation_is_a_turn_about_the_sensor_and_a_scale(tmp_path: Path) -> None:
    scan = surface(600, 0)
    write_frame(tmp_path, "000000", scan, surface(4_000, 1))
    config = replace(LOOSE, min_reduced=600, max_reduced=600, scan_points=600, margin=1.0)
    crops = CropDataset(tmp_path, config, seed=0, length=40)
    augmented = [crops[i] for i in range(40)]
    unchanged = CropDataset(tmp_path, replace(config, augmentation=UNCHANGED), seed=0, length=40)
    plain = [unchanged[i] for i in range(40)]
    mirrored = 0
    for crop, raw in zip(augmented, plain, strict=True):
        scale = (crop.radius / raw.radius).item()
        assert 1 / 1.3 <= scale <= 1.3
        torch.testing.assert_close(crop.scan[:, 2], raw.scan[:, 2] * scale)
        turn = torch.linalg.lstsq(raw.scan, crop.scan / scale).solution  # 600 points fix the map
        torch.testing.assert_close(turn @ turn.T, torch.eye(3), atol=1e-4, rtol=0)
        torch.testing.assert_close(raw.scan @ turn * scale, crop.scan, atol=1e-3, rtol=0)
        torch.testing.assert_close(raw.centre @ turn[:2, :2] * scale, crop.centre, atol=1e-3, rtol=0)
        mirrored += int(torch.linalg.det(turn) < 0)
    assert 8 < mirrored < 32


def test_without_scale_the_points_are_those_of_the_file(street: Path) -> None:
    crop = CropDataset(street, PLAIN, seed=0, length=1)[0]
    ranges = np.sort(crop.truth.norm(dim=1).numpy())
    distance = [
        np.abs(np.linalg.norm(np.load(path), axis=1)[:, None] - ranges).min(0).max()
        for path in sorted(street.glob("sequences/00/truth/*.npy"))
    ]
    assert min(distance) < 1e-5, "a turn about the sensor keeps each point's range"


def test_points_out_of_range_are_dropped(tmp_path: Path) -> None:
    write_frame(tmp_path, "000000", surface(3_000, 0), surface(9_000, 1))
    crops = CropDataset(tmp_path, replace(PLAIN, min_range=6.0, max_range=12.0), seed=0, length=10)
    ranges = torch.cat([crops[i].scan.norm(dim=1) for i in range(10)])
    assert 6.0 < ranges.min() < 6.5
    assert 11.0 < ranges.max() < 12.0


@pytest.mark.parametrize("n", [1_000, 800, 700])
def test_a_reduced_scan_covers_the_whole_however_few_points_it_has(tmp_path: Path, n: int) -> None:
    scan = surface(n, 0)
    scan = scan[np.argsort(scan[:, 0])]  # the file begins with one side of the street
    write_frame(tmp_path, "000000", scan, surface(9_000, 1))
    config = replace(PLAIN, min_reduced=200, max_reduced=800, min_range=0.0, max_range=50.0)
    crops = CropDataset(tmp_path, config, seed=0, length=1)
    reduced = crops._frame(0, np.random.default_rng(0)).scan
    assert len(np.unique(reduced.numpy(), axis=0)) == len(reduced) == min(n, 800)
    assert cKDTree(reduced[:200].numpy()).query(scan)[0].max() < 3.0


def test_a_scan_with_fewer_points_repeats_them(tmp_path: Path) -> None:
    write_frame(tmp_path, "000000", surface(60, 0)[20:], surface(9_000, 1))
    crop = CropDataset(tmp_path, replace(PLAIN, min_range=0.0), seed=0, length=1)[0]
    reach = (crop.scan[:, :2] - crop.centre).norm(dim=1)
    distinct = len(np.unique(crop.scan.numpy(), axis=0))
    assert crop.scan.shape == (150, 3)
    assert distinct <= 40
    assert crop.radius.item() == pytest.approx(reach.max().item(), abs=1e-4)


def test_one_point_is_no_crop(tmp_path: Path) -> None:
    write_frame(tmp_path, "000000", np.float32([[5, 5, 0]]), surface(9_000, 1))
    with pytest.raises(InputError, match="none of 100 crops has truth in it"):
        CropDataset(tmp_path, PLAIN, seed=0, length=1)[0]


def test_crops_without_truth_are_drawn_again(tmp_path: Path) -> None:
    truth = surface(9_000, 1)
    write_frame(
        tmp_path, "000000", surface(2_500, 0), truth[truth[:, 0] > 0]
    )  # none on one side of the street
    crops = CropDataset(tmp_path, replace(PLAIN, truth_margin=3.0), seed=0, length=40)
    for i in range(40):
        crop = crops[i]
        assert (crop.truth[:, :2] - crop.centre).norm(dim=1).min() < crop.radius
        assert equal(crop, crops[i])


def test_a_data_set_without_usable_crop_is_refused(tmp_path: Path) -> None:
    write_frame(tmp_path, "000000", surface(1_000, 0), surface(4_000, 1) + np.float32(500))  # another frame
    with pytest.raises(InputError, match=f"{tmp_path}.*same frame"):
        CropDataset(tmp_path, PLAIN, seed=0, length=1)[0]


def test_a_batch_is_a_crop_of_stacked_parts(street: Path) -> None:
    crops = CropDataset(street, PLAIN, seed=0, length=2)
    batch = default_collate([crops[0], crops[1]])
    assert isinstance(batch, Crop)
    assert equal(Crop(*(part[1] for part in batch)), crops[1])


def test_memory_does_not_grow_with_the_data_set(street: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unlimited = CropDataset(street, PLAIN, seed=0, length=20)
    expected = [unlimited[i] for i in range(20)]
    monkeypatch.setattr(dataset_module, "CACHED_FRAMES", 1)
    limited = CropDataset(street, PLAIN, seed=0, length=20)
    assert all(equal(limited[i], expected[i]) for i in range(20))
    assert (len(unlimited._kept), len(limited._kept)) == (2, 1)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{tmp_path} holds no sequences.*densescan data simulate"):
        CropDataset(tmp_path, PLAIN, seed=0, length=1)


def test_a_missing_truth_is_refused(damaged: tuple[Path, Path, Path]) -> None:
    damaged[2].unlink()
    with pytest.raises(InputError, match=f"{damaged[2]} is missing"):
        CropDataset(damaged[0], PLAIN, seed=0, length=1)


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


WHOLE = npy(np.zeros((500, 3), np.float32))
SPOILT = {
    "empty": b"",
    "text": b"x y z\n1 2 3\n",
    "cut off in the header": WHOLE[:40],
    "cut off in the points": WHOLE[:-700],
    "absurd length": WHOLE.replace(b"(500, 3), }", b"(9" + b"9" * 30 + b", 3), }"),
    "two columns": npy(np.zeros((500, 2), np.float32)),
    "flat": npy(np.zeros(1500, np.float32)),
    "doubles": npy(np.zeros((500, 3))),
    "objects": npy(np.array([[None, 1, 2]])),
}


@pytest.mark.parametrize("content", SPOILT.values(), ids=SPOILT.keys())
def test_a_spoilt_truth_is_named(damaged: tuple[Path, Path, Path], content: bytes) -> None:
    damaged[2].write_bytes(content)
    with pytest.raises(InputError, match=f"{damaged[2]}.*prepare the data set again") as caught:
        CropDataset(damaged[0], PLAIN, seed=0, length=1)[0]
    assert "\n" not in str(caught.value)


def test_truth_that_is_not_finite_is_named(damaged: tuple[Path, Path, Path]) -> None:
    truth = np.load(damaged[2])
    truth[:, 2] = np.nan
    np.save(damaged[2], truth)
    with pytest.raises(InputError, match=f"{damaged[2]} holds points that are not finite"):
        CropDataset(damaged[0], PLAIN, seed=0, length=1)[0]


def test_a_spoilt_scan_is_named(damaged: tuple[Path, Path, Path]) -> None:
    damaged[1].write_bytes(damaged[1].read_bytes()[:-3])
    with pytest.raises(InputError, match=str(damaged[1])):
        CropDataset(damaged[0], PLAIN, seed=0, length=1)[0]


def test_a_scan_out_of_range_is_named(damaged: tuple[Path, Path, Path]) -> None:
    with pytest.raises(InputError, match=f"{damaged[1]} holds no point between 100 and 200 m"):
        CropDataset(damaged[0], replace(PLAIN, min_range=100.0, max_range=200.0), seed=0, length=1)[0]


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"scan_points": 0}, "scan_points"),
        ({"truth_points": 0}, "truth_points"),
        ({"margin": 0.5}, "margin of at least 1"),
        ({"truth_margin": -1.0}, "truth_margin"),
        ({"min_reduced": 900}, "min_reduced <= max_reduced"),
        ({"min_reduced": 0}, "1 <= min_reduced"),
        ({"min_range": 30.0}, "min_range < max_range"),
    ],
)
def test_impossible_crops_are_refused(change: dict[str, float], rule: str) -> None:
    with pytest.raises(InputError, match=f"expected crops with .*{rule}"):
        replace(PLAIN, **change)
