"""Work that runs ahead of whoever asks for it."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from densescan.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """`map` in a thread that is one result ahead: while one is used, the next is made.

    One around another makes a line of stations that all work at once, each on an item of its own, in order. Whoever
    stops asking is not kept waiting for what is being made.
    Raises: what the function raises, when its result is due.
    """
    pool = ThreadPoolExecutor(1, "densescan")
    try:
        waiting = None
        for item in items:
            begun = pool.submit(function, item)
            if waiting is not None:
                yield waiting.result()
            waiting = begun
        if waiting is not None:
            yield waiting.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def error_as_result(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A station at which a bad item does not end the line: the function, but an InputError that it raises is its
    result, and one that comes from the station before is handed on."""

    def station(item: Any) -> Any:
        try:
            return item if isinstance(item, InputError) else function(item)
        except InputError as error:
            return error

    return station
