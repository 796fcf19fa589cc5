"""Random changes of a scene: what each does, how strongly, and that it leaves the others alone."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from densescan.data.augment import (
    RELEASED,
    Augmentation,
    random_scale,
    random_tilt,
    random_turn,
    reach_before,
)
from densescan.errors import InputError

OFF = Augmentation(rotate=False, flip=False, max_scale=1.0)


def turns(config: Augmentation, n: int = 400) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.stack([random_turn(rng, config) for _ in range(n)])


def test_turns_are_about_the_vertical_axis_by_every_angle() -> None:
    found = turns(replace(OFF, rotate=True))
    np.testing.assert_allclose(found @ found.transpose(0, 2, 1), np.tile(np.eye(3), (400, 1, 1)), atol=1e-6)
    assert np.allclose(np.linalg.det(found), 1)
    assert np.array_equal(found[:, 2], np.tile([0, 0, 1], (400, 1)))
    assert np.array_equal(found[:, :2, 2], np.zeros((400, 2)))
    angles = np.arctan2(found[:, 0, 1], found[:, 0, 0])
    assert (np.histogram(angles, 8, (-np.pi, np.pi))[0] > 25).all()


def test_every_other_scene_is_mirrored() -> None:
    found = turns(replace(OFF, flip=True))
    mirrored = found[:, 1, 1] == -1
    assert 160 < mirrored.sum() < 240
    assert np.array_equal(found[~mirrored], np.tile(np.eye(3), ((~mirrored).sum(), 1, 1)))
    assert np.array_equal(found[mirrored], np.tile(np.diag([1, -1, 1]), (mirrored.sum(), 1, 1)))


def test_what_is_switched_off_leaves_the_other_as_it_was() -> None:
    both = turns(Augmentation())
    flipped = turns(replace(OFF, flip=True))
    turned = turns(replace(OFF, rotate=True))
    assert np.array_equal(both, flipped @ turned)
    assert np.array_equal(turns(OFF), np.tile(np.eye(3), (400, 1, 1)))


def test_scales_lie_evenly_about_one() -> None:
    rng = np.random.default_rng(0)
    scales = np.log([random_scale(rng, Augmentation(max_scale=1.3)) for _ in range(400)]) / np.log(1.3)
    assert (np.abs(scales) <= 1).all()
    assert (np.histogram(scales, 8, (-1, 1))[0] > 25).all()
    assert random_scale(rng, OFF) == 1.0


def test_perturbation_is_the_released_one() -> None:
    rng = np.random.default_rng(0)
    tilts = [random_tilt(rng, RELEASED) for _ in range(2_000)]
    assert {tilt.dtype for tilt in tilts} == {np.dtype(np.float32)}
    angles = Rotation.from_matrix(tilts).as_euler("xyz")  # fixed axes: R = Rz Ry Rx
    expected = np.clip(np.random.default_rng(0).normal(0, 0.06, (2_000, 3)), -0.18, 0.18)
    np.testing.assert_allclose(angles, expected, atol=1e-6)


def test_perturbation_is_clipped_and_off_by_default() -> None:
    rng = np.random.default_rng(0)
    wild = replace(OFF, perturb_sigma=100.0, perturb_clip=0.1)
    angles = np.abs(Rotation.from_matrix([random_tilt(rng, wild) for _ in range(50)]).as_euler("xyz"))
    assert angles.max() < 0.1 + 1e-6
    assert (angles > 0.0999).mean() > 0.9
    state = rng.bit_generator.state
    assert np.array_equal(random_tilt(rng, Augmentation()), np.eye(3))
    assert rng.bit_generator.state == state, "off: no number is drawn, crops are those of before"


def test_no_point_comes_within_reach_from_farther_than_told() -> None:
    rng = np.random.default_rng(0)
    config = Augmentation(perturb_sigma=1.0, perturb_clip=0.5)
    closest = 0.0
    for _ in range(50):
        tilt = random_tilt(rng, config)
        offsets = rng.uniform((-12, -12, -6), (12, 12, 6), (20_000, 3))
        inside = np.linalg.norm((offsets @ tilt)[:, :2], axis=1) < 5.0
        farthest = np.linalg.norm(offsets[inside, :2], axis=1).max()
        assert farthest < reach_before(tilt, 5.0, 6.0)
        closest = max(closest, farthest / reach_before(tilt, 5.0, 6.0))
    assert closest > 0.97, "and not much less would do"
    assert reach_before(np.eye(3, dtype=np.float32), 5.0, 6.0) == 5.0


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"max_scale": 0.9}, "a max_scale of at least 1"),
        ({"perturb_sigma": -0.1}, "a perturb_sigma of at least 0"),
        ({"perturb_clip": -0.1}, "0 <= perturb_clip <= 0.5"),
        ({"perturb_clip": 1.6}, "0 <= perturb_clip <= 0.5"),
    ],
)
def test_impossible_changes_are_refused(change: dict[str, float], rule: str) -> None:
    with pytest.raises(InputError, match=f"expected scenes changed by {rule}"):
        Augmentation(**change)  # type: ignore[arg-type]
