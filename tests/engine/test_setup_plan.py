# SPDX-License-Identifier: Apache-2.0
"""Which torch a machine gets and why, what counts as there, and what a machine is found to be."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from body4d_engine.cli import main
from body4d_engine.errors import Body4DError
from body4d_engine.setup import command, doing, machine
from body4d_engine.setup.machine import Gpu, Machine, Torch
from body4d_engine.setup.packages import PACKAGES
from body4d_engine.setup.plan import fits, plan, torch_build
from body4d_engine.weights.catalogue import BODIES, CATALOGUE, needed
from body4d_engine.weights.places import Located

ADA, VOLTA = Gpu("RTX 4090", 24 << 30, (8, 9)), Gpu("V100", 16 << 30, (7, 0))
BLACKWELL, KEPLER = Gpu("RTX 5090", 32 << 30, (12, 0)), Gpu("K80", 12 << 30, (3, 7))
BARE = Machine("linux", "x86_64", (3, 11))


def with_gpu(gpu: Gpu, driver: str, **more) -> Machine:
    return Machine("linux", "x86_64", (3, 12), (gpu,), driver, machine.by_driver(driver), **more)


@pytest.mark.parametrize(("asked", "build", "noted"), [
    (BARE, "cpu", "slowly"),
    (with_gpu(ADA, "580.65.06"), "cu130", ""),
    (with_gpu(ADA, "550.54.14"), "cu126", ""),
    (with_gpu(ADA, "525.60.13"), "cu126", ""),
    (with_gpu(ADA, "470.82.01"), "cpu", "driver 580"),
    (with_gpu(VOLTA, "590.10"), "cu126", ""),  # no build for CUDA 13 has code for it
    (with_gpu(BLACKWELL, "580.65.06"), "cu130", ""),
    (with_gpu(BLACKWELL, "570.10"), "cpu", "driver 580"),  # the build for 12.6 has no code for it
    (with_gpu(KEPLER, "470.82.01"), "cpu", "too old"),
    (with_gpu(replace(ADA, capability=(0, 0)), "580.1"), "cu130", ""),  # an old nvidia-smi does not say what it is
    (Machine("windows", "x86_64", (3, 13), (ADA,), "581.29", (13, 0)), "cu130", ""),
    (Machine("macos", "arm64", (3, 11)), "mps", "Apple"),
], ids=lambda value: value.gpus[0].name + " " + value.driver if isinstance(value, Machine) and value.gpus else None)
def test_the_build_follows_driver_and_gpu(asked, build, noted):
    got, why, note = torch_build(asked)
    assert got == build and why and noted in note and bool(noted) == bool(note)


@pytest.mark.parametrize("asked", [Machine("macos", "x86_64", (3, 11)), Machine("linux", "x86_64", (3, 10)), Machine("freebsd", "x86_64", (3, 11))])
def test_where_no_torch_exists_that_is_said(asked):
    with pytest.raises(Body4DError) as failed:
        plan(asked)
    assert failed.value.hint


def test_the_index_is_that_of_the_build():
    (step, *_) = plan(with_gpu(ADA, "580.65")).steps
    assert step.requirements == ("torch==2.13.0+cu130",) and step.index == step.source == "https://download.pytorch.org/whl/cu130" and step.bytes > 2e9
    (step, *_) = plan(Machine("macos", "arm64", (3, 11))).steps
    assert step.requirements == ("torch==2.13.0",) and not step.index


@pytest.mark.parametrize(("torch", "asked", "kept"), [
    (Torch("2.13.0+cpu"), BARE, True),
    (Torch("2.13.0", "13.0"), BARE, True),  # larger than needed, and works
    (Torch("2.5.1+cpu"), BARE, False),
    (Torch("2.13.0+cpu"), with_gpu(ADA, "580.65"), False),
    (Torch("2.13.0", "13.0"), with_gpu(ADA, "580.65"), True),
    (Torch("2.13.0", "13.0"), with_gpu(ADA, "550.54"), False),
    (Torch("2.13.0", "12.6"), with_gpu(ADA, "580.65"), True),  # an older one runs on a newer driver
    (Torch("2.13.0", "12.6"), with_gpu(BLACKWELL, "580.65"), False),
    (Torch("2.9.0", "12.8"), with_gpu(BLACKWELL, "580.65"), True),
    (Torch("2.13.0", "13.0"), with_gpu(VOLTA, "580.65"), False),
])
def test_a_torch_that_fits_stays(torch, asked, kept):
    asked = replace(asked, torch=torch)
    made = plan(asked)
    assert kept == (not any(step.what.startswith("torch") for step in made.steps)) == any(word.startswith("torch") for word in made.present)
    assert kept or torch.version.startswith("2.5") or fits(asked)


def test_packages_that_are_there_stay():
    have = (("transformers", "5.23.0"), *((package.name, "-" if package.module == "cv2" else "99.0") for package in PACKAGES[1:]))  # OpenCV by another package
    whole = replace(BARE, torch=Torch("2.13.0+cpu"), packages=have)
    assert not plan(whole).steps
    (step,) = plan(replace(whole, packages=(("transformers", "4.57.1"), *have[1:]))).steps
    assert step.requirements == ("transformers>=5.23,<6",)


def test_weights_are_shown_with_size_licence_and_page(tmp_path):
    made = plan(BARE, [Located(weights, missing=tuple(file.name for file in weights.files)) for weights in needed()], packages=False)
    assert [step.name for step in made.steps] == ["sam3", "moge-2-vitl-normal", "sam-3d-body-dinov3"]
    assert made.bytes == 3_450_062_241 + 1_323_815_904 + 2_109_129_346 + 696_110_248 + 1_488
    assert all("commercial use allowed" in step.licence and step.page.endswith(step.source) for step in made.steps)
    sam3 = CATALOGUE["sam3"]
    assert not plan(BARE, [Located(sam3, files={"sam3.pt": tmp_path / "sam3.pt"})], packages=False).steps


def test_nvidia_smi_is_read(tmp_path, monkeypatch):
    if os.name == "nt":
        pytest.skip("the stand-in is a shell script")
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA H200, 143771, 570.86.15, 9.0'\necho 'NVIDIA L4, 23034, 570.86.15, 8.9'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(machine, "_by_library", lambda: ((), None))
    gpus, driver, cuda = machine.nvidia()
    assert gpus == (Gpu("NVIDIA H200", 143771 << 20, (9, 0)), Gpu("NVIDIA L4", 23034 << 20, (8, 9))) and (driver, cuda) == ("570.86.15", (12, 0))
    program.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver.'\nexit 9\n")
    assert machine.nvidia() == ((), "", None)


def test_the_build_of_an_installed_torch_is_read_without_importing_it(tmp_path, monkeypatch):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise ImportError('libcudart.so.13: cannot open shared object file')\n")
    (tmp_path / "torch" / "version.py").write_text("from typing import Optional\n__all__ = ['cuda']\ncuda: Optional[str] = '13.0'\n")
    (tmp_path / "torch-2.13.0.dist-info").mkdir()
    (tmp_path / "torch-2.13.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.13.0\n")
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert machine.installed_torch() == Torch("2.13.0", "13.0")


def test_what_pip_says_is_passed_on(monkeypatch):
    (step, *_) = plan(BARE).steps
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(Body4DError) as failed:
        doing.install(replace(step, requirements=("no-such-package-of-body4d==1",), index="http://127.0.0.1:9/simple"), lambda event: None)
    assert failed.value.code in ("pip", "no_pip") and ("no-such-package-of-body4d" in failed.value.message or failed.value.code == "no_pip")


PIP = """
import os, pathlib, sys, time
pathlib.Path("pip.txt").write_text(f"{os.getpid()} {' '.join(sys.argv[1:])}")
print("Collecting torch", flush=True)
time.sleep(float(os.environ.get("TOY_PAUSE", "0")))
"""


@pytest.fixture
def with_toy_pip(tmp_path, monkeypatch) -> Path:
    """A folder to run in, where pip is a program that notes what it is asked."""
    (tmp_path / "pip").mkdir()
    (tmp_path / "pip" / "__init__.py").write_text("")
    (tmp_path / "pip" / "__main__.py").write_text(PIP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(Path(doing.__file__).parents[2]), os.environ.get("PYTHONPATH", "")]))
    return tmp_path


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="there would be nothing to install")
def test_the_command_asks_pip_for_the_build_of_this_machine(with_toy_pip):
    done = subprocess.run([sys.executable, "-m", "body4d_engine", "setup", "full", "--only", "packages", "--yes"], capture_output=True, text=True)
    asked = (with_toy_pip / "pip.txt").read_text()
    assert done.returncode == 0 and "transformers>=5.23,<6" in asked and "The packages are there" in done.stdout, done
    assert "Collecting torch" in done.stderr


@pytest.mark.skipif(os.name == "nt" or importlib.util.find_spec("torch") is not None, reason="signals; and there would be nothing to install")
def test_ctrl_c_ends_pip_too_and_the_same_command_goes_on(with_toy_pip, monkeypatch):
    monkeypatch.setenv("TOY_PAUSE", "60")
    command = [sys.executable, "-m", "body4d_engine", "setup", "full", "--only", "packages", "--yes"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 20
    while not (with_toy_pip / "pip.txt").exists() or not (with_toy_pip / "pip.txt").read_text():
        assert time.monotonic() < until and running.poll() is None
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=10)
    assert running.returncode == 130 and "run the same command again to go on" in said
    with pytest.raises(ProcessLookupError):
        os.kill(int((with_toy_pip / "pip.txt").read_text().split()[0]), 0)
    monkeypatch.setenv("TOY_PAUSE", "0")
    assert subprocess.run(command, capture_output=True).returncode == 0


def test_a_python_without_pip_is_told_how_to_get_it(monkeypatch):
    (step, *_) = plan(BARE).steps
    monkeypatch.setattr(doing.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Body4DError) as failed:
        doing.install(step, lambda event: None)
    assert failed.value.code == "no_pip" and f"{sys.executable} -m ensurepip" in failed.value.hint


def test_the_index_is_asked_beside_the_users_own(monkeypatch):
    """Fails where a mirror that is set up for pip is left out."""
    (step, *_) = plan(BARE).steps
    started = []

    def start(command, **_):
        started.append(command)
        raise KeyboardInterrupt

    monkeypatch.setattr(doing.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(doing.subprocess, "Popen", start)
    with pytest.raises(KeyboardInterrupt):
        doing.install(step, lambda event: None)
    words = started[0]
    assert words[words.index("--extra-index-url") + 1] == "https://download.pytorch.org/whl/cpu" and words[-1] == "torch==2.13.0+cpu"
    assert "--index-url" not in words


def test_errors_are_lines_for_programs(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(command, "this_machine", lambda: replace(BARE, python=(3, 14)))
    assert main(["setup", "full", "--show", "--json", "--weights", str(tmp_path)]) == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "python" and "3.11" in error["hint"]


def test_the_plan_tells_programs_of_room_and_login(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(command, "this_machine", lambda: BARE)
    assert main(["setup", "full", "--show", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["plan"]["room_bytes"] > 3 * 201_700_000 and said["logged_in"] is False and said["hub"].startswith("https://")
    (tmp_path / "token").write_text("hf_x\n")
    assert main(["setup", "full", "--show", "--json"]) == 0 and json.loads(capsys.readouterr().out)["logged_in"] is True
    assert main(["setup", "full", "--show"]) == 0 and "hf auth login" not in capsys.readouterr().out


def test_no_default_is_for_non_commercial_use_only():
    assert all(weights.commercial and "commercial use allowed" == weights.use for body in BODIES for weights in needed(body))
    restricted = replace(CATALOGUE["sam3"], commercial=False)
    (step,) = plan(BARE, [Located(restricted, missing=("sam3.pt",))], packages=False).steps
    assert "NON-COMMERCIAL use only" in step.licence


def test_packages_come_before_weights_and_nothing_without_room(monkeypatch, tmp_path):
    done = []
    doing.carry_out(plan(BARE), [], tmp_path, lambda event: None, pip=lambda step, tell: done.append(step.what))
    assert done == ["torch==2.13.0+cpu", ", ".join(package.name for package in PACKAGES)]
    monkeypatch.setattr(doing.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10**8})())
    with pytest.raises(Body4DError, match="packages need"):
        doing.carry_out(plan(BARE), [], tmp_path, lambda event: None, pip=lambda step, tell: done.append(step.what))
    assert len(done) == 2


def test_a_folder_that_cannot_be_made_is_told(monkeypatch, capsys, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setattr(command, "this_machine", lambda: BARE)
    assert main(["setup", "full", "--only", "weights", "--weights", str(tmp_path / "file" / "below"), "--yes"]) == 1
    assert "cannot be made" in capsys.readouterr().err
