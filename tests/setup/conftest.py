# SPDX-License-Identifier: Apache-2.0
import hashlib
import os
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPTS = ROOT / "scripts"
sys.path.insert(0, str(SCRIPTS))

import pythons  # noqa: E402


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """An empty cache folder in place of the user's."""
    monkeypatch.setenv("BODY4D_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="session")
def python() -> pythons.Python:
    return pythons.current()


@pytest.fixture(scope="session")
def old_pythons() -> list[str]:
    """Real Pythons on this machine that are too old for the environments."""
    found = []
    for minor in ((3, 8), (3, 9), (3, 10)):
        for command in pythons.places(minor):
            other = pythons.probe(command)
            if other and other.minor == minor:
                found.append(other.executable)
                break
    return found


@pytest.fixture
def registry(tmp_path, monkeypatch) -> Path:
    """A folder that pip finds wheels in, and nothing else."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "registry"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return tmp_path / "registry"


def make_wheel(folder: Path, name: str, files: dict[str, str], version="1.0", needs="") -> Path:
    folder.mkdir(exist_ok=True)
    path, info = folder / f"{name}-{version}-py3-none-any.whl", f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        for file, text in {**files, f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n" +
                           (f"Requires-Dist: {needs}\n" if needs else ""),
                           f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n", f"{info}/RECORD": ""}.items():
            wheel.writestr(file, text)
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
