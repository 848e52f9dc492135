# SPDX-License-Identifier: Apache-2.0
"""Test the add-on in a real Blender window, with a real mouse, on a virtual screen.

    python scripts/test_window.py [--tree DIR] [--shots DIR] [-k NAME ...]

Makes a Debian system with Blender 4.3 and a virtual screen in DIR on first use (2 minutes, 1.9 GB): that needs Linux, root and Debian's archive.
Where that cannot be, it says so and ends with exit code 0. The engine's and the tests' environments are those of scripts/test.py.
What it does not know goes to pytest.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import List

import pythons
import setup_env
from pythons import SetupError
from setup_env import ROOT

TOOLS = ROOT / "tests" / "window"


def main(arguments: List[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], epilog="Other options go to pytest.")
    parser.add_argument("--tree", type=Path, metavar="DIR", help="where the window's system is made, or is already")
    parser.add_argument("--shots", type=Path, metavar="DIR", help="where pictures of the screen are kept")
    options, rest = parser.parse_known_args(arguments)
    if sys.platform != "linux" or os.geteuid() != 0:
        print("skipped: a window needs Linux and root.")
        return 0
    try:
        python = pythons.choose()
        pythons.restart(python, __file__, arguments)
        setup_env.make_home()
        tree = (options.tree or setup_env.home() / "window").absolute()
        if subprocess.call([str(TOOLS / "setup"), str(tree)], stdout=sys.stderr) != 0:
            print("skipped: the window's system could not be made in %s." % tree)
            return 0
        engine = str(setup_env.executable(setup_env.engine(python)))
        variables = setup_env.child_environment(setup_env.test_packages(python), ROOT, ROOT / "packages" / "body4d-lite-models")
    except SetupError as error:
        print(error.text, file=sys.stderr)
        return 1
    variables.update(BODY4D_WINDOW=str(tree), BODY4D_ENGINE_PYTHON=engine)
    if options.shots:
        variables["BODY4D_WINDOW_SHOTS"] = str(options.shots.absolute())
    return subprocess.call([engine, "-u", "-m", "pytest", "-q", "tests/window"] + rest, cwd=str(ROOT), env=variables, stdin=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
