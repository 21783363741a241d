"""Commands that end with the process that started them."""

import os
import sys
from collections.abc import Iterable

# Runs a command that the kernel kills (prctl's PR_SET_PDEATHSIG is 1) when the thread that started it
# ends. That thread waits for the command, so it ends early only if the whole process is killed.
LAUNCH = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
if os.getppid() == int(sys.argv[1]):
    os.execvp(sys.argv[2], sys.argv[2:])
"""


def ends_with_this_process(words: Iterable[str]) -> list[str]:
    """The words of a command that Linux kills if this process is killed; elsewhere the command as it is."""
    if sys.platform != "linux":
        return list(words)
    return [sys.executable, "-I", "-S", "-c", LAUNCH, str(os.getpid()), *words]
