"""Memory that a process keeps for its next array.

The features of large scenes are arrays of tens of megabytes, made and let go of in every layer. The C library of Linux
gives such memory back to the system, and every page of the next array must be asked for, and filled with zeros, anew:
several times slower than writing it. What is kept leaves holes, though, for arrays differ in size; where they are many,
asking anew for what the next arrays need is the lesser evil.
"""

import ctypes
import os
import sys
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # numbers that mallopt has for them
_KEPT_ARRAY = 256 << 20  # bytes; holes that larger ones leave would cost too much memory
_MOST_THAT_OLD_LIBRARIES_TAKE = 32 << 20
_KEPT = (1 << 31) - 1
_TOO_MUCH = 384 << 20  # free bytes, more than scenes of 18,000 points leave


class _Usage(ctypes.Structure):
    """What glibc says of its memory; `fordblks` are the bytes that are free."""

    _fields_ = tuple((name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
    ))  # fmt: skip


@cache
def _glibc() -> ctypes.CDLL | None:
    """The C library, if it is glibc and its user has not told it what to keep."""
    told = any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ)
    if told or not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") else None


def keep_freed() -> bool:
    """Let this process keep memory that it frees, up to 2 GiB, where the C library is glibc; whether it does.

    Who has told glibc what to do, by a variable such as MALLOC_TRIM_THRESHOLD_ or GLIBC_TUNABLES, is left alone.
    """
    library = _glibc()
    if library is None:
        return False
    mallopt = library.mallopt
    # In this order: what is kept says nothing of arrays that are mapped, and either call ends glibc's own adjustment.
    arrays = mallopt(_MMAP_THRESHOLD, _KEPT_ARRAY) or mallopt(_MMAP_THRESHOLD, _MOST_THAT_OLD_LIBRARIES_TAKE)
    return bool(arrays and mallopt(_TRIM_THRESHOLD, _KEPT))


def give_back() -> bool:
    """Let the system have what is free, if that is much; whether it does.

    Who has told glibc what to do is left alone, as by `keep_freed`.
    """
    library = _glibc()
    if library is None or not hasattr(library, "mallinfo2"):  # glibc before 2.33
        return False
    library.mallinfo2.restype = _Usage
    return library.mallinfo2().fordblks > _TOO_MUCH and bool(library.malloc_trim(0))
