# SPDX-License-Identifier: Apache-2.0
"""The add-on's own installation of the engine, with small wheels in place of the large ones; and once with the real ones."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections import namedtuple
from contextlib import contextmanager
from pathlib import Path

import pytest

import setup_env

from .conftest import ROOT, make_wheel, sha256

sys.path.insert(0, str(ROOT / "body4d_blender"))  # the package without the add-on around it, which needs Blender

import installing  # noqa: E402
from installing import environment, interpreters, offline  # noqa: E402
from installing import pip as pips  # noqa: E402

DOCTOR = """
import json, sys
assert sys.argv[1:] == ["doctor", "--json"], sys.argv
import toy_body
print("a library's chatter")
print(json.dumps({"backends": {"lite": {"works": True, "lacks": %r}}}, indent=1))
"""
ENDLESS = """
import os, pathlib, time
pathlib.Path("pip.pid").write_text(str(os.getpid()))
print("Collecting toy-body==1.0")
print("  Downloading toy_body-1.0-py3-none-any.whl (9.0 MB)")
print("Progress 4500000 of 9000000", flush=True)
time.sleep(60)
"""


@pytest.fixture(scope="session")
def pip_unpacked(python, tmp_path_factory) -> Path:
    """The pip that the extension carries, unpacked: it starts four times as fast as from its wheel, which only the real thing below uses."""
    folder = tmp_path_factory.mktemp("pip") / setup_env.pip_wheel(python).name
    with zipfile.ZipFile(setup_env.pip_wheel(python)) as wheel:
        wheel.extractall(folder)
    return folder


@pytest.fixture
def carried(registry, pip_unpacked, tmp_path) -> Path:
    """What the extension carries, in small."""
    toy, folder = make_wheel(registry, "toy_body", {"toy_body/__init__.py": "answer = 42\n"}), tmp_path / "wheels"
    make_wheel(folder, "body4d_engine", {"body4d_engine/__main__.py": DOCTOR % []})
    make_wheel(folder, "body4d_lite_models", {"body4d_lite_models/__init__.py": ""})
    (folder / pip_unpacked.name).symlink_to(pip_unpacked)
    (folder / "full.txt").write_text("")
    (folder / "lite.txt").write_text(f"toy-body==1.0 \\\n    --hash=sha256:{sha256(toy)}\ncolorama==0.4.6 ; sys_platform == 'win95' \\\n    --hash=sha256:00\n"
                                     .replace("win95", "linux" if os.name == "nt" else "win32").replace("sys_platform == 'linux'", "sys_platform != 'win32'"))
    return folder


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "Søren's disk" / "мой движок"


@contextmanager
def with_pip(carried: Path, code: str):
    """pip is a program of this code for a while."""
    real = next(carried.glob("pip-*.whl"))
    real.rename(carried / "put away")
    fake = make_wheel(carried, "pip", {"pip/__init__.py": "", "pip/__main__.py": code})
    try:
        yield
    finally:
        fake.unlink()
        (carried / "put away").rename(real)


def start(root, carried, **options) -> installing.Install:
    job = installing.Install(root, installing.find_bundle(carried), chosen=sys.executable, **options)
    job.start()
    return job


def install(root, carried, **options) -> installing.Install:
    job = start(root, carried, **options)
    job.join(120)
    assert not job.running
    return job


def state(root, carried) -> str:
    return installing.status(root, installing.find_bundle(carried)).state


def answer(root) -> str:
    program = installing.python_of(installing.status(root).folder)
    return subprocess.run([program, "-c", "import toy_body; print(toy_body.answer)"], capture_output=True, text=True).stdout.strip()


def wait_for(condition, seconds=20.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


# -- installing -----------------------------------------------------------------------------------------------------------------


def test_it_installs_into_a_path_with_spaces_and_any_letters(root, carried):
    before = sorted(path for path in Path(sys.prefix).rglob("site-packages/*"))
    assert installing.status(root).state == "absent"
    job = start(root, carried)
    seen = []
    while job.running:
        seen.append(job.progress)
        time.sleep(0.01)
    assert job.error is None, (job.error, list(job.log))
    fractions = [progress.fraction for progress in seen]
    assert fractions == sorted(fractions) and {"Making the environment", "Trying the engine"} <= {progress.text for progress in seen}
    found = installing.status(root, installing.find_bundle(carried))
    assert found == job.result and (found.state, found.engine) == ("complete", "1.0")
    assert found.bytes == installing.size_bytes(found.folder) - (found.folder / environment.STAMP).stat().st_size and answer(root) == "42"
    assert sorted(path.name for path in root.iterdir()) == ["engine-1", "lock"]
    assert not list(found.folder.rglob("pip")), "the environment has no pip, and needs none"
    assert sorted(path for path in Path(sys.prefix).rglob("site-packages/*")) == before, "nothing went into the Python it was made from"


def test_an_update_of_the_engine_alone_keeps_the_packages_and_needs_no_network(root, carried, registry):
    install(root, carried)
    shutil.rmtree(registry)
    made = installing.status(root).folder
    next(carried.glob("body4d_engine-*")).unlink()
    make_wheel(carried, "body4d_engine", {"body4d_engine/__main__.py": DOCTOR % []}, "2.0")
    assert state(root, carried) == "outdated" and installing.status(root, installing.find_bundle(carried)).usable
    job = install(root, carried, online=False)
    assert job.error is None and (job.result.state, job.result.engine, job.result.folder) == ("complete", "2.0", made)


def test_an_update_of_the_engine_that_is_cut_short_does_not_count(root, carried):
    install(root, carried)
    make_wheel(carried, "body4d_lite_models", {"body4d_lite_models/__init__.py": "newer = True"})
    with with_pip(carried, ENDLESS):
        job = start(root, carried)
        wait_for((root / "pip.pid").exists)
        job.cancel()
        job.join(5)
    assert state(root, carried) == "incomplete" and not installing.status(root).usable
    assert install(root, carried).error is None and state(root, carried) == "complete"


def test_an_older_engine_stays_until_the_new_one_is_verified(root, carried):
    install(root, carried)
    lock = (carried / "lite.txt").read_text()
    (carried / "lite.txt").write_text(lock.replace("toy-body==1.0", "toy-body==9.0"))
    assert install(root, carried).error.code == "no_package"
    assert state(root, carried) == "outdated" and answer(root) == "42"
    (carried / "lite.txt").write_text(lock + "# other packages\n")
    job = install(root, carried)
    assert job.error is None and job.result.folder.name == "engine-2" and sorted(p.name for p in root.glob("engine-*")) == ["engine-2"]


def test_an_engine_that_does_not_work_does_not_count(root, carried):
    make_wheel(carried, "body4d_engine", {"body4d_engine/__main__.py": DOCTOR % ["the package of patience"]})
    assert "lacks the package of patience" in str(install(root, carried).error)
    make_wheel(carried, "body4d_engine", {"body4d_engine/__main__.py": "raise ImportError('no such library')"})
    job = install(root, carried)
    assert job.error.code == "does_not_start" and "no such library" in str(job.error)
    assert installing.status(root).state == "absent" and sorted(path.name for path in root.iterdir()) == ["lock"]


# -- stopping -------------------------------------------------------------------------------------------------------------------


def test_cancel_ends_pip_at_once_and_leaves_nothing(root, carried):
    with with_pip(carried, ENDLESS):
        job = start(root, carried)
        wait_for(lambda: "toy-body, 4.5 MB" in job.progress.text)
        pid, began = int((root / "pip.pid").read_text()), time.monotonic()
        job.cancel()
        job.join(5)
    assert time.monotonic() - began < 1 and job.error.code == "cancelled" and not is_alive(pid)
    assert installing.status(root).state == "absent" and not list(root.glob("engine-*"))


@pytest.mark.parametrize("after", [0.0, 0.3, 0.8, 1.5])
def test_cancel_at_any_moment(root, carried, after):
    job = start(root, carried)
    time.sleep(after)
    job.cancel()
    job.join(10)
    assert not job.running and (job.error.code == "cancelled" if job.error else job.result.state == "complete")
    assert bool(job.error) == (installing.status(root).state == "absent")
    assert install(root, carried).error is None and answer(root) == "42"


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_pip_ends_when_its_parent_is_killed(root, carried):
    code = ("import sys; sys.path[:0] = sys.argv[1:3]\nimport installing; from pathlib import Path\n"
            "job = installing.Install(Path(sys.argv[3]), installing.find_bundle(Path(sys.argv[4])), chosen=sys.executable); job.start(); job.join()")
    with with_pip(carried, ENDLESS):
        parent = subprocess.Popen([sys.executable, "-c", code, str(ROOT / "body4d_blender"), str(ROOT), str(root), str(carried)])
        wait_for(lambda: (root / "pip.pid").is_file() and (root / "pip.pid").read_text())
        pid = int((root / "pip.pid").read_text())
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        wait_for(lambda: not is_alive(pid), 5)
    assert list(root.glob("engine-*")) and installing.status(root).state == "absent"
    assert install(root, carried).error is None and answer(root) == "42"


def test_two_at_once(root, carried):
    with with_pip(carried, ENDLESS):
        first = start(root, carried)
        wait_for((root / "pip.pid").exists)
        assert install(root, carried).error.code == "locked" and first.running and list(root.glob("engine-*"))
        with pytest.raises(environment.Body4DError, match="Another Blender is installing"):
            installing.remove(root)
        assert first.running and list(root.glob("engine-*"))
        first.cancel()
        first.join(5)


# -- what can be wrong ------------------------------------------------------------------------------------------------------------


def test_a_package_that_is_not_the_expected_one(root, carried, registry):
    make_wheel(registry, "toy_body", {"toy_body/__init__.py": "answer = 666\n"})
    job = install(root, carried)
    assert job.error.code == "hash_mismatch" and "checksum differs" in str(job.error) and installing.status(root).state == "absent"


@pytest.fixture
def grumpy_proxy():
    """A proxy that wants a password."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        def serve():
            while True:
                try:
                    connection = server.accept()[0]
                except OSError:
                    return
                with connection:
                    connection.recv(4096)
                    connection.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("code", ["no_network", "proxy"])
