"""How a process is set up that is to run for long, or to do much: the interpreter, the allocator, the limits."""

import ctypes
import gc
import resource
import sys
from contextlib import suppress

from sync.mailchimp.transport import load_http, trusted_authorities

SWITCH_S = 0.0001
"""How long a thread may keep the interpreter while another waits for it; Python's own 5 ms is felt by every caller."""

M_MMAP_THRESHOLD = -3  # of GNU's malloc.h
LARGE_BYTES = 1_048_576

MOST_FILES = 1_048_576
"""Open files and connections we ask for, where the system sets no limit of its own."""


def settle_in() -> None:
    """Make a process that is to run for long, or to do much, run well: once, when everything is imported.

    What is there by now stays, so the garbage collector need not look it through again and again (a sixth of the time
    of a large sync). A thread at work on the database hands over sooner to the one that answers calls (how it gives way
    to it as well is in ``civiapi/store/courtesy.py``). Whom TLS trusts is read now, and what HTTP takes is loaded, and
    not while somebody waits for an answer. As many may be connected as the system lets us have: a thousand idle ones,
    where it lets us have more, would shut everyone out.
    """
    trusted_authorities()
    load_http()
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(SWITCH_S)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY:
        most = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def give_memory_back() -> None:
    """Have large pieces of memory given back as soon as they are done with.

    Left to itself GNU's malloc keeps them once it has seen a few: bodies as large as we read weighed 20 MB more at the
    peak (measured).
    """
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
