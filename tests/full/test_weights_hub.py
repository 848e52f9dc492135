# SPDX-License-Identifier: Apache-2.0
"""Weights are fetched from a hub that refuses, truncates, stalls, redirects and damages: what comes is whole and sound, or the user is told the next step."""

import hashlib
import io
import json
import os
import random
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

huggingface_hub = pytest.importorskip("huggingface_hub")

from body4d_engine import examining  # noqa: E402
from body4d_engine.cli import main  # noqa: E402
from body4d_engine.errors import Body4DError  # noqa: E402
from body4d_engine.events import Notice  # noqa: E402
from body4d_engine.setup import doing  # noqa: E402
from body4d_engine.setup.machine import Machine  # noqa: E402
from body4d_engine.setup.plan import plan  # noqa: E402
from body4d_engine.weights import hub as client  # noqa: E402
from body4d_engine.weights import locate, login  # noqa: E402
from body4d_engine.weights.catalogue import CATALOGUE, File, needed  # noqa: E402

from .local_hub import LocalHub  # noqa: E402

MACHINE = Machine("linux", "x86_64", (3, 11))


def content(name: str, size: int) -> bytes:
    return b"PK" + random.Random(name).randbytes(size - 2)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub with small files in place of the published ones, which the catalogue knows; nothing of this machine's own user is seen."""
    for name in ("HF_TOKEN", "HF_HOME", "BODY4D_WEIGHTS", "HF_HUB_OFFLINE", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    served = LocalHub()
    monkeypatch.setenv("HF_ENDPOINT", served.address)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.5)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 10_000)
    for module in ("file_download", "utils._http"):  # its pauses between two attempts
        monkeypatch.setattr(f"huggingface_hub.{module}.time", SimpleNamespace(**{**vars(time), "sleep": lambda seconds: None}))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    for weights in list(CATALOGUE.values()):
        files = []
        for number, file in enumerate(weights.files):
            served.files[weights.repository, file.name] = data = content(weights.name + file.name, 300_000 + 1000 * number)
            files.append(File(file.name, len(data), hashlib.sha256(data).hexdigest(), file.needed))
        monkeypatch.setitem(CATALOGUE, weights.name, replace(weights, files=tuple(files)))
    yield served
    served.close()


def fetch(folder, names=("sam3",)):
    """As the command does. Returns the events."""
    located, told = doing.located_for(names, folder), []
    doing.carry_out(plan(MACHINE, located, packages=False), located, folder, told.append)
    return told


def assert_sound(served: LocalHub, folder, names=("sam3",)) -> None:
    for name in names:
        found = locate(name, folder)
        assert found.whole, found
        for file, path in found.files.items():
            assert path.read_bytes() == served.files[CATALOGUE[name].repository, file]
    assert not [file for root, _, files in os.walk(folder) for file in files if file.endswith(".part")]


def ranges(served: LocalHub) -> list[str | None]:
    return [one[2] for one in served.asked("GET", "/storage")]


def test_everything_comes_once_and_is_then_skipped(hub, tmp_path):
    """Fails where files are fetched though they are there, land in another place, or are taken unchecked."""
    names, folder = [weights.name for weights in needed()], tmp_path / "weights"
    fetch(folder, names)
    assert_sound(hub, folder, names)
    assert (folder / "sam-3d-body-dinov3" / "assets" / "mhr_model.pt").is_file()  # the layout of SAM-Body4D's README
    assert len(hub.asked("GET", "/storage")) == sum(len(weights.files) for weights in needed())
    before = len(hub.log)
    assert fetch(folder, names) == [] and len(hub.log) == before