def test_no_way_to_the_registry(root, carried, registry, monkeypatch, grumpy_proxy, code):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_INDEX_URL", "https://127.0.0.1:9/simple")
    if code == "proxy":
        monkeypatch.setenv("PIP_PROXY", grumpy_proxy)
    job = install(root, carried)
    assert job.error.code == code and "python -m pip download" in job.instructions, (job.error, list(job.log))


def test_a_full_disk(root, carried, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: namedtuple("Usage", "total used free")(10**12, 10**12, 5_000_000))
        job = install(root, carried)
        assert job.error.code == "disk_full" and "750 MB of free disk space" in str(job.error) and "5.0 MB" in str(job.error)
    with with_pip(carried, "raise OSError(28, 'No space left on device')"):
        assert install(root, carried).error.code == "disk_full"


def test_a_folder_that_cannot_be_written(tmp_path, carried):
    (tmp_path / "file").write_text("")
    job = install(tmp_path / "file" / "inside", carried)
    assert job.error and str(tmp_path / "file") in str(job.error)


@pytest.mark.parametrize("output, code", [
    ("WARNING: Retrying (Retry(total=4)) after connection broken by 'NewConnectionError'\nERROR: No matching distribution found", "no_network"),
    ("urllib3.exceptions.ReadTimeoutError: HTTPSConnectionPool: Read timed out.", "no_network"),
    ("ProxyError('Cannot connect to proxy.', OSError('Tunnel connection failed: 407'))", "proxy"),
    ("SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed'))", "certificate"),
    ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "disk_full"),
    ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.", "hash_mismatch"),
    ("ERROR: Could not install packages due to an OSError: [Errno 13] Permission denied: '/x'", "not_writable"),
    ("OSError: [Errno 2] No such file\nHINT: This might have occurred since this system does not have Windows Long Path support enabled.", "path_too_long"),
    ("ERROR: No matching distribution found for av==18", "no_package"), ("something else\nwent wrong", "failed")])
