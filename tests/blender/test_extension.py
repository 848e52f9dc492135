# SPDX-License-Identifier: GPL-3.0-or-later
"""The extension as a user gets it: built, validated, listed, installed from its zip, updated, and its engine installed."""

import hashlib
import json
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import bpy
import pytest

from .make_take import make_take

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import build_extension  # noqa: E402
import pythons  # noqa: E402

SCRIPTS = Path(bpy.utils.system_resource("SCRIPTS"))
TOOL = SCRIPTS / "addons_core" / "bl_pkg" / "cli" / "blender_ext.py"  # needs no Blender to run
TAGS = SCRIPTS / "modules" / "_bpy_internal" / "extensions" / "tags.py"
FAKE = Path(__file__).with_name("fake_engine.py")
INSTALL = """
import bpy, sys
def install(package):
    bpy.ops.extensions.package_install_files(filepath=package, repo="user_default", enable_on_install=True, overwrite=True)
    return bpy.context.preferences.addons["bl_ext.user_default.body4d"].preferences
"""


@pytest.fixture(scope="session")
def package(tmp_path_factory) -> Path:
    return build_extension.build(tmp_path_factory.mktemp("dist"), pythons.current())


def tool(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-I", TOOL, *arguments], capture_output=True, text=True)


def newer(package: Path, folder: Path, version: str) -> Path:
    """The same extension under another version."""
    old, path = package.stem.split("-")[1], folder / f"body4d-{version}.zip"
    with zipfile.ZipFile(package) as before, zipfile.ZipFile(path, "w") as after:
        for name in before.namelist():
            data = before.read(name)
            if name == "blender_manifest.toml":
                data = data.replace(old.encode(), version.encode())
            if name.startswith("wheels/body4d_engine-"):
                name = name.replace(old, version)
                data = wheel_of(data, old, version, folder)
            after.writestr(name, data)
    return path


def wheel_of(data: bytes, old: str, version: str, folder: Path) -> bytes:
    (folder / "old.whl").write_bytes(data)
    with zipfile.ZipFile(folder / "old.whl") as before, zipfile.ZipFile(folder / "new.whl", "w") as after:
        for name in before.namelist():
            text = before.read(name)
            after.writestr(name.replace(f"-{old}.dist-info", f"-{version}.dist-info"),
                           text.replace(old.encode(), version.encode()) if name == "body4d_engine/__init__.py" or ".dist-info/" in name else text)
    return (folder / "new.whl").read_bytes()


def blender(tmp_path: Path, code: str, *arguments, **variables) -> str:
    """Run code in another Blender, or Python with the bpy module, whatever this is, with settings of its own. Returns what it said."""
    script = tmp_path / "script.py"
    script.write_text(INSTALL + code, encoding="utf-8")
    program = ([bpy.app.binary_path, "-b", "--factory-startup", "--python-exit-code", "1", "--python", script, "--"] if bpy.app.binary_path
               else [sys.executable, script])
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "BODY4D_ENGINE")}
    done = subprocess.run([*program, *map(str, arguments)], capture_output=True, text=True, cwd=tmp_path,
                          env={**kept, "BLENDER_USER_RESOURCES": str(tmp_path / "resources"), **variables})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


# -- the files ----------------------------------------------------------------------------------------------------------------------


def test_blenders_validator_accepts_it(package, tmp_path):
    done = tool("validate", f"--valid-tags={TAGS}", package)
    assert done.returncode == 0, done.stdout + done.stderr
    with zipfile.ZipFile(package) as archive:
        archive.extractall(tmp_path)
    manifest = tmp_path / "blender_manifest.toml"
    manifest.write_text(manifest.read_text().replace('"Tracking"', '"People"'))
    assert tool("validate", f"--valid-tags={TAGS}", tmp_path).returncode == 1, "tags are checked"


def test_the_script_validates_what_it_builds(package, tmp_path):
    build_extension.validate(package, TOOL)
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as archive:
        archive.writestr("blender_manifest.toml", "id = 'x'")
    with pytest.raises(pythons.SetupError, match="Blender's validator refuses"):
        build_extension.validate(tmp_path / "empty.zip", TOOL)


