import contextlib
import io

import numpy as np
import pytest

from densescan.data import npy
from densescan.errors import InputError

POINTS = np.arange(12, dtype=np.float64).reshape(4, 3)


def saved(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def archived(**arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["<f4", ">f4", "<f8", "<f2", "<i4", "u1"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_reads_every_number_type_and_order(kind, order):
    points, remission = npy.decode(saved(np.asarray(POINTS, dtype=kind, order=order)))
    assert np.array_equal(points, POINTS)
    assert remission is None


def test_the_fourth_column_is_the_remission():
    points, remission = npy.decode(saved(np.column_stack([POINTS, [9, 8, 7, 6], [0, 0, 0, 0]])))
    assert np.array_equal(points, POINTS)
    assert remission.tolist() == [9, 8, 7, 6]


def test_archives():
    assert np.array_equal(npy.decode_archive(archived(points=POINTS, labels=np.zeros(4)))[0], POINTS)
    assert np.array_equal(npy.decode_archive(archived(anything=POINTS))[0], POINTS)
    with pytest.raises(InputError, match="one called 'points', got a, b"):
        npy.decode_archive(archived(a=POINTS, b=POINTS))
    with pytest.raises(InputError, match=r"no \.npz archive"):
        npy.decode_archive(archived(points=POINTS)[:-30])
    damaged = bytearray(archived(points=np.random.default_rng(0).normal(size=(500, 3))))
    damaged[len(damaged) // 2] ^= 0xFF
    with pytest.raises(InputError, match=r"no \.npz archive or a damaged one"):
        npy.decode_archive(bytes(damaged))


@pytest.mark.parametrize(
    "array", [np.zeros(12), np.zeros((4, 2)), np.zeros((2, 2, 3)), np.zeros((4, 3), complex)]
)
def test_other_shapes_and_types_are_refused(array):
    with pytest.raises(InputError, match=r"expected numbers in shape \(N, 3 or more\)"):
        npy.decode(saved(array))


def test_pickled_objects_are_not_loaded():
    with pytest.raises(InputError, match="expected numbers"):
        npy.decode(saved(np.array([[object()] * 3], dtype=object)))


def test_damaged_files_are_refused_at_no_cost():
    whole = saved(POINTS)
    for data in (b"text", whole[:40], b"\x93NUMPY\x09\x00" + whole[8:]):
        with pytest.raises(InputError, match="no NumPy array"):
            npy.decode(data)
    with pytest.raises(InputError, match="88 bytes follow"):
        npy.decode(whole[:-8])
    absurd = whole.replace(b"(4, 3), }         ", b"(999999999999, 3)}")
    assert absurd != whole
    with pytest.raises(InputError, match="was announced, but 96 bytes follow"):
        npy.decode(absurd)


def test_encoded_points_are_an_ordinary_npy_file():
    assert np.array_equal(np.load(io.BytesIO(npy.encode(POINTS))), POINTS)


def test_no_change_of_a_byte_gives_another_error():
    rng = np.random.default_rng(0)
    accepted = 0
    for decode, whole in ((npy.decode, saved(POINTS)), (npy.decode_archive, archived(points=POINTS))):
        for _ in range(300):
            data = bytearray(whole)
            data[rng.integers(len(data))] = rng.choice(list(b"(){}'9 \x00\xff"))
            with contextlib.suppress(InputError):
                accepted += len(decode(bytes(data))[0]) > 0
    assert 0 < accepted < 600
