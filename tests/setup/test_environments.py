# SPDX-License-Identifier: Apache-2.0
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
import zlib
from collections import namedtuple
from pathlib import Path

import pytest

import pythons
import setup_env
from pythons import SetupError

from .conftest import ROOT, SCRIPTS, make_wheel, sha256

FORBIDDEN = {"torch", "warp-lang", "jax", "jaxlib", "tensorflow", "opencv-python", "imageio-ffmpeg", "pillow", "mediapipe", "scenedetect"}


@pytest.fixture
def lock(registry, tmp_path) -> Path:
    wheel = make_wheel(registry, "toy_body", {"toy_body/__init__.py": "answer = 42\n"})
    path = tmp_path / "toy.txt"
    path.write_text(f"toy_body==1.0 \\\n    --hash=sha256:{sha256(wheel)}\n")
    return path


def make(lock, python, kind="engine"):
    return setup_env.environment(kind, "a toy", lock, python)


def answer(folder: Path) -> str:
    return subprocess.run([setup_env.executable(folder), "-c", "import toy_body; print(toy_body.answer)"], capture_output=True, text=True).stdout.strip()


def test_an_environment_is_made_once(home, lock, python, monkeypatch):
    folder = make(lock, python)
    assert folder.parent == home and answer(folder) == "42"
    monkeypatch.setattr(setup_env, "pip", lambda *_: pytest.fail("made again"))
    started = time.monotonic()
    assert make(lock, python) == folder
    assert time.monotonic() - started < 2


def test_a_half_made_environment_is_made_again(home, lock, python):
    folder = make(lock, python)
    (folder / setup_env.STAMP).unlink()
    stray = folder / "stray"
    stray.write_text("of a killed run")
    assert make(lock, python) == folder and answer(folder) == "42"
    assert not stray.exists() and not list(home.glob("*.old-*"))


@pytest.mark.skipif(os.name == "nt", reason="Pythons are links elsewhere")
def test_an_environment_whose_python_was_removed_is_made_again(home, lock, python):
    folder = make(lock, python)
    setup_env.executable(folder).unlink()
    setup_env.executable(folder).symlink_to("/gone/bin/python")
    assert answer(make(lock, python)) == "42"


def test_an_interrupted_installation_leaves_no_stamp(home, lock, python, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(setup_env, "pip", interrupted)
        with pytest.raises(KeyboardInterrupt):
            make(lock, python)
    assert answer(make(lock, python)) == "42"


def test_another_lock_or_python_is_another_environment(home, lock, python):
    first = make(lock, python)
    lock.write_text(lock.read_text() + "# changed\n")
    assert make(lock, python) != first and first.is_dir()
    assert setup_env.key_of(python, [lock]) != setup_env.key_of(python._replace(version="3.13.9"), [lock])


def test_two_processes_make_it_together(home, lock, python):
    code = ("import sys; sys.path.insert(0, %r); import setup_env, pythons; from pathlib import Path; "
            "print(setup_env.environment('engine', 'a toy', Path(%r), pythons.current()))" % (str(SCRIPTS), str(lock)))
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)]
    said = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sum("Installing a toy:" in text for text in said) == 1
    assert len({text.splitlines()[-1] for text in said}) == 1


def test_the_tests_packages_are_a_plain_folder(home, lock, python):
    folder = make(lock, python, "tests")
    assert (folder / "toy_body" / "__init__.py").is_file() and setup_env.complete(folder)


@pytest.mark.parametrize("change, words", [
    (lambda lock: lock.write_text(re.sub("sha256:(.)", lambda digit: "sha256:" + ("1" if digit[1] == "0" else "0"), lock.read_text())), "checksum differs"),
    (lambda lock: lock.write_text(lock.read_text().replace("toy_body==1.0", "toy_body==9.0")), "no build for this machine"),
])
def test_what_pip_refuses_is_explained(home, lock, python, change, words):
    before = lock.read_text()
    change(lock)
    if lock.read_text() == before:
        pytest.fail("the lock did not change")
    with pytest.raises(SetupError, match=words):
        make(lock, python)
    lock.write_text(before)
    assert answer(make(lock, python)) == "42"


@pytest.mark.parametrize("output, words", [
    ("WARNING: Retrying (Retry(total=4)) after connection broken by 'NewConnectionError'\nERROR: No matching distribution found", "no connection"),
    ("urllib3.exceptions.ReadTimeoutError: HTTPSConnectionPool: Read timed out.", "no connection"),
    ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "disk is full"),
    ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.", "checksum differs"),
    ("ERROR: No matching distribution found for bpy==4.5.15", "no build for this machine"),
    ("something else\nwent wrong", "went wrong"),
])
def test_pip_failures_are_told_apart(output, words):
    assert words in " ".join(setup_env.why_pip_failed(output))


