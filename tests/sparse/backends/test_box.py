"""Boxes of voxels: how many places they have, and how large they become."""

import pytest

from densescan.sparse.backends.box import EVERYWHERE, LEVELS, SHORT, Box, box_about
from densescan.sparse.keys import MAX_COORD


def test_places_are_those_of_all_levels_and_one_more_on_each():
    box = Box((-3, 0, 5), (4, 1, 8), 2)  # x: -3..0, y: 0, z: 5..12
    points = [(b, x, y, z) for b in range(2) for x in range(-3, 1) for y in (0,) for z in range(5, 13)]
    sites = [len({(b, x >> i, y >> i, z >> i) for b, x, y, z in points}) for i in range(LEVELS)]
    assert box.places == sum(sites) + LEVELS


def test_everything_that_keys_hold_has_a_place_of_64_bits():
    assert SHORT < EVERYWHERE.places < 1 << 63


@pytest.mark.parametrize(
    ("low", "high"), [((-1100, -1100, -90), (1100, 1100, 160)), ((0, -400, -60), (900, 400, 60))]
)
def test_a_box_about_a_scene_is_as_large_as_32_bits_allow(low, high):
    box = box_about(low, high, 1)
    assert 0.8 * SHORT < box.places <= SHORT
    growth = [size / (b - a + 1) for a, b, size in zip(low, high, box.size, strict=True)]
    assert min(growth) > 1.1
    assert max(growth) < 1.02 * min(growth), "alike along all axes"
    for a, b, first, size in zip(low, high, box.low, box.size, strict=True):
        assert first < a
        assert b < first + size - 1


@pytest.mark.parametrize(
    ("low", "high", "clouds"),
    [
        ((-1100, -1100, -90), (1100, 1100, 160), 3),  # hardly room for it
        ((-MAX_COORD, 0, 0), (MAX_COORD, 300, 300), 1),
        ((5, 5, 5), (4, 9, 9), 1),  # there was no point
    ],
)
def test_there_is_none_where_it_would_hardly_be_larger(low, high, clouds):
    assert box_about(low, high, clouds) == EVERYWHERE


def test_a_box_stays_within_what_keys_hold():
    box = box_about((MAX_COORD - 9, 0, 0), (MAX_COORD, 9, 9), 1)
    assert box.low[0] + box.size[0] - 1 <= MAX_COORD
    assert box.low[1] >= -MAX_COORD
