# SPDX-License-Identifier: Apache-2.0
"""What works on this machine, what each backend lacks, and what to do next about each of it."""

import os
import platform
import shutil
import sys
import tempfile

from . import __version__
from .backends import BACKENDS
from .examining import all_checks
from .proving import prove
from .setup.machine import this_machine
from .versions import versions


def examination(online: bool = False, verify: bool = False) -> dict:
    """JSON-able: versions, the machine, per backend whether it works and what it lacks, in words; `checks`, each with what was found and the next step; and
    `proven`, whether all that was to be proven was, None where nothing was.

    `online`: also asks the hub whether this user may have the weights. `verify`: also proves with the weights that are here what only they can show.
    """
    backends = {}
    for name, backend in BACKENDS.items():
        lacks = backend.lacks()
        backends[name] = {"works": not lacks, "lacks": lacks}
    memory, machine = _memory_bytes(), this_machine()
    checks, proofs = all_checks(machine, online), list(prove()) if verify else []
    return {"engine": __version__, "python": sys.version.split()[0], "executable": sys.executable, "platform": platform.platform(),
            "machine": platform.machine(), "cores": os.cpu_count(), "memory_bytes": memory,
            "disk_free_bytes": {"here": shutil.disk_usage(".").free, "temporary": shutil.disk_usage(tempfile.gettempdir()).free},
            "gpus": [{"name": gpu.name, "memory_bytes": gpu.bytes, "capability": gpu.capability} for gpu in machine.gpus], "driver": machine.driver,
            "packages": versions(), "backends": backends, "checks": [check._asdict() for check in checks + proofs],
            "proven": all(proof.state in ("ok", "note") for proof in proofs) if verify else None}


def print_examination(result: dict) -> None:
    """The same for a person, on stdout."""
    memory = f", {result['memory_bytes'] / 2**30:.0f} GiB of memory" if result["memory_bytes"] else ""
    print(f"body4d {result['engine']} on Python {result['python']} ({result['executable']})")
    print(f"{result['platform']}: {result['cores']} cores{memory}, {result['disk_free_bytes']['here'] / 2**30:.0f} GiB free here")
    for name, version in result["packages"].items():
        print(f"  {name} {version or 'missing'}")
    for name, backend in result["backends"].items():
        print(f"backend {name}: " + ("works" if backend["works"] else "lacks " + ", ".join(backend["lacks"])))
    for check in result["checks"]:
        print(f"  {check['state']:<8}{check['name']}: {check['found']}")
        if check["next"]:
            print(f"  {'':<8}-> {check['next']}")


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None  # Windows has no sysconf
