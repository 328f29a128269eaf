"""What ends a process that was told to stop and does not: a thread that needs nobody's help.

A service manager would kill it after ten seconds and call that a failure. Nothing is lost either way: whatever was not
committed is done again by whoever starts next.
"""

import os
import sys
import threading

SECONDS = 9.0


def end_process_later(seconds: float = SECONDS) -> None:
    """End this process in *seconds*, should it still be there."""
    timer = threading.Timer(seconds, _end)
    timer.daemon = True  # it must not keep a process alive that has ended well
    timer.start()


def _end() -> None:
    sys.stderr.write("The program did not stop in time and was ended; the next one goes on where it was.\n")
    sys.stderr.flush()
    os._exit(1)
