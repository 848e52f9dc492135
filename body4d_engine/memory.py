# SPDX-License-Identifier: Apache-2.0
"""How much memory there is, how many things fit into it at once, and what happens when that was too many. Importing this loads nothing heavy."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from .errors import Body4DError, is_out_of_memory

KEPT_FREE = 0.1  # of what is free: allocators cut memory into pieces, and other programs breathe
_UNLIMITED = 1 << 60  # what control groups write where there is no limit is larger
_HINT = "Close other programs that use it, or use --start and --end, and run again: it goes on where it stopped."
Item, Result = TypeVar("Item"), TypeVar("Result")


@dataclass(frozen=True)
class Cost:
    """What a stage needs, in bytes: `fixed`, whatever the batch, beyond what it holds already, and `item` for each thing in a batch. `most`: more at once bring
    nothing."""

    item: int
    fixed: int = 0
    most: int = 64


def batch_for(cost: Cost, free: int, limit: int | None = None, used: int = 0) -> int:
    """How many things a stage takes at once: as many as fit, at least one and at most `cost.most`.

    `free` bytes are free; `limit` is what the user lets the program have altogether, of which `used` bytes are in use."""
    room = free if limit is None else min(free, limit - used)
    return max(1, min(cost.most, int(room * (1 - KEPT_FREE) - cost.fixed) // max(cost.item, 1)))


def planned(cost: Cost, device: str, limit: int | None = None) -> int:
    """batch_for, with what is free on the device now."""
    return batch_for(cost, free_bytes(device), limit, used_bytes(device))


def best_device() -> str:
    """The device that torch computes on here: cuda, mps or cpu."""
    import torch

    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


def computing_device(limit: int | None) -> str:
    """The device that torch computes on here, held to `limit` bytes where torch can do that."""
    device = best_device()
    limit_device(device, limit)
    return device


def limit_device(device: str, limit: int | None) -> None:
    """Have torch itself refuse more than `limit` bytes on a CUDA device, None for no limit. Elsewhere only the plan keeps to it."""
    if device.startswith("cuda"):
        import torch

        share = 1.0 if limit is None else min(1.0, limit / torch.cuda.mem_get_info(device)[1])
        torch.cuda.set_per_process_memory_fraction(share, torch.device(device).index)  # it takes no device without a number; None is the current one


def free_bytes(device: str = "cpu") -> int:
    """What can still be had on a device (cpu, cuda, cuda:1, mps), with what torch holds there and does not use."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.startswith("mps"):
        import torch

        return max(0, torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    return min(_system_free(), _group_free(), _own_free())


def used_bytes(device: str = "cpu") -> int:
    """What this program uses on a device."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.memory_allocated(device)
    if device.startswith("mps"):
        import torch

        return torch.mps.current_allocated_memory()
    return _resident()


def release() -> None:
    """Give what is no longer used back to the device and the system. Nobody may still hold the network that is to go."""
    import ctypes
    import gc

    gc.collect()
    torch = sys.modules.get("torch")
    with suppress(RuntimeError):  # of a device that has failed, which is told elsewhere
        if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        if torch is not None and torch.backends.mps.is_available():
            torch.mps.empty_cache()
    if sys.platform == "linux":
        with suppress(AttributeError, OSError):  # of the GNU C library alone, which keeps a network's gigabytes to itself: most tensors are of a few MB
            ctypes.CDLL(None).malloc_trim(0)


class Batches:
    """Runs work over things, `size` at a time. Where memory does not suffice, the size is halved for good, and what failed is done again in smaller parts.

    The work must be one that can be begun anew with some of the same things."""

    def __init__(self, size: int, what: str):
        """`what`: what is done, as an error calls it: "tracking"."""
        self.size, self._what = max(1, size), what

    def run(self, work: Callable[[Sequence[Item]], Result], things: Sequence[Item]) -> Iterator[Result]:
        """Yields work(part) of successive parts. Raises Body4DError `out_of_memory` where not even one thing fits."""
        begin = 0
        while begin < len(things):
            part, failed = things[begin : begin + self.size], False
            try:
                result = work(part)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if len(part) == 1:
                    raise Body4DError(f"There is not enough memory for {self._what}.", _HINT, "out_of_memory") from error
                failed = True
            if failed:  # out here the error is gone, and with it all that its traceback held
                self.size = len(part) // 2
                release()
                continue
            begin += len(part)
            yield result


def _system_free() -> int:
    if sys.platform == "win32":
        return _windows_free()
    try:
        return 1024 * next(int(line.split()[1]) for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError, IndexError):
        # macOS does not say how much it would give up for us: half of what is built in
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _group_free(root: Path = Path("/sys/fs/cgroup")) -> int:
    """What a container may still take (control groups, version 2 or 1). Files that were read and can be forgotten count as free."""
    old = root / "memory"
    for most, now, of in ((root / "memory.max", root / "memory.current", root), (old / "memory.limit_in_bytes", old / "memory.usage_in_bytes", old)):
        try:
            left = int(most.read_text()) - int(now.read_text())
            cached = [int(line.split()[1]) for line in (of / "memory.stat").read_text().splitlines() if line.startswith("inactive_file ")]
        except (OSError, ValueError, IndexError):  # no such file; "max"
            continue
        return max(0, left + sum(cached))
    return _UNLIMITED


def _own_free() -> int:
    """What this process may still take by its own limits (`ulimit -d` and `-v`)."""
    try:
        import resource

        pages = [int(count) * os.sysconf("SC_PAGE_SIZE") for count in Path("/proc/self/statm").read_text().split()]
    except (ImportError, OSError):
        return _UNLIMITED
    limits = ((resource.getrlimit(resource.RLIMIT_AS)[0], pages[0]), (resource.getrlimit(resource.RLIMIT_DATA)[0], pages[5]))
    return max(0, min((most - now for most, now in limits if most != resource.RLIM_INFINITY), default=_UNLIMITED))


def _resident() -> int:
    if sys.platform == "win32":
        return _windows_own()
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def _windows_free() -> int:
    import ctypes

    class Status(ctypes.Structure):  # MEMORYSTATUSEX
        _fields_ = [("size", ctypes.c_uint32), ("load", ctypes.c_uint32)] + [
            (name, ctypes.c_uint64) for name in ("total", "free", "total_pages", "free_pages", "total_virtual", "free_virtual", "extended")]

    status = Status(size=ctypes.sizeof(Status))
    ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))
    return status.free


def _windows_own() -> int:
    import ctypes

    class Counters(ctypes.Structure):  # PROCESS_MEMORY_COUNTERS
        _fields_ = [("size", ctypes.c_uint32), ("faults", ctypes.c_uint32)] + [
            (name, ctypes.c_size_t) for name in ("peak", "resident", "a", "b", "c", "d", "pages", "peak_pages")]

    counters = Counters(size=ctypes.sizeof(Counters))
    kernel = ctypes.windll.kernel32
    kernel.GetCurrentProcess.restype = ctypes.c_void_p
    kernel.K32GetProcessMemoryInfo(ctypes.c_void_p(kernel.GetCurrentProcess()), ctypes.byref(counters), counters.size)
    return counters.resident
