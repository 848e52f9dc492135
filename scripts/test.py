# SPDX-License-Identifier: Apache-2.0
"""Run all tests, in environments that this script makes on first use.

    python scripts/test.py                 everything: the engine, the full backend on a CPU, then the scene in every supported Blender
    python scripts/test.py --quick         without the slow tests and the full backend, and with one Blender
    python scripts/test.py --only 4.2      one ring: engine, full, or a Blender version
    python scripts/test.py -k take -x      what it does not know goes to pytest
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Iterator, List, NamedTuple, Optional, Tuple

import pythons
import setup_env
from pythons import Python, SetupError
from setup_env import ROOT

FULL = (3, 11)  # with which the full backend is tested; on the others where --every-python asks for it
BLENDERS = (("4.2", (3, 11)), ("4.5", (3, 11)), ("5.0", (3, 11)), ("5.2", (3, 13)))


class Ring(NamedTuple):
    """Tests that run in one environment; `missing` says why they cannot."""

    name: str
    folders: Tuple[str, ...]
    python: Optional[Python]
    blender: str = ""
    missing: str = ""


class Counts(NamedTuple):
    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __str__(self) -> str:
        return "%d passed, %d failed, %d skipped" % self

    def plus(self, other: "Counts") -> "Counts":
        return Counts(*(a + b for a, b in zip(self, other)))


def rings(quick: bool, every_python: bool) -> Iterator[Ring]:
    engine = ("tests/engine", "tests/setup")
    here = pythons.choose()
    yield Ring("engine", engine, here)
    if every_python:
        for minor in pythons.BLENDER_FOR:
            other = pythons.find(minor)
            if minor != here.minor:
                name = "engine-%d.%d" % minor
                yield Ring(name, engine, other, missing="" if other else "Python %d.%d was not found" % minor)
    if not quick:
        for minor in pythons.BLENDER_FOR if every_python else (FULL,):
            yield Ring("full" if minor == FULL else "full-%d.%d" % minor, ("tests/full",), pythons.find(minor), missing=_without_torch(minor))
    for version, minor in BLENDERS:
        if quick and version != pythons.BLENDER_FOR[here.minor]:
            continue
        python = pythons.find(minor)
        missing = "Python %d.%d was not found on this machine; get it from %s" % (*minor, pythons.DOWNLOAD)
        if python:
            missing = pythons.no_wheels(python, blender_too=True)
        yield Ring(version, ("tests/blender",), python, version, missing)


def _without_torch(minor: Tuple[int, int]) -> str:
    """Why the full backend cannot be tested with this Python here; '' where it can."""
    python = pythons.find(minor)
    if python is None:
        return "Python %d.%d was not found" % minor
    if sys.platform == "linux" and platform.machine() != "x86_64":
        return "the lock has no PyTorch for %s" % platform.machine()
    return pythons.no_wheels(python, blender_too=False)


def run(ring: Ring, arguments: List[str]) -> Tuple[Counts, str]:
    """The counts of a ring and, where it did not simply pass, what happened. Raises SetupError."""
    if ring.blender:
        folder = setup_env.blender(ring.python, ring.blender)
    else:
        folder = setup_env.full(ring.python) if ring.name.startswith("full") else setup_env.engine(ring.python)
    # The checkout is what is tested, in child processes too, whatever wheels were built from it.
    paths = [setup_env.test_packages(ring.python), ROOT, ROOT / "packages" / "body4d-lite-models"]
    variables = setup_env.child_environment(*paths)
    if ring.blender:  # tests of what Blender sees make their clips with the engine's libraries, which are not in Blender's environment
        variables["BODY4D_ENGINE_PYTHON"] = str(setup_env.executable(setup_env.engine(pythons.choose())))
    with tempfile.TemporaryDirectory() as work:
        report = Path(work) / "report.xml"
        command = [str(setup_env.executable(folder)), "-u", "-m", "pytest", "-q", "--junitxml", str(report)] + list(ring.folders) + arguments
        code = subprocess.call(command, cwd=str(ROOT), env=variables, stdin=subprocess.DEVNULL)
        counts = read_report(report)
    selected = any(argument.startswith(("-k", "-m", "--last-failed", "--lf")) or "::" in argument for argument in arguments)
    if code == 5 and selected:  # pytest: nothing was selected
        return counts, "no such test here"
    if code == 0 or (code == 1 and counts.failed):
        return counts, ""
    what = "there are no tests" if code == 5 else "pytest ended with exit code %d" % code
    return counts.plus(Counts(failed=1)), what


def read_report(report: Path) -> Counts:
    if not report.is_file():
        return Counts()
    total = Counts()
    for suite in ElementTree.parse(str(report)).getroot().iter("testsuite"):
        tests, errors, failures, skipped = (int(suite.get(name, "0")) for name in ("tests", "errors", "failures", "skipped"))
        total = total.plus(Counts(max(tests - errors - failures - skipped, 0), errors + failures, skipped))
    return total


def main(arguments: List[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], epilog="Other options go to pytest.")
    parser.add_argument("--quick", action="store_true", help="leave out slow tests, the full backend and all Blenders but one")
    parser.add_argument("--only", action="append", default=[], metavar="RING", help="engine, full, 4.2, 4.5, 5.0 or 5.2")
    parser.add_argument("--every-python", action="store_true", help="the tests of the engine and of the full backend on Python 3.11 and on 3.13")
    options, rest = parser.parse_known_args(arguments)
    known = ["engine", "full"] + [version for version, _ in BLENDERS]
    if set(options.only) - set(known):
        parser.error("--only takes one of: " + ", ".join(known))
    if options.quick:
        rest += ["-m", "not slow"]
    try:
        pythons.restart(pythons.choose(), __file__, arguments)
    except SetupError as error:
        print(error.text, file=sys.stderr)
        return 1
    lines, total = [], Counts()
    for ring in rings(options.quick and not options.only, options.every_python):
        if options.only and ring.name not in options.only:
            continue
        title = "Blender " + ring.name if ring.blender else ring.name
        counts, what, started = Counts(), "", time.monotonic()
        print("\n== %s" % title, flush=True)
        if ring.missing:
            counts, what = Counts(skipped=1), "NOT TESTED: " + ring.missing
        else:
            try:
                counts, what = run(ring, rest)
            except SetupError as error:
                counts, what = Counts(failed=1), str(error)
        if what:
            print(what, flush=True)
        lines.append("%-12s %s, %s%s" % (title, counts, setup_env.time_text(time.monotonic() - started), " (%s)" % what if what else ""))
        total = total.plus(counts)
    print("\n" + "\n".join(lines))
    print(total, flush=True)
    return 1 if total.failed or not total.passed else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
