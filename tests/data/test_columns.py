import pytest

from densescan.data import columns
from densescan.errors import InputError


def test_columns_are_found_by_name_in_any_order():
    assert columns.select(["ring", "Z", "y", "intensity", "x"]) == ([4, 2, 1], 3)
    assert columns.select(["x", "y", "z"]) == ([0, 1, 2], None)
    with pytest.raises(InputError, match="expected columns x, y and z, got x, y, w"):
        columns.select(["x", "y", "w"])
    with pytest.raises(InputError, match="got none"):
        columns.select([])


@pytest.mark.parametrize("text", ["-1", "1e3", "1.0", "", "0x10", "9" * 16, "²"])
def test_counts_are_whole_numbers(text):
    with pytest.raises(InputError, match="expected a whole number as POINTS"):
        columns.whole_number(text, "POINTS")
    assert columns.whole_number("123", "POINTS") == 123


def test_text_rows():
    points, remission = columns.from_text(["0 1 2 3", "4 5 6 7", "junk"], 2, ["x", "intensity", "y", "z"])
    assert points.tolist() == [[0, 2, 3], [4, 6, 7]]
    assert remission.tolist() == [1, 5]
    with pytest.raises(InputError, match="announces 3 points, but 2 rows follow"):
        columns.from_text(["0 1 2"] * 2, 3, "xyz")
    with pytest.raises(InputError, match="could not convert string 'junk'"):
        columns.from_text(["0 1 2", "0 junk 2"], 2, "xyz")
    with pytest.raises(InputError, match="no list of numbers"):
        columns.from_text(["0 1 2", "0 1"], 2, "xyz")
