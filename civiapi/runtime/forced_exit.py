"""Force-exit if shutdown takes more than 9 s.

A service manager kills the process after ten seconds and reports a failure. Nothing is lost either way: work that was
not committed is repeated by the next process.
"""

import os
import sys
import threading

SECONDS = 9.0


def end_process_later(seconds: float = SECONDS) -> None:
    """End this process in *seconds* if it still runs then."""
    timer = threading.Timer(seconds, _end)
    timer.daemon = True  # does not keep a process alive that has ended by itself
    timer.start()


def _end() -> None:
    sys.stderr.write("Shutdown took too long; the process was ended. The next one continues where it stopped.\n")
    sys.stderr.flush()
    os._exit(1)