def test_failures_are_told_apart(output, code):
    message, hint, found = pips.explain(output)
    assert found == code and message.endswith(".") and hint.endswith(".")


# -- without internet -------------------------------------------------------------------------------------------------------------


def test_a_machine_that_cannot_go_online_is_told_what_to_copy_where(root, carried, registry, python, monkeypatch):
    job = install(root, carried, online=False)
    assert job.error.code == "offline" and installing.status(root).state == "absent"
    steps = job.instructions.splitlines()
    listed = root / "wheels" / offline.LIST
    assert str(listed) in steps[1] and str(root / "wheels") in steps[4] and listed.read_text().startswith("toy-body==1.0 --hash=sha256:")
    elsewhere = root.parent / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(listed, elsewhere)
    command = steps[3].split()
    assert command[:4] == ["python", "-m", "pip", "download"]
    subprocess.run([*setup_env.pip_command(python), *command[3:]], cwd=elsewhere, check=True, capture_output=True)
    for wheel in (elsewhere / "wheels").iterdir():
        shutil.copy(wheel, root / "wheels")
    shutil.rmtree(registry)
    assert install(root, carried, online=False).error is None and answer(root) == "42"
    installing.remove(root)
    assert [path.name for path in (root / "wheels").glob("*.whl")] == ["toy_body-1.0-py3-none-any.whl"], "what the user put there stays"


