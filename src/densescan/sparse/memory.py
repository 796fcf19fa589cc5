"""Memory that a process keeps for its next array.

The features of large scenes are arrays of tens of megabytes, made and let go of in every layer. The C library of Linux
gives such memory back to the system, and every page of the next array must be asked for, and filled with zeros, anew:
several times slower than writing it.
"""

import ctypes
import os
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # numbers that mallopt has for them
_KEPT_ARRAY = 256 << 20  # bytes; holes that larger ones leave would cost too much memory
_MOST_THAT_OLD_LIBRARIES_TAKE = 32 << 20
_KEPT = (1 << 31) - 1


def keep_freed() -> bool:
    """Let this process keep memory that it frees, up to 2 GiB, where the C library is glibc; whether it does.

    Who has told glibc what to do, by a variable such as MALLOC_TRIM_THRESHOLD_ or GLIBC_TUNABLES, is left alone.
    """
    told = any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ)
    if told or not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    # In this order: what is kept says nothing of arrays that are mapped, and either call ends glibc's own adjustment.
    arrays = mallopt(_MMAP_THRESHOLD, _KEPT_ARRAY) or mallopt(_MMAP_THRESHOLD, _MOST_THAT_OLD_LIBRARIES_TAKE)
    return bool(arrays and mallopt(_TRIM_THRESHOLD, _KEPT))
