# SPDX-License-Identifier: Apache-2.0
"""Time, memory, operators and arithmetic of a device."""

import platform
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from body4d_engine.memory import release, used_bytes

GIB = 2**30
LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx", "cudaGraphLaunch")


def machine(device: str) -> dict:
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.processor() or platform.machine()
    return {"device": name, "torch": torch.__version__, "cuda": torch.version.cuda, "python": platform.python_version(), "threads": torch.get_num_threads()}


def synchronise(device) -> None:
    if str(device).startswith("cuda"):
        torch.cuda.synchronize(device)


def seconds(work: Callable, device) -> float:
    synchronise(device)
    started = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - started


@contextmanager
def peak(device: str) -> Iterator[dict]:
    """Fills `gib`: on CUDA the most that torch held on the device inside, elsewhere the most that this program had in memory, looked at 50 times a second."""
    release()
    found: dict = {}
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
        yield found
        found["gib"] = torch.cuda.max_memory_allocated(device) / GIB
        return
    most, done = [used_bytes()], threading.Event()

    def look() -> None:
        while not done.wait(0.02):
            most.append(max(most.pop(), used_bytes()))

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield found
    finally:
        done.set()
        watcher.join()
    found["gib"] = most[0] / GIB


class Operators(TorchDispatchMode):
    """Counts operators that compute or copy: each is a kernel or more. Not counted: views, and memory that is asked for."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        with self:  # what is made of others, as a linear layer of a view and a product, is counted by these
            parts = operator.decompose(*args, **kwargs)
        if parts is not NotImplemented:
            return parts
        self.count += not (operator.is_view or operator.__name__.startswith(("empty", "detach", "_unsafe_view", "lift", "alias")))
        return operator(*args, **kwargs)


def launches(work: Callable, device: str) -> dict:
    """Of one call: operators, and on CUDA kernel launches as the profiler saw them."""
    operators = Operators()
    with operators:
        work()
    found = {"operators": operators.count}
    if device.startswith("cuda"):
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]) as profile:
            work()
            synchronise(device)
        found["kernel_launches"] = sum(event.name in LAUNCHES for event in profile.events())
    return found


def flops(work: Callable) -> int:
    """Of products of matrices, convolutions and attention in one call; all else is left out."""
    with FlopCounterMode(display=False) as counted:
        work()
    return counted.get_total_flops()


def throughput(device: str, dtype: torch.dtype) -> float:
    """FLOP per second of a product of large square matrices; float32 without TF32."""
    size = 8192 if device.startswith("cuda") else 1024
    first, second = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        first @ second
        return 2 * size**3 / median(seconds(lambda: first @ second, device) for _ in range(5))
    finally:
        torch.set_float32_matmul_precision(precision)


class Clock:
    """Time inside functions, by name: on CUDA that of the device, by events, else this program's. A call inside another is taken off the outer one's."""

    def __init__(self, device: str):
        self._cuda = device.startswith("cuda")
        self._spans: list[tuple[str, object, object]] = []
        self._inside: list[list[int]] = []
        self._children: dict[int, list[int]] = {}

    def around(self, name: str, function: Callable) -> Callable:
        def timed(*args, **kwargs):
            number = len(self._spans)
            self._spans.append((name, self._now(), None))
            if self._inside:
                self._inside[-1].append(number)
            self._inside.append([])
            out = function(*args, **kwargs)
            self._children[number] = self._inside.pop()
            self._spans[number] = (*self._spans[number][:2], self._now())
            return out

        return timed

    def _now(self):
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _length(self, number: int) -> float:
        _, start, end = self._spans[number]
        return start.elapsed_time(end) / 1e3 if self._cuda else end - start

    def seconds(self) -> dict[str, float]:
        if self._cuda:
            torch.cuda.synchronize()
        found: dict[str, float] = {}
        for number, (name, *_) in enumerate(self._spans):
            own = self._length(number) - sum(self._length(child) for child in self._children[number])
            found[name] = found.get(name, 0.0) + own
        return found