def test_it_holds_the_add_on_the_engine_and_the_licences(package):
    with zipfile.ZipFile(package) as archive:
        names, manifest = set(archive.namelist()), tomllib.loads(archive.read("blender_manifest.toml").decode())
        sources = {path.relative_to(ROOT / "body4d_blender").as_posix(): path for path in (ROOT / "body4d_blender").rglob("*.py")}
        assert all(archive.read(name) == path.read_bytes() for name, path in sources.items())
        assert archive.read("wheels/lite.txt") == (ROOT / "requirements" / "lite.txt").read_bytes()
        assert b"GNU GENERAL PUBLIC LICENSE" in archive.read("LICENSE")
        pip = next(name for name in names if name.startswith("wheels/pip-"))
        assert hashlib.sha256(archive.read(pip)).hexdigest() in archive.read("THIRD_PARTY.md").decode(), "whoever pins another pip says so there"
    assert {"LICENSE", "THIRD_PARTY.md", "LICENSES/Apache-2.0.txt", "LICENSES/Anny-Apache-2.0.txt"} <= names
    assert not [name for name in names if "__pycache__" in name or name.startswith("/") or ".." in name]
    wheels = sorted(name for name in names if name.endswith(".whl"))
    assert [name.split("/")[1].split("-")[0] for name in wheels] == ["body4d_engine", "body4d_lite_models", "pip"]
    assert manifest["wheels"] == ["./" + wheels[0]], "Blender itself gets only what reads takes"
    assert set(manifest["permissions"]) == {"files", "network"} and manifest["id"] == "body4d"
    assert package.stat().st_size < 40_000_000


def test_the_same_sources_give_the_same_bytes(package, tmp_path):
    again = build_extension.build(tmp_path, pythons.current())
    assert again.read_bytes() == package.read_bytes()
    assert (tmp_path / "index.json").read_bytes() == package.with_name("index.json").read_bytes()


def test_the_repository_is_what_blender_would_list(package, tmp_path):
    (tmp_path / package.name).write_bytes(package.read_bytes())
    assert tool("server-generate", "--repo-dir", tmp_path).returncode == 0
    theirs, ours = json.loads((tmp_path / "index.json").read_text()), json.loads(package.with_name("index.json").read_text())
    if "python_versions" not in theirs["data"][0]:  # 4.2 lists none
        del ours["data"][0]["python_versions"]
    assert ours == theirs


def test_a_manifest_of_another_version_is_refused():
    wheel = Path("body4d_engine-0.1.0-py3-none-any.whl")
    build_extension.check_versions({"version": "0.1.0", "wheels": [f"./wheels/{wheel}"]}, [wheel])
    for manifest in ({"version": "0.2.0", "wheels": [f"./wheels/{wheel}"]}, {"version": "0.1.0", "wheels": []}):
        with pytest.raises(pythons.SetupError, match="is version 0..*Give version and wheels"):
            build_extension.check_versions(manifest, [wheel])


# -- installed ----------------------------------------------------------------------------------------------------------------------


