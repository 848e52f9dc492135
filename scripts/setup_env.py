# SPDX-License-Identifier: Apache-2.0
"""The environments that the scripts run in: made on first use in a per-user cache folder, found again in no time.

`engine-KEY`   the lite backend's packages (requirements/lite.txt)
`machine-KEY`  the same once more; the only one that is changed later: `body4d setup full` adds torch as this machine needs it
`full-KEY`     the same with what the full backend's tests need, for a CPU (requirements/full.txt)
`blender-KEY`  Blender as a Python module (requirements/bpy-X.Y.txt)
`tests-KEY`    what the tests need on top, a plain folder for PYTHONPATH
`build-KEY`    what builds our own two packages, a plain folder too
`code-KEY`     one of our own two packages, built from this checkout into a wheel and unpacked

KEY is made of everything that went in, so that a folder is never changed once it is complete: a new lock, another Python or edited
sources make a new one beside it, and whatever still runs from the old one goes on undisturbed.

    python scripts/setup_env.py [full] [body4d ARGUMENTS... | python ARGUMENTS...]    make the engine's environment; run its command or Python in it.
                                                                                      full: the one that `convert.py --backend full` uses
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import Dict, Iterable, Iterator, List, Optional

import pythons
from pythons import Python, SetupError

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "requirements"
OUR_PACKAGES = (ROOT, ROOT / "packages" / "body4d-lite-models")
STAMP = "complete.json"  # written last: a folder without it is half made
# packed and unpacked at the same time
ROOM_BYTES = {"engine": 1_200_000_000, "machine": 1_200_000_000, "full": 3_000_000_000, "blender": 2_000_000_000, "tests": 100_000_000, "build": 50_000_000}
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
UNUSED_DAYS = 60
EPOCH = 1577836800  # 2020-01-01, the date of every file that is built
DEMO_SHA256 = "d9a66417185647b112304b57093f0c180f37a768e6a14daca75ca541f3b78039"


def home() -> Path:
    """Where everything that is downloaded or built is kept. It can be deleted at any time."""
    if os.environ.get("BODY4D_HOME"):
        return Path(os.environ["BODY4D_HOME"]).expanduser().resolve()
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "body4d"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "body4d"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "body4d"


def size_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def size_text(count: float) -> str:
    return "%.1f MB" % (count / 1e6) if count < 1e7 else "%.0f MB" % (count / 1e6)


def time_text(seconds: float) -> str:
    return "%.1f s" % seconds if seconds < 10 else "%d s" % seconds if seconds < 120 else "%d min %02d s" % divmod(int(seconds), 60)


class Step:
    """One line for one piece of work: what, and at the end how long it took. On a terminal it counts meanwhile."""

    def __init__(self, what: str):
        self.what, self.note, self.result = what, "", ""
        self._stop = threading.Event()

    def __enter__(self) -> "Step":
        self._started = time.monotonic()
        self._live = sys.stdout.isatty()
        if not self._live:
            print("%s ..." % self.what, flush=True)
        self._thread = threading.Thread(target=self._tick, daemon=True)
        self._thread.start()
        return self

    def _tick(self) -> None:
        while not self._stop.wait(1 if self._live else 30):
            text = "%s ... %s  %s" % (self.what, time_text(time.monotonic() - self._started), self.note)
            if self._live:
                width = shutil.get_terminal_size().columns - 1
                print("\r" + text[:width].ljust(width), end="", flush=True)
            else:
                print("  " + text, flush=True)

    def __exit__(self, kind, error, trace) -> None:
        self._stop.set()
        self._thread.join()
        took = time_text(time.monotonic() - self._started)
        if self._live:
            print("\r" + " " * (shutil.get_terminal_size().columns - 1), end="\r")
        if kind is None:
            print("%s: %s%s" % (self.what, took, ", " + self.result if self.result else ""), flush=True)


def child_environment(*paths: Path) -> Dict[str, str]:
    """The variables for a child: this user's, less what would let other Pythons' packages in, plus `paths` to import from."""
    environment = {name: value for name, value in os.environ.items()
                   if name not in ("PYTHONHOME", "PYTHONSTARTUP", "PYTHONUSERBASE", "__PYVENV_LAUNCHER__", "VIRTUAL_ENV")}
    environment["PYTHONPATH"] = os.pathsep.join(str(path) for path in paths)
    # Many small matrices: threads of the linear algebra cost more than they bring.
    environment.update(PYTHONUTF8="1", PYTHONNOUSERSITE="1", OPENBLAS_NUM_THREADS="1")
    return environment


def executable(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def key_of(python: Python, locks: Iterable[Path]) -> str:
    digest = hashlib.sha256(("2 %s %s %s" % (python.version, python.platform, python.threads)).encode())
    for lock in locks:
        digest.update(lock.read_bytes())
    return digest.hexdigest()[:12]


def complete(folder: Path) -> bool:
    """Was it finished, and does its Python still start (the one it was made from may be gone)?"""
    if not (folder / STAMP).is_file():
        return False
    if (folder / "pyvenv.cfg").is_file():
        try:
            started = subprocess.run([str(executable(folder)), "-I", "-c", ""], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
        except OSError:
            return False
        if started != 0:
            return False
    os.utime(folder / STAMP)  # in use: see forget_unused
    return True


@contextmanager
def alone(name: str) -> Iterator[None]:
    """One process at a time makes a folder; the others wait and find it made."""
    sys.path.insert(0, str(ROOT))
    try:
        from body4d_engine.disk import FileLock
    finally:
        sys.path.remove(str(ROOT))
    lock = FileLock(home() / (name + ".lock"))
    told = False
    while not lock.acquire():
        if not told:
            print("Waiting for another Body4D that is setting up the same thing.", flush=True)
            told = True
        time.sleep(0.5)
    try:
        yield
    finally:
        lock.release()


def make_home() -> None:
    try:
        home().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=str(home())):
            pass
    except OSError as error:
        raise SetupError("The folder for environments, %s, cannot be written: %s." % (home(), error.strerror or error),
                         "Set the environment variable BODY4D_HOME to a folder that can.")


def environment(kind: str, what: str, lock: Path, python: Python, *more: Path) -> Path:
    """The folder of an environment with the packages of a lock, and of more of them, made if it is not there. Raises SetupError."""
    folder = home() / ("%s-%s" % (kind, key_of(python, [lock, *more])))
    if complete(folder):
        return folder
    reason = pythons.no_wheels(python, blender_too=lock.stem.startswith("bpy-"))
    if reason:
        raise SetupError("%s cannot be installed here: %s." % (what, reason),
                         "Pass --blender PATH to use an installed Blender, 4.2 or newer." if lock.stem.startswith("bpy-") else "")
    make_home()
    with alone(folder.name):
        if complete(folder):
            return folder
        free = shutil.disk_usage(home()).free
        if free < ROOM_BYTES[kind]:
            raise SetupError("%s needs %s of free disk space in %s while it is installed; there are %s."
                             % (what, size_text(ROOM_BYTES[kind]), home(), size_text(free)),
                             "Make room, or set BODY4D_HOME to a folder on another disk.")
        remove(folder)
        with Step("Installing " + what) as step:
            if kind in ("tests", "build"):
                pip(pip_command(python), ["install", "--target", str(folder)] + locked(lock), step)
            else:
                done = subprocess.run([python.executable, "-I", "-m", "venv", "--without-pip", str(folder)], stdout=subprocess.PIPE,
                                      stderr=subprocess.STDOUT, universal_newlines=True)
                if done.returncode != 0:
                    raise SetupError("%s cannot make a virtual environment: %s." % (python.executable, last_lines(done.stdout, 3)),
                                     "On Debian and Ubuntu: apt install python3-venv.")
                _install(pip_command(python, executable(folder)), locked(lock, *more), step)
                trim(folder)
            (folder / (STAMP + ".new")).write_text(json.dumps({"lock": lock.name, "python": python.version}), encoding="utf-8")
            os.replace(folder / (STAMP + ".new"), folder / STAMP)
            step.result = ", ".join(filter(None, [step.result, size_text(size_bytes(folder)) + " on disk"]))
        forget_unused()
    return folder


def _install(command: List[str], packages: List[str], step: Step) -> None:
    """PyTorch's own build for Linux without a GPU is not on PyPI. A mirror that pip is set up with may have it; else it comes from PyTorch."""
    try:
        pip(command, ["install"] + packages, step)
    except SetupError as error:
        if "No matching distribution found for torch==" not in error.text:
            raise
        pip(command, ["install", "--extra-index-url", TORCH_INDEX] + packages, step)


