# SPDX-License-Identifier: GPL-3.0-or-later
"""What to copy where on a machine that cannot go online."""

from pathlib import Path

from .bundle import Bundle, Package
from .interpreters import Python

LIST = "body4d-packages.txt"


def wheels_folder(root: Path) -> Path:
    return root / "wheels"


def missing(root: Path, bundle: Bundle) -> list[Package]:
    """The packages that `wheels` lacks."""
    return [package for package in bundle.packages() if not package.found_in(wheels_folder(root))]


def platforms(python: Python) -> list[str]:
    """pip's names for the platform, the newest first; pip adds the older ones only for macOS."""
    machine = python.machine
    if python.platform.startswith("linux"):
        return [f"manylinux_2_28_{machine}", f"manylinux_2_27_{machine}", f"manylinux_2_17_{machine}", f"manylinux2014_{machine}"]
    return ["macosx_14_0_arm64"] if python.platform.startswith("macosx") else ["win_amd64"]


def instructions(root: Path, bundle: Bundle, python: Python) -> str:
    """Write the list of packages into `wheels` and say in steps what to do with it."""
    folder = wheels_folder(root)
    folder.mkdir(parents=True, exist_ok=True)
    listed = [" ".join([f"{p.name}=={p.version}", *(f"--hash={value}" for value in p.hashes)]) for p in bundle.packages()]
    (folder / LIST).write_text("\n".join(listed) + "\n", encoding="utf-8")
    where = " ".join(f"--platform {name}" for name in platforms(python))
    return "\n".join([
        "To install without internet on this computer:",
        f"1. Copy the file {folder / LIST} to a computer with internet and Python, of any kind.",
        "2. There, in the folder with that file, run:",
        f"python -m pip download --require-hashes --no-deps --only-binary=:all: --python-version {'.'.join(map(str, python.minor))} "
        f"--implementation cp {where} --dest wheels --requirement {LIST}",
        f"3. Copy all files of the folder `wheels` that it makes into {folder} on this computer.",
        "4. Install again. Nothing is downloaded then."])
