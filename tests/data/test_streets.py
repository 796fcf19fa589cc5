"""Streets simulated as training goes on: which street a crop is cut from, and how seldom one is simulated."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from densescan.data import streets
from densescan.data.dataset import CropConfig, CropDataset
from densescan.data.simulator import SimulatedFrame
from densescan.data.streets import SimulatedStreets, StreetConfig, street_seed
from densescan.errors import InputError

CROPS = CropConfig(scan_points=40, truth_points=100, min_reduced=200, max_reduced=300)
CONFIG = StreetConfig(frames=3, crops=8, at_once=4)


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """A simulator that takes no time, and how often it made each street."""
    made: Counter[int] = Counter()

    def simulate(seed: int, frames: int, spacing: float, sensor: object) -> list[SimulatedFrame]:
        made[seed] += 1
        rng = np.random.default_rng(seed)
        clouds = rng.normal(0, 8, (frames, 2, 600, 3)).astype(np.float32)
        bright, road, pose = np.zeros(600, np.float32), np.full(600, 40, np.uint32), np.eye(4)
        return [SimulatedFrame(scan, bright, road, truth, road, pose) for scan, truth in clouds]

    monkeypatch.setattr(streets, "simulate_sequence", simulate)
    return made


def street_of(i: int, config: StreetConfig = CONFIG) -> tuple[int, int]:
    choice = SimulatedStreets(config).choose(i, 0, np.random.default_rng(0))
    return choice.slot, choice.group


def test_streets_serve_their_crops_and_change_one_by_one() -> None:
    found = [street_of(i) for i in range(400)]
    assert all(lane == i % 4 for i, (lane, _) in enumerate(found)), "batches mix streets"
    served = Counter(found)
    last = dict(found)  # of each lane
    assert {n for (lane, number), n in served.items() if 0 < number < last[lane]} == {8}
    assert [served[lane, 0] for lane in range(4)] == [8, 6, 4, 2], "or less at the start"
    begun = [i for i, street in enumerate(found) if street not in found[max(0, i - 4) : i]]
    assert all(np.diff(begun)[4:] >= 5), "no two at once"


def test_every_frame_of_a_street_is_used() -> None:
    source, rng = SimulatedStreets(CONFIG), np.random.default_rng(0)
    assert {source.choose(0, 0, rng).place for _ in range(50)} == {0, 1, 2}


def test_a_crop_depends_on_its_index_and_seed_alone(simulated: Counter[int]) -> None:
    crops = CropDataset(SimulatedStreets(CONFIG), CROPS, seed=3, length=99)
    inorder = [crops[i] for i in range(60)]
    resumed = CropDataset(SimulatedStreets(CONFIG), CROPS, seed=3, length=5)
    for i in (59, 41, 7, 8, 40, 3):
        assert all(torch.equal(a, b) for a, b in zip(inorder[i], resumed[i], strict=True))
    other = CropDataset(SimulatedStreets(CONFIG), CROPS, seed=4, length=5)
    assert not torch.equal(other[0].truth, inorder[0].truth)


def test_workers_that_share_the_lanes_simulate_each_street_once(simulated: Counter[int]) -> None:
    workers = [CropDataset(SimulatedStreets(CONFIG), CROPS, seed=0, length=400) for _ in range(2)]
    for i in range(200):
        workers[i // 2 % 2][i]  # batches of two, in turn
    assert set(simulated.values()) == {1}
    assert len(simulated) == len({street_of(i) for i in range(200)})
    assert sum(len(worker._kept) for worker in workers) == 4, "and keep no street that is done with"


def test_seeds_of_streets_are_apart(simulated: Counter[int]) -> None:
    seeds = {street_seed(seed, lane, n) for seed in range(5) for lane in range(8) for n in range(50)}
    assert len(seeds) == 2_000
    assert min(seeds) >= 2**32, "none that a folder of simulated streets holds"


def test_the_simulator_serves_crops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("densescan.data.simulation.survey.REACH", 4.0)
    config = StreetConfig(sensor="vlp-16", frames=1, at_once=1)
    crops = CropDataset(SimulatedStreets(config), replace(CROPS, max_reduced=800), seed=0, length=2)
    crop = crops[0]
    assert crop.truth.shape == (100, 3)
    assert (crop.truth[:, :2] - crop.centre).norm(dim=1).max() < crop.radius + 1e-4
    assert crops._kept[0][1][0].truth.near(np.zeros(2), 1.0).dtype == np.float32


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"frames": 0}, "frames, crops and at_once of at least 1"),
        ({"crops": 0}, "frames, crops and at_once of at least 1"),
        ({"at_once": 0}, "frames, crops and at_once of at least 1"),
        ({"spacing": -1.0}, "a drive of at most 90 m"),
        ({"frames": 20}, "a drive of at most 90 m"),
    ],
)
def test_impossible_streets_are_refused(change: dict[str, float], rule: str) -> None:
    with pytest.raises(InputError, match=f"expected streets with {rule}"):
        StreetConfig(**change)  # type: ignore[arg-type]
