# SPDX-License-Identifier: Apache-2.0
"""Build the extension for Blender 4.2 and later: `body4d-VERSION.zip`, and the `index.json` of a repository that offers it.

    python scripts/build_extension.py [--out dist]

The zip holds the add-on, the engine (a wheel that Blender installs for reading takes, and that an engine environment is made from), the
models, pip, the locks of the engine's packages, and the licences. The same sources give the same bytes. Where a Blender module is at hand
the result is checked by Blender's own validator. To host a repository, put the two files into one folder of any web server.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Dict, List, Optional

import pythons
import setup_env
from pythons import Python, SetupError
from setup_env import ROOT

ADDON, MODELS = ROOT / "body4d_blender", ROOT / "packages" / "body4d-lite-models"
MANIFEST = ROOT / "blender_manifest.toml"
DATE = time.gmtime(setup_env.EPOCH)[:6]


def build(out: Path, python: Python) -> Path:
    """Write the zip and index.json into `out`; the path of the zip. Raises SetupError."""
    import tomllib

    manifest = tomllib.loads(MANIFEST.read_text(encoding="utf-8"))
    setup_env.make_home()
    with tempfile.TemporaryDirectory(prefix="extension-", dir=str(setup_env.home())) as work:
        wheels = [setup_env.pip_wheel(python)]
        for package in setup_env.OUR_PACKAGES:
            folder = Path(work) / package.name
            folder.mkdir()
            wheels.append(setup_env.wheel(package, python, folder))
        check_versions(manifest, wheels)
        out.mkdir(parents=True, exist_ok=True)
        path = out / ("%s-%s.zip" % (manifest["id"], manifest["version"]))
        write_zip(path, contents(wheels))
    index = {"version": "v1", "blocklist": [], "data": [entry(manifest, path)]}
    (out / "index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8", newline="\n")
    return path


def check_versions(manifest: dict, wheels: List[Path]) -> None:
    engine = next(wheel for wheel in wheels if wheel.name.startswith("body4d_engine-"))
    listed, wanted = manifest["wheels"], ["./wheels/" + engine.name]
    if listed != wanted or manifest["version"] != engine.name.split("-")[1]:
        raise SetupError("blender_manifest.toml is version %s with the wheels %s, but the engine is %s." % (manifest["version"], listed, wanted[0]),
                         "Give version and wheels there the version of body4d_engine/__init__.py.")


def contents(wheels: List[Path]) -> Dict[str, Path]:
    """What goes into the zip: name -> file."""
    files = {path.relative_to(ADDON).as_posix(): path for path in ADDON.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    files.update({MANIFEST.name: MANIFEST, "THIRD_PARTY.md": ROOT / "THIRD_PARTY.md", "LICENSE": ROOT / "LICENSES" / "GPL-3.0-or-later.txt"})
    files.update({"LICENSES/" + path.name: path for folder in (ROOT / "LICENSES", MODELS / "licenses") for path in folder.iterdir()
                  if not path.name.startswith("GPL")})
    files.update({"wheels/" + path.name: path for path in wheels})
    files.update({"wheels/" + name: setup_env.LOCKS / name for name in ("lite.txt", "full.txt")})
    return files


def write_zip(path: Path, files: Dict[str, Path]) -> None:
    """Sorted, with one date and one mode for all, so that equal contents are equal bytes. Replaces `path` only when complete."""
    part = path.with_name(path.name + ".part")
    with zipfile.ZipFile(part, "w") as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, DATE)
            info.create_system, info.external_attr = 3, 0o100644 << 16  # else they depend on the system that builds
            info.compress_type = zipfile.ZIP_STORED if name.endswith(".whl") else zipfile.ZIP_DEFLATED
            archive.writestr(info, files[name].read_bytes(), compresslevel=9)
    part.replace(path)


def entry(manifest: dict, path: Path) -> dict:
    """The manifest as Blender's `server-generate` lists it; a test compares the two."""
    data = path.read_bytes()
    listed = {key: value for key, value in manifest.items() if key != "wheels"}
    return {**listed, "python_versions": ["3"], "archive_url": "./" + path.name, "archive_size": len(data),
            "archive_hash": "sha256:" + hashlib.sha256(data).hexdigest()}


def validator() -> Optional[Path]:
    """Blender's own extension tool, in a Blender module of this Python or of the environments that scripts/test.py made."""
    found = importlib.util.find_spec("bpy")
    folders = [Path(found.origin).parent] if found and found.origin else []
    folders += [path for pattern in ("lib/python3*/site-packages/bpy", "Lib/site-packages/bpy") for path in setup_env.home().glob("blender-*/" + pattern)]
    tools = [tool for folder in folders for tool in folder.glob("*/scripts/addons_core/bl_pkg/cli/blender_ext.py")]
    return max(tools, default=None)


def validate(path: Path, tool: Path) -> None:
    """Raises SetupError with the validator's words where it finds something wrong."""
    tags = tool.parents[3] / "modules" / "_bpy_internal" / "extensions" / "tags.py"
    done = subprocess.run([sys.executable, "-I", str(tool), "validate", "--valid-tags=%s" % tags, str(path)], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, universal_newlines=True)
    if done.returncode != 0:
        raise SetupError("Blender's validator refuses %s: %s" % (path, setup_env.last_lines(done.stdout, 6)))


def main(arguments: List[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "dist", metavar="DIR", help="where the two files go (dist)")
    options = parser.parse_args(arguments)
    try:
        python = pythons.current() if sys.version_info >= (3, 11) else pythons.choose()
        pythons.restart(python, __file__, arguments)
        path = build(options.out, python)
        tool = validator()
        if tool:
            validate(path, tool)
    except SetupError as error:
        print(error.text, file=sys.stderr)
        return 1
    checked = "Blender's validator accepts it" if tool else "not validated: there is no Blender module here (python scripts/test.py makes them)"
    print("%s (%s; %s)" % (path, setup_env.size_text(path.stat().st_size), checked))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