def test_the_token_goes_to_the_hub_and_not_to_its_storage(hub, tmp_path, monkeypatch):
    """Fails where the login is not used, or is sent to the host that the hub redirects to."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    fetch(tmp_path)
    assert {one[3] for one in hub.asked("HEAD", "/facebook")} == {"Bearer hf_secret"}
    assert [one[3] for one in hub.asked("GET", "/storage")] == [None]


def test_without_a_redirect_the_token_is_used(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.redirects = False
    fetch(tmp_path)
    assert_sound(hub, tmp_path)
    assert [one[3] for one in hub.asked("GET", "/facebook")] == ["Bearer hf_secret"]


@pytest.mark.parametrize("fault", ["cut", "stall"])
def test_a_broken_download_goes_on_where_it_stopped(hub, tmp_path, fault):
    """Fails where a cut or silent connection ends the download, or starts it anew."""
    hub.faults[fault] = 1
    fetch(tmp_path)
    assert_sound(hub, tmp_path)
    assert ranges(hub) == [None, "bytes=150000-"]


def test_a_later_run_goes_on_too(hub, tmp_path, monkeypatch):
    """Fails where what came before a failure is thrown away, as the library does."""
    hub.faults["cut"] = 100
    with pytest.raises(Body4DError) as failed:
        fetch(tmp_path)
    assert failed.value.code in ("no_network", "download_cut") and "goes on where it stopped" in failed.value.hint
    assert not locate("sam3", tmp_path).whole
    (part,) = (tmp_path / "sam3").glob("*.part")
    had = part.stat().st_size
    assert had > 150_000
    hub.faults.clear(), hub.log.clear()
    fetch(tmp_path)
    assert_sound(hub, tmp_path)
    assert ranges(hub) == [f"bytes={had}-"]


def test_a_server_without_ranges_starts_anew(hub, tmp_path):
    hub.whole_only, hub.faults["cut"] = True, 1
    fetch(tmp_path)
    assert_sound(hub, tmp_path)


def test_an_address_that_ended_is_asked_for_again(hub, tmp_path):
    hub.faults["expired"] = 2
    fetch(tmp_path)
    assert_sound(hub, tmp_path)
    assert len(hub.asked("HEAD")) == 3


def test_a_damaged_file_is_not_kept(hub, tmp_path):
    """Fails where only sizes are compared."""
    hub.faults["damaged"] = 1
    with pytest.raises(Body4DError) as failed:
        fetch(tmp_path)
    assert failed.value.code == "download_damaged" and not list((tmp_path / "sam3").iterdir())
    fetch(tmp_path)
    assert_sound(hub, tmp_path)


def test_what_is_there_is_checked_and_replaced(hub, tmp_path):
    """A file cut short by another program, and one of the right size with a wrong byte, are fetched again; the sound one stays."""
    names = ("sam3", "sam-3d-body-dinov3")
    fetch(tmp_path, names)
    checkpoint, rig = tmp_path / "sam-3d-body-dinov3" / "model.ckpt", tmp_path / "sam-3d-body-dinov3" / "assets" / "mhr_model.pt"
    os.truncate(tmp_path / "sam3" / "sam3.pt", 1000)
    rig.write_bytes(rig.read_bytes()[:-1] + b"?")
    assert not locate("sam3", tmp_path).whole and locate("sam3", tmp_path).short == ("sam3.pt",)
    kept = checkpoint.stat().st_mtime_ns
    hub.log.clear()
    told = fetch(tmp_path, names)
    assert_sound(hub, tmp_path, names)
    assert checkpoint.stat().st_mtime_ns == kept and len(hub.asked("GET", "/storage")) == 2
    assert [event.code for event in told if isinstance(event, Notice)] == ["damaged_file"]


def test_the_cache_of_the_hub_is_filled_as_the_library_reads_it(hub, tmp_path):
    """Fails where the library, or another program, would fetch again what is in its cache."""
    hub.faults["cut"] = 1
    fetch(None)
    found = locate("sam3")
    assert found.whole and found.layout == "cache" and ranges(hub) == [None, "bytes=150000-"]
    hub.log.clear()
    assert huggingface_hub.try_to_load_from_cache("facebook/sam3", "sam3.pt", cache_dir=tmp_path / "cache") == str(found.path("sam3.pt"))
    assert fetch(None) == [] and not hub.log
    blob = found.path("sam3.pt").resolve()
    blob.write_bytes(b"?" + blob.read_bytes()[1:])
    fetch(None)
    assert locate("sam3").path("sam3.pt").read_bytes() == hub.files["facebook/sam3", "sam3.pt"]


def test_a_newer_file_of_the_hub_is_taken_and_told(hub, tmp_path, monkeypatch):
    hub.files["facebook/sam3", "sam3.pt"] = newer = content("newer", 250_000)
    told = fetch(tmp_path)
    file = tmp_path / "sam3" / "sam3.pt"
    assert file.read_bytes() == newer
    assert [event.code for event in told if isinstance(event, Notice)] == ["newer_file"]
    assert locate("sam3", tmp_path).whole and not locate("sam3", tmp_path).short, "another size is no half file"
    monkeypatch.setattr(examining, "unreadable", lambda path: "")
    assert "checksum right" in examining.weights_check(locate("sam3", tmp_path)).found
    hub.log.clear()
    fetch(tmp_path)
    assert not hub.asked("GET", "/storage"), "it is not fetched again"
    os.truncate(file, 1000)
    assert locate("sam3", tmp_path).short == ("sam3.pt",)


REFUSALS = [
    ((401, "GatedRepo", "Access to model facebook/sam3 is restricted."), "", "no_login", ["https://huggingface.co/facebook/sam3", "'Submit'", "hf auth login"]),
    ((403, "GatedRepo", "Access to model facebook/sam3 is restricted and you are not in the authorized list."), "hf_x", "no_access",
     ["https://huggingface.co/facebook/sam3", "'Submit'"]),
    ((403, "GatedRepo", "Your request to access model facebook/sam3 is awaiting a review from the repo authors."), "hf_x", "access_pending",
     ["Wait for the mail"]),
    ((403, "GatedRepo", "Your request to access model facebook/sam3 has been rejected by the repo's authors."), "hf_x", "access_rejected", ["facebook/sam3"]),
    ((403, "", "Please enable access to public gated repositories in your fine-grained token settings to view this repository."), "hf_x", "token_too_narrow",
     ["https://huggingface.co/settings/tokens", "gated repos"]),
    ((401, "", "Invalid credentials in Authorization header"), "hf_x", "bad_token", ["hf auth login", "https://huggingface.co/settings/tokens"]),
    ((404, "RepoNotFound", "Repository not found"), "hf_x", "not_on_hub", ["https://huggingface.co/facebook/sam3"]),
    ((429, "", "Too many requests"), "hf_x", "hub_busy", ["Wait"]),
    ((503, "", "Down"), "hf_x", "hub_trouble", ["again"]),
]


@pytest.mark.parametrize(("refusal", "token", "code", "words"), REFUSALS, ids=[f"{one[0][0]} {one[2]}" for one in REFUSALS])
def test_a_refusal_names_the_page_and_the_click(hub, tmp_path, monkeypatch, refusal, token, code, words):
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    hub.refusal = refusal
    with pytest.raises(Body4DError) as failed:
        client.ask(CATALOGUE["sam3"], "sam3.pt")
    assert failed.value.code == code and not [word for word in words if word not in failed.value.hint], failed.value
    assert token not in str(failed.value) or not token


def test_what_is_granted_comes_though_the_rest_is_refused(hub, tmp_path, monkeypatch):
    asked = client.ask

    def refusing(weights, name):
        hub.refusal = (401, "GatedRepo", "restricted") if weights.form else None
        return asked(weights, name)

    monkeypatch.setattr(client, "ask", refusing)
    with pytest.raises(Body4DError) as failed:
        fetch(tmp_path, [weights.name for weights in needed()])
    assert locate("moge-2-vitl-normal", tmp_path).whole
    assert "https://huggingface.co/facebook/sam3 " in failed.value.hint and "https://huggingface.co/facebook/sam-3d-body-dinov3 " in failed.value.hint


def test_no_hub_at_that_address(hub, tmp_path):
    hub.close()
    with pytest.raises(Body4DError) as failed:
        client.ask(CATALOGUE["sam3"], "sam3.pt")
    assert failed.value.code == "no_network" and "HF_ENDPOINT" in failed.value.hint


def test_a_full_disk_is_told_before_anything_is_fetched(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(doing.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(Body4DError) as failed:
        fetch(tmp_path)
    assert failed.value.code == "disk_full" and not hub.log


def test_the_command(hub, tmp_path, capsys):
    """Shows first, does nothing without a yes, then fetches, remembers the folder, and speaks JSON to programs."""
    folder = tmp_path / "weights"
    assert main(["setup", "full", "--only", "weights", "--weights", str(folder)]) == 1
    shown = capsys.readouterr().out
    assert "SAM License: commercial use allowed" in shown and "https://huggingface.co/facebook/sam3" in shown and "--yes" in shown and not hub.log
    assert main(["setup", "full", "--only", "weights", "--weights", str(folder), "--yes", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0]["plan"]["bytes"] > 0 and lines[-1] == {"done": True} and {line["event"] for line in lines[1:-1]} == {"Progress"}
    assert locate("sam3").whole  # the folder is remembered
    assert main(["setup", "full", "--only", "weights"]) == 0 and "Nothing has to be installed" in capsys.readouterr().out


def test_a_token_is_tried_and_kept_by_the_hubs_library(hub, tmp_path, capsys, monkeypatch):
    """Fails where it is not tried first, is kept elsewhere than for all programs, shown, or not used then."""
    kept = tmp_path / "hub" / "token"
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(kept))
    monkeypatch.setattr("huggingface_hub.constants.HF_STORED_TOKENS_PATH", str(tmp_path / "hub" / "stored_tokens"))
    monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", hub.address)  # which it reads when it is imported
    hub.users["hf_right"] = "ana"
    for given, status in (("\n", 1), ("hf_wrong\n", 1)):
        monkeypatch.setattr("sys.stdin", io.StringIO(given))
        assert main(["setup", "full", "--login", "--json"]) == status and not kept.exists() and not login.logged_in()
        said = capsys.readouterr()
        assert json.loads(said.out)["error"]["code"] == "bad_token" and "https://huggingface.co/settings/tokens" in said.out and "hf_wrong" not in str(said)
    monkeypatch.setattr("sys.stdin", io.StringIO("hf_right\n"))
    assert main(["setup", "full", "--login"]) == 0 and kept.read_text() == "hf_right" and login.logged_in()
    assert "hf_right" not in str(capsys.readouterr())
    fetch(tmp_path)
    assert {one[3] for one in hub.asked("HEAD", "/facebook")} == {"Bearer hf_right"}
    hub.close()
    monkeypatch.setattr("sys.stdin", io.StringIO("hf_right\n"))
    assert main(["setup", "full", "--login", "--json"]) == 1 and json.loads(capsys.readouterr().out)["error"]["code"] == "no_network"


def test_the_doctor_asks_for_access_only_when_told_to(hub, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(examining, "torch", lambda machine: examining.Check("torch", "ok", "not asked here: it takes seconds"))
    hub.refusal = (401, "GatedRepo", "restricted")
    main(["doctor", "--json"])
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert not hub.log and checks["weights sam3"]["state"] == "missing" and "'Submit'" in checks["weights sam3"]["next"]
    main(["doctor", "--json", "--online"])
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert checks["hub facebook/sam3"]["state"] == "wrong" and "hf auth login" in checks["hub facebook/sam3"]["next"]
