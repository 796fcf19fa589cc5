import struct

import numpy as np
import pytest

from densescan.data import pcd
from densescan.errors import InputError

POINTS = np.array([[1.5, -2.25, 0.5], [4.0, 5.0, -6.0], [1.5, -2.25, 8.0]])


def header(storage: str, **changes: str | None) -> bytes:
    entries = {
        "VERSION": "0.7", "FIELDS": "x y z", "SIZE": "4 4 4", "TYPE": "F F F", "COUNT": "1 1 1", "WIDTH": "3",
        "HEIGHT": "1", "VIEWPOINT": "0 0 0 1 0 0 0", "POINTS": "3", "DATA": storage,
    }  # fmt: skip
    entries.update(changes)
    lines = [f"{key} {value}" for key, value in entries.items() if value is not None]
    return ("# .PCD v0.7 - Point Cloud Data file format\n" + "\n".join(lines) + "\n").encode()


def compressed(columns: bytes, packed: bytes, **changes: str) -> bytes:
    return header("binary_compressed", **changes) + struct.pack("<II", len(packed), len(columns)) + packed


def literal_lzf(data: bytes) -> bytes:
    """A valid LZF stream without references."""
    pieces = [data[i : i + 32] for i in range(0, len(data), 32)]
    return b"".join(bytes([len(piece) - 1]) + piece for piece in pieces)


def test_ascii_with_other_fields_and_no_count_entry():
    changes = {"FIELDS": "ring x y z intensity", "SIZE": "2 8 4 4 4", "TYPE": "U F F F F", "COUNT": None}
    rows = "".join(f"7 {x} {y} {z} {i}\n" for i, (x, y, z) in enumerate(POINTS))
    points, remission = pcd.decode(header("ascii", **changes) + rows.encode())
    assert np.array_equal(points, POINTS)
    assert remission.tolist() == [0, 1, 2]


def test_ascii_with_missing_returns_keeps_them_for_the_reader_to_drop():
    points, _ = pcd.decode(header("ascii") + b"nan nan nan\n1 2 3\n4 5 6\n")
    assert np.isnan(points[0]).all()
    assert points[1].tolist() == [1, 2, 3]


def test_binary_with_fields_of_several_values_and_repeated_names():
    changes = {
        "FIELDS": "_ x y z _ intensity",
        "SIZE": "1 4 4 8 2 1",
        "TYPE": "U F F F I U",
        "COUNT": "3 1 1 1 2 1",
    }
    body = b"".join(struct.pack("<3Bffd2hB", 1, 2, 3, x, y, z, 4, 5, i) for i, (x, y, z) in enumerate(POINTS))
    points, remission = pcd.decode(header("binary", **changes) + body)
    assert np.array_equal(points, POINTS)
    assert remission.tolist() == [0, 1, 2]


def test_points_default_to_width_times_height():
    data = header("binary", POINTS=None, WIDTH="1", HEIGHT="3") + POINTS.astype("<f4").tobytes()
    assert np.array_equal(pcd.decode(data)[0], POINTS)


def test_compressed_columns():
    columns = POINTS.astype("<f4").T.tobytes() + bytes([9, 8, 7])
    changes = {"FIELDS": "x y z intensity", "SIZE": "4 4 4 1", "TYPE": "F F F U", "COUNT": "1 1 1 1"}
    points, remission = pcd.decode(compressed(columns, literal_lzf(columns), **changes))
    assert np.array_equal(points, POINTS)
    assert remission.tolist() == [9, 8, 7]


def test_lzf_literals_and_references():
    assert pcd.lzf_decompress(b"\x02abc", 3) == b"abc"
    # Length 3 (1 + 2) from distance 3 (2 + 1).
    assert pcd.lzf_decompress(b"\x02abc\x20\x02", 6) == b"abcabc"
    # A reference that overlaps its own result: "a" continued by length 9 + 3 from distance 1.
    assert pcd.lzf_decompress(b"\x00a\xe0\x03\x00", 13) == b"a" * 13
    assert pcd.lzf_decompress(b"\x01ab\xe0\x04\x01", 15) == b"ab" * 7 + b"a"
    # A distance above 256: 300 bytes back from the end.
    body = bytes(range(256)) + bytes(44)
    assert pcd.lzf_decompress(literal_lzf(body) + bytes([0x21, 0x2B]), 303) == body + body[:3]


@pytest.mark.parametrize(
    ("packed", "length"),
    [(b"\x02ab", 3), (b"\x00a\x20", 4), (b"\x00a\x20\x05", 4), (b"\x00a\xe0\x01", 10), (b"\x02abc", 2), (b"\x02abc", 4),
     (b"\x00a" + b"\xe0\xff\x00" * 1000, 5)],
)  # fmt: skip
def test_damaged_lzf(packed, length):
    with pytest.raises(InputError, match="compressed data are damaged"):
        pcd.lzf_decompress(packed, length)


BODY = POINTS.astype("<f4").tobytes()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"not a point cloud\n" + BODY, "complete PCD header"),
        (header("binary")[:-5], "complete PCD header"),
        (b"# \n" * 200 + header("binary") + BODY, "complete PCD header"),
        (header("binary", DATA="") + BODY, "complete PCD header"),
        (header("binary") + BODY[:-1], r"3 points \(36 bytes\), but what follows gives 35 bytes"),
        (header("binary", POINTS="999999999999") + BODY, "999999999999 points"),
        (header("ascii", POINTS="999999999999") + b"0 0 0\n", "but 1 rows follow"),
        (header("binary", POINTS="0") + BODY, "announces 0 points"),
        (header("binary", POINTS="many") + BODY, "whole number as POINTS"),
        (header("binary", POINTS=None, WIDTH=None) + BODY, "whole number as WIDTH"),
        (header("binary", FIELDS="x y w") + BODY, "columns x, y and z, got x, y, w"),
        (header("binary", FIELDS=None) + BODY, "differ in length"),
        (header("binary", SIZE="4 4") + BODY, "differ in length"),
        (header("binary", SIZE="4 4 3") + BODY, "unknown types"),
        (header("binary", COUNT="1 1 999999999") + BODY, "asks for 1000000001 columns"),
        (header("zipped") + BODY, "expected DATA ascii, binary or binary_compressed, got 'zipped'"),
        (header("ascii") + b"0 0 0\n0 a 0\n0 0 0\n", "could not convert string 'a'"),
        (header("binary_compressed"), "what follows gives 0 bytes"),
        (header("binary_compressed") + bytes(4), "what follows gives 0 bytes"),
        (compressed(BODY, literal_lzf(BODY), POINTS="999999999999"), "999999999999 points"),
        (compressed(BODY[:-1], literal_lzf(BODY)), "copy or download it again"),
        (compressed(BODY, literal_lzf(BODY))[:-1], "announces 38 compressed bytes.* but has 37"),
        (compressed(BODY, literal_lzf(BODY[:-1])), "damaged"),
    ],
)
def test_damaged_files(data, message):
    with pytest.raises(InputError, match=message) as caught:
        pcd.decode(data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("whole", [header("binary") + BODY, compressed(BODY, literal_lzf(BODY))])
def test_no_cut_of_a_file_gives_points_or_another_error(whole):
    assert len(pcd.decode(whole)[0]) == 3
    for length in range(len(whole)):
        with pytest.raises(InputError):
            pcd.decode(whole[:length])
