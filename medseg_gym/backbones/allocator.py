"""Keep large activations in the heap on Linux (glibc).

By default glibc maps every large block afresh and gives it back at once: one LiteMedSAM encoding
took about 440 000 page faults, and two threads were slower than one. Keeping freed blocks made it
several times faster (7.5 s to 0.9 s where it was measured). The price is that the process holds on
to its peak memory. It is done once, when the first model is loaded on a CPU; set
`MEDSEG_KEEP_MALLOC=1` to leave the allocator alone.
"""

from __future__ import annotations

import ctypes
import os
import platform
from functools import cache

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


@cache
def keep_freed_memory() -> bool:
    """Tell glibc to keep freed blocks; returns whether it was done."""
    if os.environ.get("MEDSEG_KEEP_MALLOC") or platform.libc_ver()[0] != "glibc":
        return False
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:
        return False
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 256 << 20))
    return all([libc.mallopt(option, value) == 1 for option, value in settings])


def give_back_freed_memory() -> bool:
    """Return what `keep_freed_memory` keeps to the system, once; returns whether it was done.

    Long-running programs call it now and then: between blocks of changing size a heap gets ever
    more holes. It takes a few hundredths of a second, and the pages are faulted in again when they
    are needed.
    """
    if not keep_freed_memory.cache_info().currsize or not keep_freed_memory():
        return False
    return bool(ctypes.CDLL("libc.so.6").malloc_trim(0))
