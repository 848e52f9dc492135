# SPDX-License-Identifier: Apache-2.0
"""Take the pictures of docs/guide.md anew, in a real Blender window, by doing what the guide says.

    python scripts/make_guide.py [--tree DIR] [--out docs/guide]

Needs what scripts/test_window.py needs. Look at the pictures before they go in.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import List

import pythons
import setup_env
import test_window
from pythons import SetupError
from setup_env import ROOT


def main(arguments: List[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tree", type=Path, metavar="DIR", help="where the window's system is made, or is already")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "guide", metavar="DIR", help="where the pictures go (docs/guide)")
    options = parser.parse_args(arguments)
    try:
        python = pythons.choose()
        pythons.restart(python, __file__, arguments)
        tree = test_window.system(options.tree)
        engine, variables = test_window.environment(python)
        clip = setup_env.demo_clip()
    except SetupError as error:
        print(error.text, file=sys.stderr)
        return 1
    return subprocess.call([engine, "-u", "-m", "tests.window.guide", str(tree), str(clip), str(options.out.absolute())], cwd=str(ROOT), env=variables,
                           stdin=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