def locked(*locks: Path) -> List[str]:
    files = [word for lock in locks for word in ("--requirement", str(lock))]
    return ["--require-hashes", "--no-deps", "--only-binary=:all:", "--no-compile"] + files


def remove(folder: Path) -> None:
    if folder.exists():
        doomed = folder.with_name("%s.old-%d" % (folder.name, os.getpid()))  # a rename is all or nothing; a deletion may stop half-way
        os.replace(folder, doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def trim(folder: Path) -> None:
    """Leave out the test suites of numpy and scipy, 23 MB that nothing here imports."""
    for package in ("numpy", "scipy"):
        for site in folder.glob("[Ll]ib/**/site-packages/" + package):
            for tests in [path for path in site.rglob("tests") if path.is_dir()]:
                shutil.rmtree(tests, ignore_errors=True)


def forget_unused() -> None:
    """Delete what no run has used for two months: superseded environments take half a gigabyte each."""
    for folder in list(home().glob("*-*")):
        stamp = folder / STAMP
        if stamp.is_file() and time.time() - stamp.stat().st_mtime > UNUSED_DAYS * 86400:
            remove(folder)


def pip_command(python: Python, target: Optional[Path] = None) -> List[str]:
    """pip for `target`'s environment, which has none of its own: the wheel that Python carries for `venv` runs as it is."""
    if python.pip:
        return [str(target or python.executable), os.path.join(python.pip, "pip")]
    has_pip = subprocess.run([python.executable, "-m", "pip", "--version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0
    if not has_pip:
        raise SetupError("Python %s (%s) comes without pip." % (python.version, python.executable),
                         "On Debian and Ubuntu: apt install python3-venv. Elsewhere: %s -m ensurepip." % python.executable)
    return [python.executable, "-m", "pip"] + (["--python", str(target)] if target else [])


def pip(command: List[str], arguments: List[str], step: Step) -> None:
    """Run pip; `step` says what it downloads. Raises SetupError with what a user can do about it."""
    # The user's settings for mirrors, proxies and certificates count; those about where to install would break ours.
    unwanted = ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER", "PIP_REQUIRE_VIRTUALENV", "PIP_CONSTRAINT", "PIP_NO_BINARY", "PIP_PYTHON")
    variables = {name: value for name, value in child_environment().items() if name not in unwanted and name != "PYTHONPATH"}
    variables.update(PIP_USER="0", PIP_REQUIRE_VIRTUALENV="0", PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_NO_INPUT="1", PIP_PROGRESS_BAR="off",
                     PIP_ROOT_USER_ACTION="ignore", PIP_NO_WARN_SCRIPT_LOCATION="1")
    process = subprocess.Popen(command + arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                               universal_newlines=True, encoding="utf-8", errors="replace", env=variables)
    lines, megabytes = [], 0.0
    try:
        for line in process.stdout:
            lines.append(line.rstrip())
            found = re.match(r"\s*Downloading (\S+?)-\S* \(([\d.]+) (MB|kB)\)", line)
            if found:
                amount = float(found.group(2)) * (1 if found.group(3) == "MB" else 1e-3)
                megabytes += amount
                step.note = "downloading %s, %s" % (found.group(1).rsplit("/", 1)[-1], size_text(amount * 1e6))
            elif "Installing collected packages" in line:
                step.note = "unpacking"
        code = process.wait()
    except BaseException:
        process.kill()
        process.wait()
        raise
    if code != 0:
        raise SetupError(*why_pip_failed("\n".join(lines)))
    step.result = "%s downloaded" % size_text(megabytes * 1e6) if megabytes else ""


def why_pip_failed(output: str):
    """(message, hint) for a failed pip."""
    if "DO NOT MATCH THE HASHES" in output:
        return ("A downloaded package is not the one this version of Body4D was made with: its checksum differs.",
                "Try again; if a mirror or proxy is set up for pip, it may serve altered files.")
    if "No space left" in output or "not enough space" in output.lower():
        return ("The disk is full.", "Make room, or set BODY4D_HOME (and PIP_CACHE_DIR) to folders on another disk.")
    if re.search(r"NewConnectionError|NameResolution|getaddrinfo|Connection ?(refused|reset|Error)|ProxyError|Retrying \(|SSLError|timed out", output):
        return ("The packages could not be downloaded: no connection to the package registry.",
                "The first run needs the internet once: connect, or set HTTPS_PROXY behind a proxy, and run the same command again.")
    if "No matching distribution" in output or "not a supported wheel" in output:
        return ("A package has no build for this machine. pip said: " + last_lines(output, 2),
                "Use the 64-bit Python 3.11 from %s." % pythons.DOWNLOAD)
    return ("Installing packages failed. pip said: " + last_lines(output, 6), "")


def last_lines(output: str, count: int) -> str:
    return " / ".join([line.strip() for line in output.splitlines() if line.strip()][-count:])


def engine(python: Python) -> Path:
    """The folder of the environment for the lite backend."""
    return environment("engine", "the engine's packages", LOCKS / "lite.txt", python)


def machine(python: Python) -> Path:
    """The folder of the environment that `body4d setup full` completes for this machine, with the pip that does it."""
    return environment("machine", "the engine's packages", LOCKS / "lite.txt", python, LOCKS / "pip.txt")


def full(python: Python) -> Path:
    """The folder of the environment for the tests of the full backend."""
    return environment("full", "PyTorch for a CPU and the full backend's packages", LOCKS / "full.txt", python)


def blender(python: Python, version: str = "") -> Path:
    """The folder of the environment with Blender as a module: the version that goes with this Python, or a given one ("4.2")."""
    version = version or pythons.BLENDER_FOR[python.minor]
    return environment("blender", "Blender %s as a Python module" % version, LOCKS / ("bpy-%s.txt" % version), python)


def test_packages(python: Python) -> Path:
    return environment("tests", "pytest for Python %d.%d" % python.minor, LOCKS / "test.txt", python)


def sources(package: Path) -> List[Path]:
    """The files that a package of ours is built from."""
    folders = [package / "body4d_engine"] if package == ROOT else [package]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return sorted(files + [path for path in (package / "pyproject.toml", package / "README.md", package / "LICENSE") if package == ROOT and path.is_file()])


def code(python: Python) -> List[Path]:
    """Folders to import our own packages from, built from this checkout by the locked hatchling."""
    make_home()
    return [_built(package, python) for package in OUR_PACKAGES]


def _built(package: Path, python: Python) -> Path:
    digest = hashlib.sha256()
    for path in sources(package):
        data = path.read_bytes()
        digest.update(("%s %d " % (path.relative_to(package).as_posix(), len(data))).encode())
        digest.update(data)
    folder = home() / ("code-" + digest.hexdigest()[:12])
    if complete(folder):
        return folder
    with tempfile.TemporaryDirectory(prefix="build-", dir=str(home())) as work:
        built = wheel(package, python, Path(work))
        unpacked = Path(work) / "unpacked"
        with zipfile.ZipFile(built) as archive:
            archive.extractall(unpacked)  # a wheel of plain Python is installed by unpacking it
        (unpacked / STAMP).write_text(json.dumps({"wheel": built.name}), encoding="utf-8")
        try:
            os.replace(unpacked, folder)
        except OSError:
            if not complete(folder):  # otherwise another process was first with the same content
                raise
    forget_unused()
    return folder


def wheel(package: Path, python: Python, target: Path) -> Path:
    """The wheel of one of our own packages, built in the empty folder `target`; the same sources give the same bytes. Raises SetupError."""
    builder = environment("build", "what builds our own packages", LOCKS / "build.txt", python)
    name = "body4d-engine" if package == ROOT else package.name
    with Step("Building " + name) as step:
        done = subprocess.run([python.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(target)], cwd=str(package),
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, universal_newlines=True,
                              env=dict(child_environment(builder), SOURCE_DATE_EPOCH=str(EPOCH)))
        wheels = list(target.glob("*.whl"))
        if done.returncode != 0 or len(wheels) != 1:
            raise SetupError("%s could not be built from %s: %s." % (name, package, last_lines(done.stdout, 4)))
        step.result = size_text(wheels[0].stat().st_size)
    return wheels[0]


def pip_wheel(python: Python) -> Path:
    """The pinned wheel of pip itself, which the extension carries. Downloaded once. Raises SetupError."""
    folder = home() / ("pip-" + key_of(python, [LOCKS / "pip.txt"]))
    if complete(folder):
        return next(folder.glob("*.whl"))
    make_home()
    with alone(folder.name):
        if not complete(folder):
            remove(folder)
            with Step("Fetching pip's wheel") as step:
                pip(pip_command(python), ["download", "--require-hashes", "--no-deps", "--only-binary=:all:", "--dest", str(folder),
                                          "--requirement", str(LOCKS / "pip.txt")], step)
                (folder / STAMP).write_text("{}", encoding="utf-8")
    return next(folder.glob("*.whl"))


def demo_clip(python: Optional[Python] = None) -> Path:
    """The clip of real people that `--demo` and tests use: 230 frames, two people, from the package sports2d (BSD-3-Clause).

    Downloaded once. Raises SetupError, for example without a network.
    """
    clip = home() / "demo" / "demo.mp4"
    if clip.is_file() and _sha256(clip) == DEMO_SHA256:
        return clip
    python = python or pythons.current()
    make_home()
    with alone("demo"), tempfile.TemporaryDirectory(prefix="demo-", dir=str(home())) as work:
        with Step("Fetching the demo clip") as step:
            pip(pip_command(python), ["download", "--require-hashes", "--no-deps", "--only-binary=:all:", "--dest", work,
                                      "--requirement", str(LOCKS / "demo.txt")], step)
            with zipfile.ZipFile(next(Path(work).glob("*.whl"))) as wheel:
                extracted = Path(wheel.extract("Sports2D/Demo/demo.mp4", work))
            if _sha256(extracted) != DEMO_SHA256:
                raise SetupError("The demo clip in the package sports2d is not the expected one.", "Pass a video of your own instead of --demo.")
            clip.parent.mkdir(exist_ok=True)
            os.replace(extracted, clip)
    return clip


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main(arguments: List[str]) -> int:
    try:
        python = pythons.choose()
        pythons.restart(python, __file__, arguments)
        whole = arguments[:1] == ["full"]
        arguments = arguments[whole:]
        folder = machine(python) if whole else engine(python)
        paths = code(python)
    except SetupError as error:
        print(error.text, file=sys.stderr)
        return 1
    commands = {"body4d": ["-m", "body4d_engine"], "python": []}
    if arguments and arguments[0] in commands:
        return subprocess.call([str(executable(folder))] + commands[arguments[0]] + arguments[1:], env=child_environment(*paths))
    print("The engine's environment is %s (%s with our own code)." % (folder, size_text(sum(size_bytes(path) for path in [folder] + paths))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
