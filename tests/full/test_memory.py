# SPDX-License-Identifier: Apache-2.0
"""How many things fit into memory, and what happens when they did not."""

import sys

import pytest

from body4d_engine import memory
from body4d_engine.errors import Body4DError
from body4d_engine.memory import Batches, Cost, batch_for, free_bytes, planned, used_bytes

GIB = 1 << 30


@pytest.mark.parametrize("free, limit, used, expected", [
    (10 * GIB, None, 0, 8),  # (9 - 1) / 1
    (10 * GIB, 6 * GIB, 0, 4),  # (5.4 - 1) / 1
    (10 * GIB, 6 * GIB, 3 * GIB, 1),  # (2.7 - 1) / 1
    (10 * GIB, 60 * GIB, 0, 8),  # a limit above what is free brings nothing
    (100 * GIB, None, 0, 32),  # most
    (0, None, 0, 1), (10 * GIB, 1, 5 * GIB, 1),  # one is always tried
])
def test_as_many_as_fit(free, limit, used, expected):
    assert batch_for(Cost(item=GIB, fixed=GIB, most=32), free, limit, used) == expected


def test_what_is_free_here():
    free, used = free_bytes("cpu"), used_bytes("cpu")
    assert 1 << 20 < free < 1 << 50 and 1 << 20 < used < 1 << 45
    assert planned(Cost(item=free // 4), "cpu") in (3, 4) and planned(Cost(item=GIB), "cpu", limit=1) == 1


def test_what_is_used_counts(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda device: 100 * GIB)
    monkeypatch.setattr(memory, "used_bytes", lambda device: 4 * GIB)
    assert planned(Cost(item=GIB), "cuda", limit=10 * GIB) == 5


@pytest.mark.parametrize("files, expected", [
    ({"memory.max": "max", "memory.current": "5", "memory.stat": ""}, None),
    ({"memory.max": "3000", "memory.current": "1000", "memory.stat": "anon 700\ninactive_file 250\n"}, 2250),
    ({"memory.max": "3000", "memory.current": "4000", "memory.stat": ""}, 0),
    ({"memory/memory.limit_in_bytes": "3000", "memory/memory.usage_in_bytes": "500", "memory/memory.stat": "cache 1\n"}, 2500),
    ({}, None),
])
def test_limits_of_containers(tmp_path, files, expected):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert memory._group_free(tmp_path) == (memory._UNLIMITED if expected is None else expected)


def test_devices_count_what_torch_holds_and_does_not_use(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3 * GIB, 8 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 4 * GIB)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 1 * GIB)
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 10 * GIB)
    monkeypatch.setattr(torch.mps, "current_allocated_memory", lambda: 4 * GIB)
    assert free_bytes("cuda:0") == 6 * GIB and used_bytes("cuda") == GIB and free_bytes("mps") == 6 * GIB and used_bytes("mps") == 4 * GIB


@pytest.mark.parametrize("limit, share", [(2 * GIB, 0.25), (80 * GIB, 1.0), (None, 1.0)])
def test_torch_itself_is_told_the_limit(monkeypatch, limit, share):
    torch, told = pytest.importorskip("torch"), []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3 * GIB, 8 * GIB))
    # What torch's own function calls in the end: it refuses a device without a number.
    monkeypatch.setattr(torch.cuda.memory, "_lazy_init", lambda: None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch._C, "_cuda_setMemoryFraction", lambda *said: told.append(said), raising=False)
    for device in ("cuda", "cuda:1", "cpu"):
        memory.limit_device(device, limit)
    assert told == [(share, 0), (share, 1)]


class Short:
    """Work that has memory for so many things at once, and notes what it did."""

    def __init__(self, most, error=None):
        self.most, self.done, self.error = most, [], error

    def __call__(self, part):
        if len(part) > self.most:
            raise self.error or MemoryError()
        self.done.append(list(part))
        return sum(part)


def errors():
    torch = pytest.importorskip("torch")
    return [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), MemoryError(), RuntimeError("MPS backend out of memory"),
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: error code 12 (Cannot allocate memory)")]


@pytest.mark.parametrize("number", range(4))
def test_out_of_memory_halves_for_good_and_nothing_is_left_out(number):
    batches, work = Batches(8, "a test"), Short(3, errors()[number])
    assert sum(batches.run(work, list(range(20)))) == sum(range(20))
    assert work.done[0] == [0, 1] and sum(work.done, []) == list(range(20)) and batches.size == 2
    list(batches.run(work, [1, 2, 3, 4]))
    assert work.done[-2:] == [[1, 2], [3, 4]]


def test_last_part_that_fails_is_halved_too():
    batches, work = Batches(8, "a test"), Short(2)
    list(batches.run(work, list(range(3))))
    assert work.done == [[0], [1], [2]] and batches.size == 1


def test_not_even_one():
    with pytest.raises(Body4DError) as error:
        list(Batches(4, "a test").run(Short(0), [1, 2, 3]))
    assert error.value.code == "out_of_memory" and "a test" in error.value.message


def test_other_errors_are_let_through():
    with pytest.raises(ZeroDivisionError):
        list(Batches(4, "a test").run(lambda part: 1 / 0, [1, 2]))


def test_failed_work_is_forgotten_before_it_is_tried_again(monkeypatch):
    """Fails where the error, whose traceback holds the work's arrays, lives on while memory is given back."""
    import weakref

    class Big:
        pass

    alive, held = [], []

    def work(part):
        big = Big()
        held.append(weakref.ref(big))
        if len(part) > 1:
            raise MemoryError
        return 0

    monkeypatch.setattr(memory, "release", lambda: alive.append(held[-1]() is not None))
    list(Batches(4, "a test").run(work, [1, 2, 3, 4]))
    assert alive == [False, False]


REALLY_SHORT = """
import resource, torch
from body4d_engine.memory import Batches, used_bytes
torch.zeros(1)
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (500 << 20),) * 2)
def work(part):
    return float(torch.ones(len(part), 100 << 18).sum()) / (100 << 18)
batches = Batches(16, "a test")
print(sum(batches.run(work, list(range(20)))), batches.size)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits a process as Linux does")
def test_with_memory_that_is_really_short():
    """100 MiB each and 500 MiB for all: torch's own error is understood, and four at once fit."""
    import subprocess

    pytest.importorskip("torch")
    done = subprocess.run([sys.executable, "-c", REALLY_SHORT], capture_output=True, text=True)
    assert done.stdout.split() == ["20.0", "4"], done.stdout + done.stderr


def test_importing_it_loads_nothing_heavy():
    import subprocess

    code = "import sys, body4d_engine.memory, body4d_engine.stages.full.track, body4d_engine.stages.full.camera; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"
