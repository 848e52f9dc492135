# SPDX-License-Identifier: Apache-2.0
"""What a machine is made of, as far as it decides what is installed. Starts `nvidia-smi` at most; imports nothing heavy."""

import csv
import ctypes
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from .packages import PACKAGES

SECONDS = 20  # a driver in trouble can hold nvidia-smi for ever
CAPABILITY_MAJOR, CAPABILITY_MINOR = 75, 76  # of the CUDA driver's device attributes


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU. `capability`: of its instruction set, (8, 9) for the RTX 40 series; (0, 0) where not known."""

    name: str
    bytes: int
    capability: tuple[int, int]


@dataclass(frozen=True)
class Torch:
    """An installed torch. `cuda`: the CUDA it was built for, '' for none."""

    version: str
    cuda: str = ""


@dataclass(frozen=True)
class Machine:
    """`system`: linux, windows or macos. `driver`: the NVIDIA driver's version, '' where there is none. `cuda`: the newest CUDA that it can run. `packages`:
    versions of those that matter, '-' for one that another package brings."""

    system: str
    processor: str
    python: tuple[int, int]
    gpus: tuple[Gpu, ...] = ()
    driver: str = ""
    cuda: tuple[int, int] | None = None
    torch: Torch | None = None
    packages: tuple[tuple[str, str], ...] = ()


def this_machine() -> Machine:
    """The machine and the Python that this runs on."""
    gpus, driver, cuda = nvidia()
    packages = {package.name: version for package in PACKAGES if (version := _version(package.name) or _brought(package.module))}
    system = {"Linux": "linux", "Windows": "windows", "Darwin": "macos"}.get(platform.system(), platform.system().lower())
    return Machine(system, platform.machine().lower().replace("amd64", "x86_64").replace("aarch64", "arm64"), sys.version_info[:2], gpus, driver, cuda,
                   installed_torch(), tuple(packages.items()))


def nvidia() -> tuple[tuple[Gpu, ...], str, tuple[int, int] | None]:
    """GPUs, driver version, newest CUDA. By nvidia-smi, and what that does not say by the driver's library."""
    gpus, driver = _by_program()
    found, cuda = _by_library()
    if cuda is None and driver:
        cuda = by_driver(driver)
    return gpus or found, driver, cuda


def by_driver(driver: str) -> tuple[int, int]:
    """The CUDA that a driver runs, by NVIDIA's table of minor version compatibility: 13 from 580 on, 12 from 525 on, 11 from 450 on."""
    number = int(re.match(r"\d*", driver)[0] or 0)
    return (13, 0) if number >= 580 else (12, 0) if number >= 525 else (11, 0) if number >= 450 else (10, 0)


def installed_torch() -> Torch | None:
    """The torch of this Python, without importing it: that takes seconds, and a broken one does not import."""
    version = _version("torch")
    if not version:
        return None
    cuda = ""
    with suppress(OSError, ValueError, AttributeError):
        text = Path(importlib.util.find_spec("torch").origin).with_name("version.py").read_text(encoding="utf-8")
        found = re.search(r"^cuda\b[^=\n]*=\s*'([\d.]+)'", text, re.MULTILINE)
        cuda = found[1] if found else ""
    return Torch(version, cuda)


def _by_program() -> tuple[tuple[Gpu, ...], str]:
    program = shutil.which("nvidia-smi") or (os.path.join(os.environ.get("SystemRoot", "C:\\Windows"), "System32", "nvidia-smi.exe") if os.name == "nt" else "")
    if not program:
        return (), ""
    try:
        done = subprocess.run([program, "--query-gpu=name,memory.total,driver_version,compute_cap", "--format=csv,noheader,nounits"], capture_output=True,
                              stdin=subprocess.DEVNULL, text=True, timeout=SECONDS, errors="replace")
    except (OSError, subprocess.TimeoutExpired):
        return (), ""
    gpus, driver = [], ""
    for row in csv.reader(done.stdout.splitlines() if done.returncode == 0 else (), skipinitialspace=True):
        if len(row) == 4 and re.fullmatch(r"\d+(\.\d+)*", row[2]):
            capability = re.fullmatch(r"(\d+)\.(\d+)", row[3])
            memory = int(row[1]) * 2**20 if row[1].isdigit() else 0
            gpus.append(Gpu(row[0], memory, (int(capability[1]), int(capability[2])) if capability else (0, 0)))
            driver = row[2]
    return tuple(gpus), driver


def _by_library() -> tuple[tuple[Gpu, ...], tuple[int, int] | None]:
    try:
        cuda = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
        number, count, gpus = ctypes.c_int(), ctypes.c_int(), []
        if cuda.cuDriverGetVersion(ctypes.byref(number)) or number.value == 0:
            return (), None
        if cuda.cuInit(0) == 0 and cuda.cuDeviceGetCount(ctypes.byref(count)) == 0:
            for index in range(count.value):
                device, name, memory, major, minor = ctypes.c_int(), ctypes.create_string_buffer(256), ctypes.c_size_t(), ctypes.c_int(), ctypes.c_int()
                cuda.cuDeviceGet(ctypes.byref(device), index)
                cuda.cuDeviceGetName(name, len(name), device)
                cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
                cuda.cuDeviceGetAttribute(ctypes.byref(major), CAPABILITY_MAJOR, device)
                cuda.cuDeviceGetAttribute(ctypes.byref(minor), CAPABILITY_MINOR, device)
                gpus.append(Gpu(name.value.decode(errors="replace"), memory.value, (major.value, minor.value)))
        return tuple(gpus), (number.value // 1000, number.value % 1000 // 10)
    except (OSError, AttributeError):
        return (), None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _brought(module: str) -> str | None:
    try:
        return "-" if importlib.util.find_spec(module) else None
    except (ImportError, ValueError):
        return None
