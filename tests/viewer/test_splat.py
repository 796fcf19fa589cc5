"""Projection, z-buffer and shading against closed forms and a brute-force search."""

import numpy as np
import pytest

from densescan.viewer.splat import Birdseye, Perspective, draw, eye_dome_shading, nearest_points

WIDTH, HEIGHT = 200, 100


def test_perspective_projects_as_a_pinhole() -> None:
    camera = Perspective(
        eye=(1.0, 0.0, 0.0), target=(2.0, 0.0, 0.0), field_of_view=90.0
    )  # focal length 100 px
    points = np.array([[11.0, 0.0, 0.0], [11.0, 5.0, 0.0], [21.0, 0.0, 4.0], [-4.0, 0.0, 0.0]])
    pixels, depth, scale = camera.project(points, WIDTH, HEIGHT)
    np.testing.assert_allclose(pixels[:3], [[100, 50], [50, 50], [100, 30]], atol=1e-9)
    np.testing.assert_allclose(depth, [10, 10, 20, -5], atol=1e-12)
    np.testing.assert_allclose(scale[:3], [10, 10, 5], rtol=1e-12)


def test_perspective_has_its_target_in_the_middle_and_z_up() -> None:
    camera = Perspective(eye=(3.0, -7.0, 9.0), target=(-4.0, 11.0, 2.0))
    points = np.array([camera.target, np.add(camera.target, (0, 0, 1))])
    pixels, depth, _ = camera.project(points, WIDTH, HEIGHT)
    np.testing.assert_allclose(pixels[0], [WIDTH / 2, HEIGHT / 2], atol=1e-9)
    np.testing.assert_allclose(depth[0], np.linalg.norm(np.subtract(camera.eye, camera.target)))
    assert pixels[1, 0] == pytest.approx(WIDTH / 2)
    assert pixels[1, 1] < HEIGHT / 2


def test_birdseye_keeps_scale_and_directions() -> None:
    points = np.array([[0.0, 0.0, 0.0], [25.0, 0.0, 1.0], [0.0, 10.0, -2.0]])
    pixels, depth, scale = Birdseye(half_width=50.0, altitude=30.0).project(points, WIDTH, HEIGHT)
    np.testing.assert_allclose(pixels, [[100, 50], [150, 50], [100, 30]])
    np.testing.assert_allclose(depth, [30, 29, 32])
    np.testing.assert_allclose(scale, 2.0)


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_the_nearer_of_two_points_is_seen(order: list[int]) -> None:
    pixels = np.array([[3.2, 2.9], [3.8, 2.1]])[order]
    depth = np.array([5.0, 4.0])[order]
    seen = nearest_points(pixels, depth, np.full(2, 0.5), 8, 6)
    assert seen[2, 3] == order.index(1)
    assert (seen >= 0).sum() == 1


def test_points_behind_and_outside_are_not_seen() -> None:
    pixels = np.array([[3.0, 3.0], [4.0, 3.0], [-0.5, 3.0], [3.0, 6.0], [8.0, 0.0]])
    depth = np.array([-1.0, 0.0, 1.0, 1.0, 1.0])
    assert (nearest_points(pixels, depth, np.ones(5), 8, 6) == -1).all()


def test_z_buffer_agrees_with_a_search_over_all_points() -> None:
    rng = np.random.default_rng(3)
    width, height, count = 24, 17, 300
    pixels = rng.uniform((-2, -2), (width + 2, height + 2), size=(count, 2))
    depth = rng.uniform(1.0, 9.0, count)
    radius = 4.0 / depth
    expected = np.full((height, width), -1)
    inside = (pixels >= 0).all(axis=1) & (pixels < (width, height)).all(axis=1)
    for row in range(height):
        for column in range(width):
            away = np.hypot(*(np.floor(pixels) - (column, row)).T)
            covering = np.flatnonzero(inside & (away <= radius))
            if len(covering):
                expected[row, column] = covering[depth[covering].argmin()]
    assert 0 < (expected < 0).sum() < expected.size / 2
    np.testing.assert_array_equal(nearest_points(pixels, depth, radius, width, height), expected)


def test_shading_darkens_only_what_lies_behind_a_step() -> None:
    depth = np.full((9, 10), 8.0)
    depth[:, 5:] = 4.0
    depth[0, 0] = np.inf
    shade = eye_dome_shading(depth, strength=2.0, reach=1)
    # Three of the eight neighbours of column 4 are half as far: exp(-2 * 3 * log2(8 / 4) / 8); two at the border.
    expected = np.ones_like(depth)
    expected[:, 4] = np.exp(-0.75)
    expected[[0, -1], 4] = np.exp(-0.5)
    np.testing.assert_allclose(shade, expected, rtol=1e-12)


def test_draw_puts_the_colour_of_a_flat_wall_and_the_background_in_place() -> None:
    y, z = np.meshgrid(np.arange(0.02, 3, 0.02), np.arange(-3, 3, 0.02))
    wall = np.stack([np.full(y.size, 10.0), y.ravel(), z.ravel()], axis=1)
    colours = np.tile(np.array([0.2, 0.4, 0.6]), (len(wall), 1))
    camera = Perspective(eye=(0.0, 0.0, 0.0), target=(1.0, 0.0, 0.0), field_of_view=30.0)
    picture = draw(wall, colours, camera, 60, 40, background=(1.0, 0.0, 0.0))
    assert picture.shape == (40, 60, 3)
    np.testing.assert_allclose(picture[20, 15], [0.2, 0.4, 0.6], rtol=0.05)
    np.testing.assert_array_equal(picture[20, 45], [1.0, 0.0, 0.0])