def test_it_installs_enables_and_imports_a_take_without_an_engine(package, tmp_path):
    said = blender(tmp_path, """
package, take, home = sys.argv[-3:]
preferences = install(package)
import body4d_engine.take
for module in [body4d_engine.take, *(m for name, m in sys.modules.items() if name.startswith("bl_ext.user_default.body4d"))]:
    assert module.__file__.startswith(home), module.__file__
assert not [name for name in sys.modules if name.split(".")[0] in ("body4d_blender", "av", "cv2", "scipy", "body4d_lite_models")]
operators = [name for name in dir(bpy.types) if name.startswith("BODY4D_OT_")]
print("operators:", *operators)
bpy.ops.wm.read_homefile(use_empty=True)
assert bpy.ops.body4d.import_take(filepath=take) == {"FINISHED"}
print("people:", sorted(o.name for o in bpy.data.objects if o.type == "MESH"))
try:
    bpy.ops.body4d.check_engine()
except RuntimeError as error:
    print("check:", error)
try:
    bpy.ops.body4d.install_engine()
except RuntimeError as error:
    print("install:", error)
bpy.ops.preferences.addon_disable(module="bl_ext.user_default.body4d")
left = [name for name in dir(bpy.types) if name.startswith("BODY4D_")]
assert not left, left
bpy.ops.preferences.addon_enable(module="bl_ext.user_default.body4d")
assert len([name for name in dir(bpy.types) if name.startswith("BODY4D_OT_")]) == len(operators)
""", package, make_take(tmp_path / "a.take"), tmp_path / "resources", PATH=os.defpath)
    assert "people: ['Ana', 'Bo']" in said and "BODY4D_OT_import_take" in said and "BODY4D_OT_install_engine" in said
    assert "check: Error: There is no engine yet. Install the lite engine" in said
    assert "install: Error: Blender may not go online" in said and "python -m pip download --require-hashes" in said
    assert not [path for path in (tmp_path / "resources").rglob("engine-*")]


def test_another_engine_is_asked_what_it_can_do(package, tmp_path):
    engine = f'"{sys.executable}" "{FAKE}" --home "{tmp_path}" serve'
    said = blender(tmp_path, """
preferences = install(sys.argv[-2])
preferences.engine = sys.argv[-1]
assert bpy.ops.body4d.check_engine() == {"FINISHED"}
""", package, engine)
    assert "Engine " in said


def test_an_update_in_a_running_blender_asks_for_a_restart(package, tmp_path):
    update = newer(package, tmp_path, "9.9.9")
    said = blender(tmp_path, """
install(sys.argv[-2])
assert hasattr(bpy.types, "BODY4D_OT_import_take") and not hasattr(bpy.types, "BODY4D_PT_restart")
install(sys.argv[-1])
import body4d_engine
print("loaded:", body4d_engine.__version__)
assert hasattr(bpy.types, "BODY4D_PT_restart") and not hasattr(bpy.types, "BODY4D_OT_import_take")
bpy.ops.preferences.addon_disable(module="bl_ext.user_default.body4d")
assert not hasattr(bpy.types, "BODY4D_PT_restart")
""", package, update)
    assert "loaded: 0." in said and "Body4D was updated to 9.9.9" in said and "restart Blender" in said
    said = blender(tmp_path, """
bpy.ops.preferences.addon_enable(module="bl_ext.user_default.body4d")
import body4d_engine
print("loaded:", body4d_engine.__version__)
assert hasattr(bpy.types, "BODY4D_OT_import_take") and not hasattr(bpy.types, "BODY4D_PT_restart")
""")
    assert "loaded: 9.9.9" in said


@pytest.mark.slow
@pytest.mark.skipif(bpy.app.version[:2] not in ((4, 2), (5, 2)), reason="half a gigabyte each: the oldest and the newest Blender are enough")
def test_the_engine_is_installed_used_and_removed(package, tmp_path):
    own = sorted(path for path in Path(sys.prefix).rglob("site-packages/*"))
    said = blender(tmp_path, """
install(sys.argv[-1])
bpy.context.preferences.system.use_online_access = True
assert bpy.ops.body4d.install_engine() == {"FINISHED"}
from bl_ext.user_default.body4d import connection, preferences
found = preferences.installed()
print("engine:", found.state, found.folder)
assert bpy.ops.body4d.check_engine() == {"FINISHED"}
assert connection.hello()["backends"]["lite"]["lacks"] == []
print("command:", connection.get().command)
assert bpy.ops.body4d.remove_engine() == {"FINISHED"} and preferences.installed().state == "absent"
assert not list(preferences.install_root().glob("engine-*"))
""", package)
    assert "engine: complete " + str(tmp_path / "resources") in said and "Installed in" in said
    assert str(tmp_path / "resources") in said.split("command:")[1]
    assert sorted(path for path in Path(sys.prefix).rglob("site-packages/*")) == own, "nothing went into Blender's Python"
