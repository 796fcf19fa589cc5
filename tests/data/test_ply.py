import struct

import numpy as np
import pytest

from densescan.data import ply
from densescan.errors import InputError

POINTS = np.array([[1.5, -2.25, 0.5], [4.0, 5.0, -6.0]])


def header(storage: str, *lines: str, newline: str = "\n") -> bytes:
    return newline.join(["ply", f"format {storage} 1.0", *lines, "end_header", ""]).encode()


XYZ = ("element vertex 2", "property float x", "property float y", "property float z")


@pytest.mark.parametrize(("storage", "order"), [("binary_little_endian", "<"), ("binary_big_endian", ">")])
@pytest.mark.parametrize(
    ("kind", "code"), [("float", "f4"), ("float32", "f4"), ("double", "f8"), ("float64", "f8")]
)
def test_binary(storage, order, kind, code):
    data = header(storage, "element vertex 2", *[f"property {kind} {axis}" for axis in "xyz"])
    points, remission = ply.decode(data + POINTS.astype(order + code).tobytes())
    assert np.array_equal(points, POINTS)
    assert remission is None


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_ascii_with_extra_properties_and_faces(newline):
    lines = [
        "comment made by hand",
        "obj_info nothing",
        "element vertex 2",
        "property uchar red",
        "property double z",
        "property float x",
        "property float y",
        "property float intensity",
        "element face 1",
        "property list uchar int vertex_indices",
    ]
    body = newline.join(["255 0.5 1.5 -2.25 7", "0 -6 4 5.0 8", "3 0 1 1", ""]).encode()
    points, remission = ply.decode(header("ascii", *lines, newline=newline) + body)
    assert np.array_equal(points, POINTS)
    assert remission.tolist() == [7, 8]


@pytest.mark.parametrize(("storage", "order"), [("binary_little_endian", "<"), ("binary_big_endian", ">")])
def test_binary_elements_before_the_vertices_are_skipped(storage, order):
    lines = (
        "element camera 2",
        "property short id",
        "element face 2",
        "property list uchar int vertex_indices",
        "property float area",
        "element vertex 2",
        "property uchar red",
        "property float x",
        "property float y",
        "property float z",
        "property ushort reflectance",
    )
    body = struct.pack(f"{order}2h", 1, 2)
    body += struct.pack(f"{order}B3if", 3, 0, 1, 1, 0.5) + struct.pack(f"{order}Bf", 0, 0.5)
    for i, point in enumerate(POINTS):
        body += struct.pack(f"{order}B3fH", 255, *point, i + 7)
    points, remission = ply.decode(header(storage, *lines) + body)
    assert np.array_equal(points, POINTS)
    assert remission.tolist() == [7, 8]
    with pytest.raises(InputError, match="ends within its element 'face'"):
        ply.decode(header(storage, *lines) + body[:5])


def test_ascii_elements_before_the_vertices_are_skipped():
    data = header("ascii", "element other 1", "property int id", *XYZ) + b"42\n1.5 -2.25 0.5\n\n4 5 -6\n"
    assert np.array_equal(ply.decode(data)[0], POINTS)


BINARY = "binary_little_endian"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"solid stl", "complete PLY header"),
        (header(BINARY, *XYZ)[:-8], "complete PLY header"),
        (header(BINARY, *XYZ) + bytes(23), r"2 points \(24 bytes\), but what follows gives 23 bytes"),
        (header(BINARY, "element vertex 999999999999", *XYZ[1:]) + bytes(24), "999999999999 points"),
        (header("ascii", "element vertex 999999999999", *XYZ[1:]) + b"0 0 0\n", "but 1 rows follow"),
        (header(BINARY, "element vertex 0", *XYZ[1:]), "announces 0 points"),
        (header("ascii", "element vertex 0", *XYZ[1:]), "announces 0 points"),
        (header(BINARY, "element vertex -2", *XYZ[1:]), "whole number as number of 'vertex'"),
        (header(BINARY, "element vertex 2", "property float x"), "columns x, y and z, got x"),
        (header(BINARY, "element face 2", "property float x"), "no element 'vertex'"),
        (header(BINARY, *XYZ, "property list uchar int a") + bytes(99), "vertices carry list properties"),
        (header(BINARY, *XYZ, "property quad w"), "'property quad w', which is not PLY"),
        (header(BINARY, *XYZ, "property list float int w"), "not PLY"),
        (header(BINARY, "property float x"), "not PLY"),
        (header("morse", *XYZ), "no known format; expected one of ascii"),
        (header("ascii", *XYZ) + b"0 0 0\n0 zero 0\n", "could not convert string 'zero'"),
        (header("ascii", *XYZ) + b"0 0 0\n0 0\n", "no list of numbers"),
        (
            header(BINARY, "element face 99999999999", "property list uchar int a", *XYZ) + bytes(50),
            "ends within its element 'face'",
        ),
    ],
)
def test_damaged_files(data, message):
    with pytest.raises(InputError, match=message) as caught:
        ply.decode(data)
    assert "\n" not in str(caught.value)


def test_no_cut_of_a_file_gives_points_or_another_error():
    whole = header(BINARY, *XYZ) + POINTS.astype("<f4").tobytes()
    assert np.array_equal(ply.decode(whole)[0], POINTS)
    for length in range(len(whole)):
        with pytest.raises(InputError):
            ply.decode(whole[:length])
