# SPDX-License-Identifier: Apache-2.0
"""What works on this machine and what each backend lacks."""

import os
import platform
import shutil
import sys
import tempfile

from . import __version__
from .backends import BACKENDS
from .versions import versions


def examination() -> dict:
    """JSON-able: versions, the machine, and per backend whether it works and what it lacks, in words."""
    backends = {}
    for name, backend in BACKENDS.items():
        lacks = backend.lacks()
        backends[name] = {"works": not lacks, "lacks": lacks}
    return {"engine": __version__, "python": sys.version.split()[0], "executable": sys.executable, "platform": platform.platform(),
            "machine": platform.machine(), "cores": os.cpu_count(), "memory_bytes": _memory_bytes(),
            "disk_free_bytes": {"here": shutil.disk_usage(".").free, "temporary": shutil.disk_usage(tempfile.gettempdir()).free},
            "packages": versions(), "backends": backends}


def print_examination(result: dict) -> None:
    """The same for a person, on stdout."""
    memory = f", {result['memory_bytes'] / 2**30:.0f} GiB of memory" if result["memory_bytes"] else ""
    print(f"body4d {result['engine']} on Python {result['python']} ({result['executable']})")
    print(f"{result['platform']}: {result['cores']} cores{memory}, {result['disk_free_bytes']['here'] / 2**30:.0f} GiB free here")
    for name, version in result["packages"].items():
        print(f"  {name} {version or 'missing'}")
    for name, backend in result["backends"].items():
        print(f"backend {name}: " + ("works" if backend["works"] else "lacks " + ", ".join(backend["lacks"])))


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None  # Windows has no sysconf
