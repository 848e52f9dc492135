# SPDX-License-Identifier: Apache-2.0
"""What a take and `body4d doctor` say of the versions at work is true, however our models got here."""

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import body4d_lite_models
import numpy as np
import pytest

from body4d_engine import versions

SOURCE = Path(__file__).parents[2] / "packages" / "body4d-lite-models"
ASK = "from body4d_engine.versions import versions; print(versions()['body4d-lite-models'])"


def asked(*paths: Path) -> str:
    """What is said where Python finds its packages by these paths first."""
    done = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=True,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*paths, *sys.path]))})
    return done.stdout.strip()


@pytest.fixture
def installed(tmp_path):
    """A folder as pip leaves it, with models of version 7.8."""
    module = tmp_path / "body4d_lite_models"
    module.mkdir()
    (module / "__init__.py").write_text('__version__ = "7.8"\n')
    about = tmp_path / "body4d_lite_models-7.8.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: body4d-lite-models\nVersion: 7.8\n")
    return tmp_path


def test_installed_models_have_a_version(installed):
    assert asked(installed) == "7.8"


def test_models_of_a_checkout_say_where_they_are(installed):
    folder = SOURCE / "body4d_lite_models"
    assert asked(SOURCE) == asked(SOURCE, installed) == f"{body4d_lite_models.__version__} from {folder}"  # installed ones that are not used do not matter


def test_what_is_not_there_has_none(monkeypatch):
    monkeypatch.setattr(versions, "PACKAGES", ("numpy", "no-such-package"))
    monkeypatch.setattr(versions, "import_module", lambda name: import_module("no_such_module"))
    assert versions.versions() == {"body4d-lite-models": None, "numpy": np.__version__, "no-such-package": None}


def test_the_full_backend_s_packages_are_named_and_not_loaded(tmp_path):
    """By what pip wrote of them: a run that needs no torch does not wait for it."""
    for name in ("torch", "transformers"):
        about = tmp_path / f"{name}-1.2.3.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2.3\n")
        (tmp_path / f"{name}.py").write_text("raise SystemExit('was loaded')\n")
    ask = "import sys; from body4d_engine.versions import versions as v; print(v()['torch'], v()['transformers'], 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [tmp_path, SOURCE, *sys.path]))})
    assert done.stdout.split() == ["1.2.3", "1.2.3", "False"], done.stderr