def test_a_machine_without_packages_is_told_before_anything_is_made(home, lock, python):
    with pytest.raises(SetupError, match="there are no packages for Linux on riscv64"):
        make(lock, python._replace(platform="linux-riscv64"))
    assert not home.exists()


def test_a_full_disk_is_told_before_the_download(home, lock, python, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: namedtuple("Usage", "total used free")(10**12, 10**12, 5_000_000))
    with pytest.raises(SetupError, match="free disk space") as error:
        make(lock, python)
    assert "BODY4D_HOME" in error.value.hint


def test_a_cache_folder_that_cannot_be_written_is_told(tmp_path, lock, python, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BODY4D_HOME", str(tmp_path / "file" / "inside"))
    with pytest.raises(SetupError, match="cannot be written"):
        make(lock, python)


@pytest.mark.skipif(os.name == "nt", reason="folders of the other systems")
def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.delenv("BODY4D_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert setup_env.home() == Path.home() / ".cache" / "body4d"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert setup_env.home() == tmp_path / "body4d"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert setup_env.home() == Path.home() / "Library" / "Caches" / "body4d"
    monkeypatch.setenv("BODY4D_HOME", str(tmp_path / "mine"))
    assert setup_env.home() == tmp_path / "mine"


def test_children_see_our_packages_only(monkeypatch, tmp_path):
    for name in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"):
        monkeypatch.setenv(name, "elsewhere")
    variables = setup_env.child_environment(tmp_path / "a", tmp_path / "b")
    assert variables["PYTHONPATH"] == os.pathsep.join([str(tmp_path / "a"), str(tmp_path / "b")])
    assert "PYTHONHOME" not in variables and variables["PYTHONNOUSERSITE"] == "1" and variables["OPENBLAS_NUM_THREADS"] == "1"


def test_only_what_was_not_used_for_long_is_deleted(home):
    ages = {"engine-old": 61, "code-old": 90, "engine-new": 59, "other": 90}
    for name, days in ages.items():
        stamp = home / name / setup_env.STAMP
        stamp.parent.mkdir(parents=True)
        stamp.write_text("{}")
        os.utime(stamp, (time.time() - days * 86400,) * 2)
    (home / "engine-half").mkdir()
    setup_env.forget_unused()
    assert sorted(path.name for path in home.iterdir()) == ["engine-half", "engine-new", "other"]


# our own packages

@pytest.fixture(scope="session")
def builder(python) -> Path:
    return setup_env.environment("build", "what builds our own packages", setup_env.LOCKS / "build.txt", python)


@pytest.fixture
def checkout(builder, tmp_path, monkeypatch) -> Path:
    copy = tmp_path / "a checkout"
    for folder, package in ((".", "body4d_engine"), ("packages/body4d-lite-models", "body4d_lite_models")):
        shutil.copytree(ROOT / folder / package, copy / folder / package, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / folder / "pyproject.toml", copy / folder)
    for name in ("LICENSE", "README.md"):
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, copy)
    monkeypatch.setattr(setup_env, "ROOT", copy)
    monkeypatch.setattr(setup_env, "OUR_PACKAGES", (copy, copy / "packages" / "body4d-lite-models"))
    monkeypatch.setattr(setup_env, "environment", lambda *_: builder)
    return copy


def packed_bytes(folder: Path) -> int:
    """How large the files of a folder are in a wheel."""
    return sum(len(zlib.compress(path.read_bytes())) for path in folder.rglob("*") if path.is_file())


def test_our_wheels_hold_the_whole_code_and_the_models(home, checkout, python):
    engine, models = setup_env.code(python)
    for built, package in ((engine, checkout / "body4d_engine"), (models, checkout / "packages" / "body4d-lite-models" / "body4d_lite_models")):
        files = {path.relative_to(package.parent) for path in package.rglob("*") if path.is_file()}
        assert files and all((built / file).read_bytes() == (package.parent / file).read_bytes() for file in files)
    inside = {path.name for path in engine.iterdir()}
    assert {"body4d_engine"} == {name for name in inside if not name.endswith((".dist-info", ".json"))}, "nothing else of the checkout"
    assert packed_bytes(engine) < 1_000_000  # the extension carries it
    metadata = next(engine.glob("*.dist-info/METADATA")).read_text(encoding="utf-8")
    for line in ("Name: body4d-engine", "License-Expression: Apache-2.0", "Requires-Python: <3.14,>=3.11", "Provides-Extra: lite",
                 "Provides-Extra: full", "Provides-Extra: dev"):
        assert line in metadata
    assert "body4d = body4d_engine.cli:main" in next(engine.glob("*.dist-info/entry_points.txt")).read_text()
    done = subprocess.run([sys.executable, "-m", "body4d_engine", "--version"], env=setup_env.child_environment(engine, models), cwd=home,
                          capture_output=True, text=True)
    assert done.stdout.startswith("body4d "), done.stderr


def test_changed_sources_are_built_again_and_the_old_code_stays(home, checkout, python):
    engine, models = setup_env.code(python)
    assert setup_env.code(python) == [engine, models]
    with open(checkout / "body4d_engine" / "errors.py", "a", encoding="utf-8") as file:
        file.write("\nPULLED = True\n")
    newer, same = setup_env.code(python)
    assert newer != engine and same == models and engine.is_dir()
    assert "PULLED" in (newer / "body4d_engine" / "errors.py").read_text(encoding="utf-8")


def test_code_that_does_not_build_is_told(home, checkout, python):
    (checkout / "pyproject.toml").write_text("[project]\nname = 'broken'\n")
    with pytest.raises(SetupError, match="body4d-engine could not be built"):
        setup_env.code(python)
    assert not list(home.glob("code-*")) and not list(home.glob("build-*"))


# the demo clip

def test_the_demo_clip_is_fetched_once_and_checked(home, registry, python, tmp_path, monkeypatch):
    wheel = make_wheel(registry, "sports2d", {"Sports2D/Demo/demo.mp4": "moving pictures"}, "0.8.34")
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks" / "demo.txt").write_text(f"sports2d==0.8.34 --hash=sha256:{sha256(wheel)}\n")
    monkeypatch.setattr(setup_env, "LOCKS", tmp_path / "locks")
    with pytest.raises(SetupError, match="not the expected one"):
        setup_env.demo_clip(python)
    monkeypatch.setattr(setup_env, "DEMO_SHA256", hashlib.sha256(b"moving pictures").hexdigest())
    clip = setup_env.demo_clip(python)
    assert clip.read_text() == "moving pictures"
    clip.write_text("damaged")
    assert setup_env.demo_clip(python).read_text() == "moving pictures"
    wheel.unlink()
    assert setup_env.demo_clip(python) == clip
    clip.unlink()
    with pytest.raises(SetupError):
        setup_env.demo_clip(python)


# the locks

@pytest.mark.parametrize("lock", sorted((ROOT / "requirements").glob("*.txt")), ids=lambda path: path.stem)
def test_locks_are_exact_and_name_no_registry(lock):
    text = lock.read_text(encoding="utf-8")
    assert not re.search(r"://|index-url|find-links", text)
    entries = re.split(r"\n(?=\S)", text.strip())
    for entry in entries:
        assert re.match(r"[\w.-]+==[\w.]+", entry) and re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry[:80]
    pinned = {re.match(r"[\w.-]+", entry).group().lower() for entry in entries}
    assert asked(lock.with_suffix(".in")) <= pinned


def asked(file: Path) -> set[str]:
    """The packages that a file names, and those of the files that it includes."""
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line and line[0] != "#"]
    included = [asked(file.with_name(line.split()[1])) for line in lines if line.startswith("-r ")]
    return {re.match(r"[\w.-]+", line).group().lower() for line in lines if not line.startswith("-r ")}.union(*included)


