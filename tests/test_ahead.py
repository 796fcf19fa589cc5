"""Work ahead of time: in order, one result ahead, and no longer than someone asks."""

import threading

import pytest

from densescan.ahead import ahead, error_as_result
from densescan.errors import InputError


def test_it_gives_what_map_gives():
    assert list(ahead(str, range(5))) == [str(i) for i in range(5)]
    assert list(ahead(str, [])) == []


def test_the_next_is_made_while_one_is_used():
    made = [threading.Event() for _ in range(3)]
    results = ahead(lambda i: (made[i].set(), i)[1], range(3))
    assert next(results) == 0
    assert made[1].wait(10)
    assert not made[2].is_set()


def test_stations_work_at_once():
    """Both wait for each other: neither could end if one ran after the other."""
    meet = threading.Barrier(2)

    def second(i: int) -> int:
        if i == 0:
            meet.wait(10)
        return i

    def first(i: int) -> int:
        if i == 1:
            meet.wait(10)
        return i

    assert list(ahead(second, ahead(first, range(3)))) == [0, 1, 2]


def test_an_error_comes_when_its_result_is_due():
    results = ahead(lambda i: 1 // (2 - i), range(4))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert list(results) == []


def test_who_stops_asking_does_not_wait():
    go_on, began = threading.Event(), threading.Event()

    def slow(i: int) -> int:
        if i:
            began.set()
            go_on.wait(60)
        return i

    results = ahead(slow, range(3))
    assert next(results) == 0
    assert began.wait(10)
    results.close()  # would wait a minute
    assert not go_on.is_set()
    go_on.set()


def test_an_input_error_goes_through_all_stations():
    @error_as_result
    def halved(i: int) -> int:
        if i % 2:
            raise InputError(f"{i} is odd")
        return i // 2

    found = list(map(halved, map(halved, (8, 3, 6))))
    assert (found[0], str(found[1]), str(found[2])) == (2, "3 is odd", "3 is odd")
    with pytest.raises(TypeError):
        error_as_result(len)(1)
