# SPDX-License-Identifier: Apache-2.0
"""What the add-on's button "Install Full Engine" starts, with the real engine as its child, against a hub that refuses, truncates, stalls and redirects."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
import venv
from pathlib import Path

import pytest

huggingface_hub = pytest.importorskip("huggingface_hub")

from body4d_engine.weights.catalogue import CATALOGUE, needed  # noqa: E402

from .local_hub import LocalHub  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "body4d_blender"))  # the package without the add-on around it, which needs Blender

import installing  # noqa: E402
from installing import environment  # noqa: E402

SMALL = """
import dataclasses, json, os
import huggingface_hub.constants as constants
constants.HF_HUB_DOWNLOAD_TIMEOUT, constants.DOWNLOAD_CHUNK_SIZE = 0.5, 10_000
from body4d_engine.weights.catalogue import CATALOGUE, File
for name, files in json.loads(os.environ["SMALL_CATALOGUE"]).items():
    CATALOGUE[name] = dataclasses.replace(CATALOGUE[name], files=tuple(File(*file) for file in files))
"""


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub with small files, which the engine's catalogue knows, and a user of whom nothing else of this machine is seen."""
    for name in list(os.environ):
        if name.startswith(("HF_", "BODY4D_", "HUGGING")) or name.lower() in ("http_proxy", "all_proxy"):
            monkeypatch.delenv(name)
    served, known = LocalHub(), {}
    for weights in CATALOGUE.values():
        for number, file in enumerate(weights.files):
            served.files[weights.repository, file.name] = data = b"PK" + random.Random(weights.name + file.name).randbytes(300_000 + 1000 * number)
            known.setdefault(weights.name, []).append([file.name, len(data), hashlib.sha256(data).hexdigest(), file.needed])
    for name, value in {"HF_ENDPOINT": served.address, "HF_HOME": str(tmp_path / "hf"), "XDG_CONFIG_HOME": str(tmp_path / "settings"),
                        "SMALL_CATALOGUE": json.dumps(known)}.items():
        monkeypatch.setenv(name, value)
    yield served
    served.close()


@pytest.fixture
def root(tmp_path) -> Path:
    """The lite engine as the add-on installs it, as far as it is looked at: it sees this checkout and this environment's packages, PyTorch among them."""
    root = tmp_path / "root"
    venv.create(root / "engine-1", symlinks=os.name != "nt")
    (site,) = environment.site_packages(root / "engine-1")
    paths = [str(ROOT), str(ROOT / "packages" / "body4d-lite-models"), *(path for path in sys.path if "site-packages" in path)]
    (site / "packages.pth").write_text("\n".join([*paths, "import small_catalogue"]))
    (site / "small_catalogue.py").write_text(SMALL)
    bundle = carried(tmp_path)
    environment.write_stamp(root / "engine-1", {"number": 1, "lock": bundle.lock_key, "code": bundle.code_key, "engine": "1", "python": "", "bytes": 1,
                                                "seconds": 1.0})
    return root


def carried(folder: Path) -> installing.Bundle:
    files = [folder / name for name in ("body4d_engine-1-py3-none-any.whl", "models.whl", "pip.whl", "lite.txt", "full.txt")]
    for file in files:
        file.write_text("")
    return installing.Bundle(*files)


def run(job: installing.Job) -> installing.Job:
    job.start()
    job.join(60)
    assert not job.running
    return job


def install(root: Path, weights: Path) -> installing.InstallFull:
    return run(installing.InstallFull(root, carried(root.parent), str(weights)))


def assert_all_there(hub: LocalHub, folder: Path) -> None:
    for weights in needed():
        for file in weights.files:
            assert (folder / weights.name / file.name).read_bytes() == hub.files[weights.repository, file.name]
    assert not list(folder.rglob("*.part"))


def test_the_plan_and_the_weights(root, hub, tmp_path):
    """Through redirects, a cut, a silent and an ended connection, each file once."""
    look = run(installing.LookFull(root, carried(tmp_path), str(tmp_path / "w")))
    assert look.error is None and [step["name"] for step in look.result["plan"]["steps"]] == [weights.name for weights in needed()], look.error
    assert all(step["licence"] and step["page"].startswith("https://huggingface.co/") for step in look.result["plan"]["steps"])
    assert not hub.log and not look.result["logged_in"] and look.result["hub"] == hub.address and look.result["weights_folder"] == str(tmp_path / "w")
    hub.faults.update(cut=1, stall=1, expired=1)
    job = install(root, tmp_path / "w")
    assert job.error is None and job.progress.fraction == 1, (job.error, list(job.log))
    assert_all_there(hub, tmp_path / "w")
    assert "bytes=150000-" in [one[2] for one in hub.asked("GET", "/storage")], "what was broken off went on"
    hub.log.clear()
    assert install(root, tmp_path / "w").error is None and not hub.log, "what is there is skipped"


