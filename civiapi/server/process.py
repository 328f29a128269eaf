"""Tune a long-running process: the interpreter, the memory allocator, the limit of open files."""

import ctypes
import gc
import resource
import sys
from contextlib import suppress

from sync.mailchimp.transport import preload_http, tls_context

SWITCH_S = 0.0001
"""How long a thread may keep the interpreter while another waits for it; callers notice Python's default of 5 ms."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # of GNU's malloc.h
TRIM_BYTES = 131_072
LARGE_BYTES = 1_048_576

MAX_FILES = 1_048_576
"""Open files and connections requested where the system sets no limit."""


def tune_process() -> None:
    """Prepare for long or heavy work; to be called once, after all imports.

    Objects that exist now are excluded from garbage collection (a sixth of the time of a large sync), threads switch
    sooner (see also ``civiapi/runtime/loop_priority.py``), and HTTP and TLS certificates are loaded before anyone
    waits for them. The limit of open files is raised as far as allowed: a thousand idle connections would otherwise
    exclude all others.
    """
    tls_context()
    preload_http()
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(SWITCH_S)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY:
        most = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def tune_malloc() -> None:
    """Return memory to the system as soon as it is free.

    GNU's malloc otherwise keeps large blocks after a few, and an arena for each thread: request bodies of the maximum
    size then use 25 MB more at the peak (measured).
    """
    with suppress(OSError, AttributeError):  # another C library
        malloc = ctypes.CDLL(None)
        malloc.mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
        malloc.mallopt(M_TRIM_THRESHOLD, TRIM_BYTES)
        malloc.mallopt(M_ARENA_MAX, 1)
