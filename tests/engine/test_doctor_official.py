# SPDX-License-Identifier: Apache-2.0
"""`body4d doctor` names the published packages that `--models official` runs: which are here, and why they would not work. It imports none of them."""

import json
import sys
from dataclasses import replace

import pytest

from body4d_engine import doctor, examining
from body4d_engine.cli import main
from body4d_engine.models import official
from body4d_engine.setup.machine import Gpu, Machine

BARE = Machine("linux", "x86_64", (3, 11))
WITH_GPU = replace(BARE, gpus=(Gpu("RTX 4090", 24 << 30, (8, 9)),))


@pytest.fixture(autouse=True)
def none_of_them(monkeypatch, tmp_path):
    """A folder of packages that this process and the one that it asks both see, and no others of these names."""
    monkeypatch.setattr(doctor, "this_machine", lambda: BARE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    real = official.find_spec
    monkeypatch.setattr(official, "find_spec", lambda name: found if (found := real(name)) and str(tmp_path) in str(found.origin) else None)


def put(folder, name, code="", version=""):
    """A package whose entry module holds this code."""
    package = official.PACKAGES[name]
    module = folder.joinpath(*package.entry.split("."))
    for parent in [module, *module.parents][: len(package.entry.split("."))]:
        parent.mkdir(parents=True, exist_ok=True)
        (parent / "__init__.py").touch()
    (module / "__init__.py").write_text(code)
    if package.file:
        (folder / name / package.file).parent.mkdir(exist_ok=True)
        (folder / name / package.file).touch()
    if version:
        (folder / f"{name}-{version}.dist-info").mkdir()
        (folder / f"{name}-{version}.dist-info" / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def test_nobody_needs_them_and_each_is_named_with_its_repository(capsys):
    check = examining.published_code(WITH_GPU)
    assert check.state == "note" and all(f"{name} is not installed" in check.found for name in ("sam3", "moge", "sam_3d_body")) and "GPU" not in check.found
    for repository in ("facebookresearch/sam3", "microsoft/MoGe", "facebookresearch/sam-3d-body"):
        assert f"github.com/{repository}" in check.next
    assert main(["doctor", "--json"]) == 0
    (told,) = [check for check in json.loads(capsys.readouterr().out)["checks"] if check["name"] == "--models official"]
    assert told["next"] == check.next and "no NVIDIA GPU" in told["found"]
    main(["doctor"])
    assert f"--models official: {told['found']}\n" in capsys.readouterr().out


def test_where_they_are_and_of_which_version(tmp_path):
    put(tmp_path, "sam3", version="0.1.7")
    put(tmp_path, "moge")
    put(tmp_path, "sam_3d_body", "print('a banner')")
    check = examining.published_code(WITH_GPU)
    assert check.state == "ok" and not check.next
    assert f"sam3 0.1.7 in {tmp_path / 'sam3'}; moge (a checkout) in {tmp_path / 'moge'}" in check.found
    assert "no NVIDIA GPU" in examining.published_code(BARE).found and examining.published_code(BARE).state == "note"


@pytest.mark.parametrize("code, words", [("import no_such_package", "does not load: ModuleNotFoundError: No module named 'no_such_package'"),
                                         ("import sys; sys.stderr.write('half a line')\nraise RuntimeError('operator nms\\nis not there')",
                                          "does not load: RuntimeError: operator nms"),
                                         ("import os; os._exit(7)", "it takes its process along (7)")])
def test_one_that_does_not_load_is_told_and_breaks_nothing(tmp_path, code, words):
    put(tmp_path, "moge")
    put(tmp_path, "sam3", code, "0.1.7")
    check = examining.published_code(WITH_GPU)
    assert check.state == "note" and words in check.found and "For sam3: pip install git+https://github.com/facebookresearch/sam3" in check.next
    assert "sam3" not in sys.modules and "For moge" not in check.next


def test_one_that_is_not_whole_is_told(tmp_path):
    """As a wheel of sam3 on the package index is."""
    put(tmp_path, "sam3")
    vocabulary = tmp_path / "sam3" / official.PACKAGES["sam3"].file
    vocabulary.unlink()
    check = examining.published_code(WITH_GPU)
    assert f"sam3 in {tmp_path / 'sam3'} has no assets/{vocabulary.name}" in check.found and "For sam3: pip install git+" in check.next
    assert any(vocabulary.name in why for why in official.lacks()) and "For sam3" in official.remedy()


def test_one_that_never_answers_is_told(tmp_path, monkeypatch):
    put(tmp_path, "sam3", "import time; time.sleep(60)")
    monkeypatch.setattr(examining, "PROBE_S", 0.3)
    assert "does not answer within 0.3 s" in examining.published_code(WITH_GPU).found
