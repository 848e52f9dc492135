# SPDX-License-Identifier: Apache-2.0
import sys
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
