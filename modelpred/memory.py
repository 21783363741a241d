"""How much memory there is, and requests that need more of it refused before work starts.

Available memory is the least of what the machine has, what the control groups of this process leave (a container's
limit) and what its own limit on address space leaves. Estimates are sums of the largest arrays that exist at one time.
"""

import contextlib
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

from modelpred.errors import InvalidInput

UNCHECKED = 2**26  # what any machine has, so that small calls do not read the system's files
UNLIMITED = 2**62
CGROUPS = Path("/sys/fs/cgroup")


def require_memory(needed: int, *, what: str) -> None:
    """Check that there is memory for a piece of work.

    Args:
        needed: estimated bytes.
        what: the work, with its sizes, such as "500 subsets of 300 rows".

    Raises:
        InvalidInput: there is less; the message says how much it needs and how much there is.
    """
    if needed <= UNCHECKED:
        return
    available = available_memory()
    if needed > available:
        raise InvalidInput(
            f"{what}: about {size_text(needed)} of memory are needed, and {size_text(available)} "
            "are available; ask for less"
        )


def available_memory() -> int:
    """Bytes of memory that this process may still take."""
    return max(0, min(_machine(), *_control_groups(), _address_space()))


def peak_memory() -> int:
    """Largest number of bytes that this process has held at one time."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def size_text(size: int) -> str:
    """A number of bytes in words, such as `3.2 GB`."""
    for unit, name in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB")):
        if size >= unit:
            whole = size // unit
            if whole >= 10**6:
                return f"1e{len(str(whole)) - 1} {name}"
            return f"{whole:,} {name}" if whole >= 100 else f"{size / unit:.3g} {name}"
    return f"{size:,} bytes"


def _machine() -> int:
    """Memory of the machine that programs can take without swapping."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    with contextlib.suppress(OSError, ValueError, AttributeError):  # other systems than Linux
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return UNLIMITED


def _control_groups(groups: Path = Path("/proc/self/cgroup"), root: Path = CGROUPS) -> list[int]:
    """Memory that each control group of this process leaves, those above it included."""
    left: list[int] = []
    with contextlib.suppress(OSError):
        for line in groups.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                left += _leaves(root, path, limit="memory.max", used="memory.current")
            elif "memory" in controllers.split(","):
                old = ("memory.limit_in_bytes", "memory.usage_in_bytes")
                left += _leaves(root / "memory", path, limit=old[0], used=old[1])
    return left


def _leaves(root: Path, path: str, *, limit: str, used: str) -> Iterator[int]:
    """What the group at this path and each group above it leave; in a container the path may not be there."""
    folder = root / path.strip("/")
    for group in (folder, *folder.parents):
        if not group.is_relative_to(root):
            return
        with contextlib.suppress(OSError, ValueError):  # "max" is no number
            most, now = (int((group / name).read_text()) for name in (limit, used))
            yield most - now + _reclaimable(group / "memory.stat")


def _reclaimable(path: Path) -> int:
    """Pages of files that nobody used for a while, which the kernel gives up first."""
    with contextlib.suppress(OSError, ValueError):
        for line in path.read_text().splitlines():
            if line.startswith("inactive_file "):
                return int(line.split()[1])
    return 0


def _address_space() -> int:
    """What this process's limit on its address space (ulimit -v) leaves."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return UNLIMITED
    in_use = 0
    with contextlib.suppress(OSError, ValueError, IndexError):
        in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    return limit - in_use
