import numpy as np
import pytest

from densescan.data.poses import read_calibration, read_lidar_poses, read_poses
from densescan.errors import InputError

IDENTITY = "1 0 0 0 0 1 0 0 0 0 1 0"


def test_numbers_stand_where_the_file_has_them(tmp_path):
    (tmp_path / "poses.txt").write_text("1 2 3 4 5 6 7 8 9 10 11 12\n\n" + IDENTITY + "\n")
    poses = read_poses(tmp_path / "poses.txt")
    assert poses.shape == (2, 4, 4)
    assert poses[0].tolist() == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12], [0, 0, 0, 1]]
    (tmp_path / "calib.txt").write_text(f"P0: {IDENTITY}\nTr: 1 0 0 0.5 0 1 0 0 0 0 1 -2\n")
    assert read_calibration(tmp_path / "calib.txt")[:3, 3].tolist() == [0.5, 0, -2]
    assert np.array_equal(read_calibration(tmp_path / "calib.txt", "P0"), np.eye(4))


def test_lidar_drives_forward_and_starts_at_the_origin(shared):
    folder = shared / "lidar" / "kitti_raw_0005"
    poses = read_lidar_poses(folder / "poses.txt", folder / "calib.txt")
    assert poses.shape == (120, 4, 4)
    np.testing.assert_allclose(poses[0], np.eye(4), atol=1e-9)
    steps = np.linalg.inv(poses[:-1]) @ poses[1:]
    assert np.median(steps[:, 0, 3]) > 0.3
    assert np.abs(steps[:, 2, 3]).max() < 0.1
    np.testing.assert_allclose(np.linalg.det(poses[:, :3, :3]), 1.0, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it holds no pose"),
        (IDENTITY + "\n1 2 3\n", "pose 2: expected 12 finite numbers, got 3 entries"),
        (IDENTITY.replace("1", "one"), "pose 1: could not convert string to float: 'one'"),
        (IDENTITY.replace("1", "nan"), "pose 1: expected 12 finite numbers"),
        ("é", "it is no text file"),
    ],
)
def test_damaged_files(tmp_path, text, message):
    path = tmp_path / "poses.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=f"poses.txt.*{message}"):
        read_poses(path)


def test_missing_file_and_missing_matrix(tmp_path):
    with pytest.raises(InputError, match=r"absent\.txt: No such file"):
        read_poses(tmp_path / "absent.txt")
    (tmp_path / "calib.txt").write_text(f"P0: {IDENTITY}\n")
    with pytest.raises(InputError, match=r"calib\.txt: it has no line 'Tr:'"):
        read_calibration(tmp_path / "calib.txt")