def test_the_lite_backend_needs_nothing_big():
    names = {line.split("==")[0] for line in (ROOT / "requirements" / "lite.txt").read_text().splitlines() if "==" in line}
    assert not names & FORBIDDEN


def test_the_lite_backend_takes_less_than_500_mb(monkeypatch):
    folder = Path(sys.prefix)
    if not folder.name.startswith("engine-"):
        pytest.skip("not in an environment made by setup_env")
    models = ROOT / "packages" / "body4d-lite-models" / "body4d_lite_models"
    used = sum(setup_env.size_bytes(path) for path in (folder, models, ROOT / "body4d_engine"))
    assert used < 500_000_000, setup_env.size_text(used)


def test_blender_versions_have_locks():
    for version in pythons.BLENDER_FOR.values():
        assert f"bpy=={version}." in (ROOT / "requirements" / f"bpy-{version}.txt").read_text()


# a Python whose distribution took the wheel of pip out

def test_a_python_without_pips_wheel_uses_its_pip(python, monkeypatch, tmp_path):
    bare = python._replace(pip="")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0))
    assert setup_env.pip_command(bare, tmp_path / "python") == [bare.executable, "-m", "pip", "--python", str(tmp_path / "python")]
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 1))
    with pytest.raises(SetupError, match="comes without pip.*python3-venv"):
        setup_env.pip_command(bare, tmp_path / "python")


def test_a_python_without_any_package_gets_through_the_set_up_code(tmp_path):
    """What runs before there is an environment may import nothing but the standard library."""
    code = ("import sys; sys.path.insert(0, sys.argv[1]); import convert, setup_env, test\n"
            "setup_env.make_home()\nwith setup_env.alone('x'): print('locked')")
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code, str(setup_env.ROOT / "scripts")], capture_output=True, text=True,
                          env={**os.environ, "BODY4D_HOME": str(tmp_path)})
    assert (done.returncode, done.stdout) == (0, "locked\n"), done.stderr