def test_a_damaged_file_is_not_kept(root, hub, tmp_path):
    hub.faults["damaged"] = 1
    job = install(root, tmp_path / "w")
    assert job.error.code == "download_damaged" and not (tmp_path / "w" / "sam3" / "sam3.pt").exists()
    assert install(root, tmp_path / "w").error is None
    assert_all_there(hub, tmp_path / "w")


@pytest.mark.parametrize(("refusal", "token", "code", "words"), [
    ((401, "GatedRepo", "restricted"), "", "no_login", ["https://huggingface.co/facebook/sam3", "'Submit'", "https://huggingface.co/settings/tokens"]),
    ((403, "GatedRepo", "you are not in the authorized list"), "hf_x", "no_access", ["https://huggingface.co/facebook/sam-3d-body-dinov3", "'Submit'"]),
    ((403, "", "enable access to public gated repositories in your fine-grained token settings"), "hf_x", "token_too_narrow", ["settings/tokens"]),
    ((401, "", "Invalid credentials in Authorization header"), "hf_x", "bad_token", ["settings/tokens"]),
    ((503, "", "Down"), "", "hub_trouble", ["again"])], ids=["no_login", "no_access", "token_too_narrow", "bad_token", "hub_trouble"])
def test_a_refusal_names_the_page_and_the_click(root, hub, tmp_path, refusal, token, code, words):
    if token:
        (tmp_path / "hf").mkdir()
        (tmp_path / "hf" / "token").write_text(token)  # as `hf auth login` leaves it
    assert run(installing.LookFull(root, carried(tmp_path))).result["logged_in"] == bool(token)
    hub.refusal = refusal
    job = install(root, tmp_path / "w")
    assert job.error.code == code and not [word for word in words if word not in job.error.hint], job.error
    assert "hf_x" not in str([job.error, *job.log])


def test_the_users_login_is_used_and_made(root, hub, tmp_path):
    hub.users["hf_right"] = "ana"
    assert run(installing.LogIn(root, carried(tmp_path), "hf_wrong")).error.code == "bad_token"
    assert run(installing.LogIn(root, carried(tmp_path), "")).error.code == "bad_token"
    assert run(installing.LogIn(root, carried(tmp_path), "hf_right\nand more that was copied")).error is None
    assert (tmp_path / "hf" / "token").read_text() == "hf_right"
    assert install(root, tmp_path / "w").error is None
    assert {one[3] for one in hub.asked("HEAD", "/facebook")} == {"Bearer hf_right"} and {one[3] for one in hub.asked("GET", "/storage")} == {None}


def test_no_hub_at_that_address(root, hub, tmp_path):
    hub.close()
    job = install(root, tmp_path / "w")
    assert job.error.code == "no_network" and "HF_ENDPOINT" in job.error.hint


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("how", ["cancelled", "killed"])
def test_stopped_in_the_middle_of_a_file(root, hub, tmp_path, how):
    """The engine ends, what came is kept, and the next time goes on from there."""
    hub.faults["stall"] = 100
    part = lambda: next(iter((tmp_path / "w" / "sam3").glob("*.part")), None)  # noqa: E731
    code = ("import sys; sys.path[:0] = sys.argv[1:3]\nimport installing; from pathlib import Path\n"
            "job = installing.InstallFull(Path(sys.argv[3]), installing.Bundle(*map(Path, sys.argv[4:9])), sys.argv[9]); job.start(); job.join()")
    if how == "killed":
        places = [ROOT / "body4d_blender", ROOT, root, *carried(tmp_path), tmp_path / "w"]
        process = subprocess.Popen([sys.executable, "-c", code, *map(str, places)])
    else:
        job = installing.InstallFull(root, carried(tmp_path), str(tmp_path / "w"))
        job.start()
    until = time.monotonic() + 30
    while not (part() and part().stat().st_size > 100_000):
        assert time.monotonic() < until
        time.sleep(0.01)
    if how == "killed":
        process.send_signal(signal.SIGKILL)
        process.wait()
    else:
        job.cancel()
        job.join(5)
        assert job.error.code == "cancelled" and "goes on from there" in job.error.hint
    time.sleep(0.5)
    had = part().stat().st_size
    hub.faults.clear()
    hub.log.clear()
    assert install(root, tmp_path / "w").error is None
    assert f"bytes={had}-" == hub.asked("GET", "/storage/facebook/sam3")[0][2]
    assert_all_there(hub, tmp_path / "w")
