# SPDX-License-Identifier: Apache-2.0
"""Rewrite the locks, `requirements/*.txt`, from `requirements/*.in`: one exact version and its hashes for every platform.

    python scripts/lock.py [NAME ...]          resolve again (all of them, or e.g. `lite`)
    python scripts/lock.py --check [NAME ...]  say where each lock has a wheel for everything

Needs `uv` (`pip install uv`); nothing else in the project does.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
FOLDER = Path(__file__).resolve().parent.parent / "requirements"
PLATFORMS = ("x86_64-manylinux_2_28", "aarch64-manylinux_2_28", "x86_64-pc-windows-msvc", "aarch64-apple-darwin", "x86_64-apple-darwin")


def pythons(name: str) -> tuple[str, ...]:
    """The Python versions a lock is for. Blender's modules exist for one each."""
    if name == "bpy-5.2":
        return ("3.13",)
    return ("3.11",) if name.startswith("bpy-") else ("3.11", "3.13")


def sources(name: str) -> list[str]:
    """PyTorch's build for Linux without a GPU: from a folder that uv is told of (which has to hold it for all Pythons), else from PyTorch."""
    return ["--extra-index-url", TORCH_INDEX] if name == "full" and not os.environ.get("UV_FIND_LINKS") else []


def resolve(uv: str, name: str) -> None:
    # One version for all Pythons, so that results do not depend on which one a user has. uv looks only at lower bounds of the Python
    # versions of packages: what fits no newer Python has to be bounded in the .in file.
    only_one_package = ["--no-deps"] if name in ("demo", "views") else []
    # The full engine is added to the lite one, whose packages stay as they are.
    held = ["--constraint", str(FOLDER / "lite.txt")] if name == "full" else []
    subprocess.run([uv, "pip", "compile", "--quiet", "--universal", "--fork-strategy", "fewest", "--python-version", pythons(name)[0],
                    "--upgrade", "--generate-hashes", "--no-header", "--no-annotate", "--no-emit-index-url", *only_one_package, *held, *sources(name),
                    str(FOLDER / f"{name}.in"), "--output-file", str(FOLDER / f"{name}.txt")], check=True, cwd=FOLDER)
    if re.search(r"https?://|--(extra-)?index-url|--find-links", (FOLDER / f"{name}.txt").read_text(encoding="utf-8")):
        sys.exit(f"requirements/{name}.txt names an address: a lock must hold versions and hashes only")


def missing(uv: str, name: str, platform: str, python: str) -> str:
    """What has no wheel there, or ''."""
    with tempfile.TemporaryDirectory() as target:
        done = subprocess.run([uv, "pip", "install", "--dry-run", "--require-hashes", "--no-deps", "--only-binary", ":all:", "--target", target,
                               "--python-platform", platform, "--python-version", python, *sources(name), "--requirements", str(FOLDER / f"{name}.txt")],
                              capture_output=True, text=True, env={**os.environ, "MACOSX_DEPLOYMENT_TARGET": "14.0"})
    if done.returncode == 0:
        return ""
    found = re.search(r"available for `([\w.-]+)`", done.stderr) or re.search(r"[Bb]ecause ([\w.-]+?)==\S+ has no", done.stderr)
    return found.group(1) if found else done.stderr.strip()[-300:]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", default=[])
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    uv = shutil.which("uv")
    if not uv:
        sys.exit("uv is not on the PATH. Install it with: python -m pip install uv")
    names = options.names or sorted(path.stem for path in FOLDER.glob("*.in"))
    for name in names:
        if not options.check:
            resolve(uv, name)
            print(f"requirements/{name}.txt")
            continue
        for python in pythons(name):
            for platform in PLATFORMS:
                lacks = missing(uv, name, platform, python)
                print(f"{name:8} Python {python:5} {platform:24} {'no wheel: ' + lacks if lacks else 'complete'}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
