# SPDX-License-Identifier: Apache-2.0
"""Test the add-on in a real Blender window, with a real mouse, on a virtual screen.

    python scripts/test_window.py [--short] [--tree DIR] [--shots DIR] [-k NAME ...]

Makes a Debian system with Blender 4.3 and a virtual screen in DIR (else BODY4D_WINDOW, else the cache folder) on first use, in 2 minutes and 1.9 GB: that
needs Linux, root and Debian's archive.
Where that cannot be, it says so and ends with exit code 0. The engine's and the tests' environments are those of scripts/test.py.
What it does not know goes to pytest.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Dict, List, Optional, Tuple

import pythons
import setup_env
from pythons import Python, SetupError
from setup_env import ROOT

TOOLS = ROOT / "tests" / "window"
SHORT = "zip_is_installed or engine_is_installed or generate_cancel_continue"


def system(tree: Optional[Path] = None) -> Path:
    """The window's system, made where it is not there yet. Raises SetupError where it cannot be."""
    if sys.platform != "linux" or os.geteuid() != 0:
        raise SetupError("A window needs Linux and root.", "")
    setup_env.make_home()
    tree = (tree or Path(os.environ.get("BODY4D_WINDOW") or setup_env.home() / "window")).absolute()
    if subprocess.call([str(TOOLS / "setup"), str(tree)], stdout=sys.stderr) != 0:
        raise SetupError("The window's system could not be made in %s." % tree, "It needs mmdebstrap or apt, and Debian's archive.")
    return tree


def environment(python: Python) -> Tuple[str, Dict[str, str]]:
    """The engine's Python and the variables with which it finds the checkout and the tests' packages. Raises SetupError."""
    engine = str(setup_env.executable(setup_env.engine(python)))
    variables = setup_env.child_environment(setup_env.test_packages(python), ROOT, ROOT / "packages" / "body4d-lite-models")
    return engine, dict(variables, BODY4D_ENGINE_PYTHON=engine)


def main(arguments: List[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], epilog="Other options go to pytest.")
    parser.add_argument("--tree", type=Path, metavar="DIR", help="where the window's system is made, or is already")
    parser.add_argument("--shots", type=Path, metavar="DIR", help="where pictures of the screen are kept")
    parser.add_argument("--short", action="store_true", help="only install, pick, generate, cancel and continue")
    options, rest = parser.parse_known_args(arguments)
    try:
        python = pythons.choose()
        pythons.restart(python, __file__, arguments)
        try:
            tree = system(options.tree)
        except SetupError as error:
            print("skipped: " + error.text)
            return 0
        engine, variables = environment(python)
    except SetupError as error:
        print(error.text, file=sys.stderr)
        return 1
    variables["BODY4D_WINDOW"] = str(tree)
    if options.shots:
        variables["BODY4D_WINDOW_SHOTS"] = str(options.shots.absolute())
    tests = ["tests/window/test_from_zip.py", "-k", SHORT] if options.short else ["tests/window"]
    return subprocess.call([engine, "-u", "-m", "pytest", "-q"] + tests + rest, cwd=str(ROOT), env=variables, stdin=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