# -- repair and removal ------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="Pythons are links elsewhere")
def test_a_base_python_that_moved_is_noticed_and_repaired(root, carried):
    folder = install(root, carried).result.folder
    configuration = folder / "pyvenv.cfg"
    text = configuration.read_text()
    configuration.write_text(text.replace(environment.configured(folder, "home"), "/gone/bin"))
    assert state(root, carried) == "moved" and not installing.status(root).usable
    configuration.write_text(text)
    (folder / "bin" / "python").unlink()
    (folder / "bin" / "python").symlink_to("/gone/bin/python3")
    found = installing.status(root)
    assert found.state == "moved" and "repair it" in found.words and found.base in found.words
    assert install(root, carried).result.state == "complete" and answer(root) == "42"


def test_repair_makes_everything_anew(root, carried):
    install(root, carried)
    next(installing.status(root).folder.rglob("toy_body/__init__.py")).write_text("answer = 'spoilt'")
    job = install(root, carried, repair=True)
    assert job.error is None and job.result.folder.name == "engine-2" and answer(root) == "42"
    installing.python_of(job.result.folder).unlink()
    assert state(root, carried) == "damaged"
    assert install(root, carried).result.state == "complete" and answer(root) == "42"


def test_a_failed_repair_leaves_what_was_there(root, carried, registry):
    install(root, carried)
    shutil.rmtree(registry)
    assert install(root, carried, repair=True).error and state(root, carried) == "complete" and answer(root) == "42"


def test_remove(root, carried):
    install(root, carried)
    (root / "engine-9").mkdir()
    installing.remove(root)
    assert installing.status(root).state == "absent" and not list(root.glob("engine-*")) and not list(root.glob("old-*"))
    installing.remove(root)
    assert install(root, carried).error is None


def test_a_stamp_that_nobody_wrote(root, carried):
    folder = install(root, carried).result.folder
    (folder / environment.STAMP).write_text("{")
    with pytest.raises(installing.environment.Body4DError, match="cannot be read.*Delete the folder"):
        installing.status(root)


@pytest.mark.skipif(os.name == "nt", reason="a script")
def test_a_python_that_never_answers_is_not_waited_for(root, carried, monkeypatch, tmp_path):
    (tmp_path / "python").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "python").chmod(0o755)
    job = installing.Install(root, installing.find_bundle(carried))
    root.mkdir(parents=True)
    began = time.monotonic()
    assert interpreters.probe([str(tmp_path / "python")], lambda command: job._run(command, checked=False, limit_s=0.5)) is None
    assert time.monotonic() - began < 3


# -- the real thing ------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_real_engine_is_installed_repaired_and_removed(tmp_path, python, capsys):
    folder, root = tmp_path / "wheels", tmp_path / "Müller & Søn" / "мой движок"
    for number, package in enumerate(setup_env.OUR_PACKAGES):
        (tmp_path / str(number)).mkdir()
        folder.mkdir(exist_ok=True)
        shutil.move(setup_env.wheel(package, python, tmp_path / str(number)), folder)
    shutil.copy(setup_env.pip_wheel(python), folder)
    for lock in ("lite.txt", "full.txt"):
        shutil.copy(setup_env.LOCKS / lock, folder)
    job = start(root, folder)
    job.join(600)
    assert job.error is None, (job.error, list(job.log))
    found = job.result
    with capsys.disabled():
        print(f"\nthe engine was installed in {found.seconds:.0f} s and takes {installing.size_text(found.bytes)}", flush=True)
    assert found.bytes < 500_000_000
    done = subprocess.run([installing.python_of(found.folder), "-I", "-m", "body4d_engine", "doctor", "--json"], capture_output=True, text=True, cwd=tmp_path)
    said = json.loads(done.stdout)
    assert said["backends"]["lite"] == {"works": True, "lacks": []} and said["executable"].startswith(str(found.folder)), done.stderr
    next(found.folder.rglob("body4d_lite_models/body.npz")).unlink()
    repaired = install(root, folder, repair=True)
    assert repaired.error is None and repaired.result.state == "complete" and not found.folder.exists()
    installing.remove(root)
    assert not list(root.glob("engine-*"))
