# SPDX-License-Identifier: Apache-2.0
"""The add-on's own installation of the full engine beside the lite one, with small wheels in place of large ones: whatever happens, lite goes on working."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import setup_env

from . import test_installing as lite
from .conftest import ROOT, make_wheel, sha256
from .test_installing import install, installing, is_alive, wait_for, with_pip

from installing import environment, full  # noqa: E402
from installing import pip as pips  # noqa: E402

pip_unpacked = lite.pip_unpacked  # a fixture

ENGINE = """
import importlib.util, json, os, pathlib, sys, time
def has(name): return importlib.util.find_spec(name) is not None
def say(**line): print(json.dumps(line), flush=True)
words = sys.argv[1:]
if words == ["doctor", "--json"]:
    import toy_body
    state = "missing"
    if has("torch"):
        import torch
        state = torch.state
    checks = [("torch", state), ("packages", "ok" if has("toy_nets") else "missing"), ("weights sam3", "missing")]
    say(backends={"lite": {"lacks": [] if toy_body.answer == 42 else ["toy-body"]}},
        checks=[{"name": name, "state": state, "found": f"{name} is {state}", "next": ""} for name, state in checks])
elif "--login" in words:
    token = sys.stdin.readline().strip()
    if token != "hf_right":
        say(error={"message": "The hub does not know it.", "hint": "Copy all of it.", "code": "bad_token"})
        sys.exit(1)
    say(done=True)
else:
    packages = lambda *names: {"kind": "packages", "what": " ".join(names), "bytes": 1000, "requirements": names, "index": ""}
    steps = [] if has("torch") else [packages("torch==2.13.0+cpu")]
    steps += [] if has("toy_nets") else [packages("toy-nets>=1")]
    folder = pathlib.Path(os.environ.get("BODY4D_WEIGHTS", "weights")).absolute()
    steps += [] if (folder / "sam3").exists() else [{"kind": "weights", "what": "SAM 3", "bytes": 4000, "name": "sam3"}]
    say(plan={"steps": steps, "room_bytes": 3000}, weights_folder=str(folder))
    if "--show" not in words:
        assert words == ["setup", "full", "--json", "--only", "weights", "--yes"], words
        print("a library's chatter", flush=True)
        if os.environ.get("TOY_HUB") == "refuses":
            say(event="Notice", stage="sam3", code="no_access", message="This account has no access.")
            say(error={"message": "This account has no access.", "hint": "Open https://hub/sam3 and press 'Submit'.", "code": "no_access"})
            sys.exit(1)
        for done in (1000, 2000, 4000):
            say(event="Progress", stage="sam3", done=done, total=4000, note="sam3.pt")
            time.sleep(0.05)
            if os.environ.get("TOY_HUB") == "stalls":
                pathlib.Path("engine.pid").write_text(str(os.getpid()))
                time.sleep(60)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "sam3").write_text("weights")
        say(done=True)
"""


@pytest.fixture(scope="module")
def made(pip_unpacked, tmp_path_factory) -> Path:
    """A folder with the lite engine installed (`disk/мой движок`), what the add-on carries (`wheels`) and a registry with what the full engine needs."""
    folder = tmp_path_factory.mktemp("made")
    registry, carried = folder / "registry", folder / "wheels"
    toy, nets = make_wheel(registry, "toy_body", {"toy_body/__init__.py": "answer = 42\n"}), make_wheel(registry, "toy_nets", {"toy_nets.py": "layers = 3\n"})
    make_wheel(registry, "torch", {"torch/__init__.py": "state = 'ok'\n"}, "2.13.0+cpu")
    make_wheel(carried, "body4d_engine", {"body4d_engine/__main__.py": ENGINE})
    make_wheel(carried, "body4d_lite_models", {"body4d_lite_models/__init__.py": ""})
    (carried / pip_unpacked.name).symlink_to(pip_unpacked)
    (carried / "lite.txt").write_text(f"toy-body==1.0 \\\n    --hash=sha256:{sha256(toy)}\n")
    locks(carried, f"toy-body==1.0 \\\n    --hash=sha256:{sha256(toy)}", f"toy-nets==1.0 \\\n    --hash=sha256:{sha256(nets)}",
          "torch==2.13.0+cpu ; sys_platform == 'linux' \\\n    --hash=sha256:00")
    with pytest.MonkeyPatch.context() as patch:
        only_from(registry, patch)
        assert install(folder / "disk" / "мой движок", carried).error is None
    return folder


@pytest.fixture
def both(made, tmp_path, monkeypatch) -> Path:
    """A copy of it: where the engine is installed."""
    shutil.copytree(made, tmp_path / "it", symlinks=True)
    only_from(tmp_path / "it" / "registry", monkeypatch)
    monkeypatch.setenv("BODY4D_WEIGHTS", str(tmp_path / "it" / "disk" / "weights"))
    return tmp_path / "it" / "disk" / "мой движок"


@pytest.fixture
def carried(both) -> Path:
    return both.parent.parent / "wheels"


@pytest.fixture
def registry(both) -> Path:
    return both.parent.parent / "registry"


def only_from(registry: Path, monkeypatch) -> None:
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(registry), "PIP_CONFIG_FILE": os.devnull}.items():
        monkeypatch.setenv(name, value)


def locks(carried: Path, *entries: str) -> None:
    (carried / "full.txt").write_text("\n".join(entries) + "\n")


def start(root, carried, **options) -> installing.InstallFull:
    job = installing.InstallFull(root, installing.find_bundle(carried), **options)
    job.start()
    return job


def install_full(root, carried, **options) -> installing.InstallFull:
    job = start(root, carried, **options)
    job.join(60)
    assert not job.running
    return job


def full_of(root, carried) -> dict | None:
    return installing.status(root, installing.find_bundle(carried)).full


def sees_torch(root) -> bool:
    python = installing.python_of(installing.status(root).folder)
    return subprocess.run([python, "-I", "-c", "import torch, toy_nets, toy_body"], capture_output=True).returncode == 0


def content(folder: Path) -> dict:
    return {path.relative_to(folder): hashlib.sha256(path.read_bytes()).digest() for path in folder.rglob("*")
            if path.is_file() and path.name != environment.DOOR and "__pycache__" not in path.parts}


def assert_lite_works(root, carried) -> None:
    assert lite.state(root, carried) == "complete" and lite.answer(root) == "42" and not sees_torch(root)
    assert full_of(root, carried) is None and not list(root.glob("full-*")) and not list(root.rglob(environment.DOOR)), "nothing half is left"


def test_it_goes_beside_the_lite_engine_and_the_weights_come_after(both, carried):
    """Fails where lite's environment is changed, the packages are not seen, or weights are not fetched into the folder that was named."""
    before = content(both / "engine-1")
    job = start(both, carried, weights=str(both.parent / "my weights"))
    seen = []
    while job.running:
        seen.append(job.progress)
        job.join(0.005)
    assert job.error is None, (job.error, list(job.log))
    assert [progress.fraction for progress in seen] == sorted(progress.fraction for progress in seen)
    assert any("sam3: sam3.pt, 0.0 MB of 0.0 MB" in progress.text for progress in seen)
    assert content(both / "engine-1") == before and sees_torch(both) and lite.state(both, carried) == "complete"
    assert full_of(both, carried)["torch"] == "torch==2.13.0+cpu" and not full_of(both, carried)["outdated"]
    assert (both.parent / "my weights" / "sam3").is_file()
    again = install_full(both, carried, weights=str(both.parent / "my weights"))
    assert again.error is None and [path.name for path in both.glob("full-*")] == ["full-1"], "what is there stays"


def test_the_plan_is_shown_before_anything_is_done(both, carried):
    job = installing.LookFull(both, installing.find_bundle(carried))
    job.start(), job.join(20)
    assert job.error is None and [step["what"] for step in job.result["plan"]["steps"]] == ["torch==2.13.0+cpu", "toy-nets>=1", "SAM 3"]
    assert_lite_works(both, carried)


@pytest.mark.parametrize("after", [0.2, 0.8])
def test_cancel_at_any_moment(both, carried, after):
    job = start(both, carried)
    job.join(after)
    job.cancel()
    job.join(10)
    assert not job.running and (job.error is None or job.error.code == "cancelled")
    assert lite.state(both, carried) == "complete" and lite.answer(both) == "42"
    assert sees_torch(both) == bool(full_of(both, carried))
    assert install_full(both, carried).error is None and sees_torch(both)


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("where", ["pip", "weights"])
def test_killed_in_the_middle(both, carried, where, monkeypatch):
    """Blender is killed while torch is unpacked, or while weights come: what it started ends, lite works, and the next time goes on."""
    code = ("import sys; sys.path[:0] = sys.argv[1:3]\nimport installing; from pathlib import Path\n"
            "job = installing.InstallFull(Path(sys.argv[3]), installing.find_bundle(Path(sys.argv[4]))); job.start(); job.join()")
    half = lite.ENDLESS.replace("import os, pathlib, time", "import os, pathlib, sys, time\n"
                                "half = pathlib.Path(sys.argv[sys.argv.index('--prefix') + 1], 'lib', 'python3.x', 'site-packages', 'torch')\n"
                                "half.mkdir(parents=True)\n(half / '__init__.py').write_text('half a package')")
    monkeypatch.setenv("TOY_HUB", "stalls")
    note = both / ("pip.pid" if where == "pip" else "engine.pid")
    with (with_pip(carried, half) if where == "pip" else lite.contextmanager(lambda: iter([None]))()):
        parent = subprocess.Popen([sys.executable, "-c", code, str(ROOT / "body4d_blender"), str(ROOT), str(both), str(carried)])
        wait_for(lambda: note.is_file() and note.read_text())
        pid = int(note.read_text())
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        wait_for(lambda: not is_alive(pid), 5)
    assert lite.state(both, carried) == "complete" and lite.answer(both) == "42"
    assert bool(full_of(both, carried)) == sees_torch(both) == (where == "weights")
    monkeypatch.delenv("TOY_HUB")
    job = install_full(both, carried)
    assert job.error is None and sees_torch(both), (job.error, list(job.log))


def test_a_torch_that_does_not_work_is_left_out(both, carried, registry):
    make_wheel(registry, "torch", {"torch/__init__.py": "state = 'wrong'\n"}, "2.13.0+cpu")
    job = install_full(both, carried)
    assert job.error.code == "torch_does_not_work" and "torch is wrong" in str(job.error)
    assert_lite_works(both, carried)


def test_a_repair_that_fails_leaves_what_was_there(both, carried, registry):
    assert install_full(both, carried).error is None
    make_wheel(registry, "torch", {"torch/__init__.py": "state = 'wrong'\n"}, "2.13.0+cpu")
    assert "torch is wrong" in str(install_full(both, carried, repair=True).error)
    assert sees_torch(both) and [path.name for path in both.glob("full-*")] == ["full-1"]
    make_wheel(registry, "torch", {"torch/__init__.py": "state = 'ok'\nmended = True\n"}, "2.13.0+cpu")
    assert install_full(both, carried, repair=True).error is None
    assert sees_torch(both) and [path.name for path in both.glob("full-*")] == ["full-2"] and "mended" in next(both.rglob("torch/__init__.py")).read_text()


def test_a_new_lite_environment_takes_the_packages_over(both, carried):
    assert install_full(both, carried).error is None
    assert install(both, carried, repair=True).result.folder.name == "engine-2"
    assert sees_torch(both) and full_of(both, carried)
    stamp = environment.read_stamp(both / "full-1")
    environment.write_stamp(both / "full-1", {**stamp, "python": "3.9"})  # made for another Python
    assert install(both, carried, repair=True).error is None
    assert not sees_torch(both) and full_of(both, carried) is None and not list(both.glob("full-*"))
    assert install_full(both, carried).error is None and sees_torch(both)


def test_other_versions_of_a_new_add_on_are_an_update(both, carried, registry):
    """Fails where the packages that are there hide what is to be installed."""
    assert install_full(both, carried).error is None
    newer = make_wheel(registry, "toy_nets", {"toy_nets.py": "layers = 4\n"}, "2.0")
    locks(carried, f"toy-nets==2.0 --hash=sha256:{sha256(newer)}")
    assert full_of(both, carried)["outdated"]
    assert install_full(both, carried).error is None
    assert not full_of(both, carried)["outdated"] and "4" in next(both.rglob("toy_nets.py")).read_text() and not (both / "full-1").exists()


def test_one_package_that_is_gone_brings_all_anew(both, carried):
    """Fails where the new folder of packages has only what was missing in the old one."""
    assert install_full(both, carried).error is None
    for file in both.glob("full-1/**/toy_nets*"):
        shutil.rmtree(file) if file.is_dir() else file.unlink()
    assert not sees_torch(both)
    assert install_full(both, carried).error is None and sees_torch(both) and [path.name for path in both.glob("full-*")] == ["full-2"]


def test_lites_own_packages_are_never_changed(both, carried, registry):
    """Neither by a lock that names others, nor by a torch that asks for others."""
    other = make_wheel(registry, "toy_body", {"toy_body/__init__.py": "answer = 43\n"}, "2.0")
    before = (carried / "full.txt").read_text()
    locks(carried, f"toy-body==2.0 --hash=sha256:{sha256(other)}", before.split("\n", 2)[2])
    assert install_full(both, carried).error is None and lite.answer(both) == "42" and not list(both.glob("full-*/**/toy_body"))
    installing.remove_full(both)
    make_wheel(registry, "torch", {"torch/__init__.py": "state = 'ok'\n"}, "2.13.0+cpu", needs="toy-body>=2")
    assert install_full(both, carried).error.code in ("failed", "no_package")
    assert_lite_works(both, carried)


def test_a_package_that_is_not_the_expected_one(both, carried, registry):
    make_wheel(registry, "toy_nets", {"toy_nets.py": "evil = True\n"})
    assert install_full(both, carried).error.code == "hash_mismatch"
    assert_lite_works(both, carried)


def test_what_can_be_wrong_is_told(both, carried, monkeypatch):
    assert install_full(both, carried, online=False).error.code == "offline"
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: lite.namedtuple("Usage", "total used free")(10**12, 10**12, 10))
        job = install_full(both, carried)
        assert job.error.code == "disk_full" and str(both) in str(job.error)
    with with_pip(carried, lite.ENDLESS):
        first = start(both, carried)
        wait_for((both / "pip.pid").exists)
        assert install_full(both, carried).error.code == "locked"
        first.cancel(), first.join(5)
    assert_lite_works(both, carried)
    job = install_full(both.parent / "nothing here", carried)
    assert job.error.code == "no_engine" and "lite engine is not installed" in str(job.error)


def test_a_refusal_of_weights_keeps_the_packages_and_names_the_page(both, carried, monkeypatch):
    monkeypatch.setenv("TOY_HUB", "refuses")
    job = install_full(both, carried)
    assert job.error.code == "no_access" and "https://hub/sam3" in job.error.hint and full_of(both, carried) and sees_torch(both)
    monkeypatch.delenv("TOY_HUB")
    assert install_full(both, carried).error is None


def test_what_is_removed(both, carried):
    assert install_full(both, carried).error is None
    installing.remove_full(both)
    assert_lite_works(both, carried)
    assert install_full(both, carried).error is None
    installing.remove(both)
    assert not list(both.glob("full-*")) and (both.parent / "weights" / "sam3").is_file(), "weights stay"


def test_a_token_goes_to_the_engine_and_nowhere_else(both, carried):
    def log_in(token):
        job = installing.LogIn(both, installing.find_bundle(carried), token)
        job.start(), job.join(20)
        return job

    right, wrong = log_in("hf_right\n"), log_in("hf_wrong")
    assert right.error is None and right.result and wrong.error.code == "bad_token"
    for job in (right, wrong):
        assert "hf_" not in str([vars(job), job.log, job.error])


def test_paths_that_windows_does_not_take_are_told_before_anything_is_done():
    users = r"C:\Users\Ana Maria\AppData\Roaming\Blender Foundation\Blender\4.5\extensions\.user\user_default\body4d\engine\full-1\Lib\site-packages"
    full.check_paths(users, long_paths=True)
    full.check_paths(r"C:\body4d\body4d-engine\full-1\Lib\site-packages", long_paths=False)
    with pytest.raises(full.Body4DError, match="longer than Windows takes.*short folder"):
        full.check_paths(users, long_paths=False)


def test_the_locks_agree_on_what_both_engines_have():
    """Fails where the full lock has other versions of lite's packages, which the tests of the full backend would then run with and its users would not."""
    bundle = installing.Bundle(Path(), Path(), Path(), setup_env.LOCKS / "lite.txt", setup_env.LOCKS / "full.txt")
    in_full = {entry.split("==")[0]: entry for entry in installing.bundle._entries(bundle.full)}
    assert all(entry.split(" --hash")[0] in {line.split(" --hash")[0] for line in installing.bundle._entries(bundle.full)} for entry in bundle.entries())
    assert {"transformers", "safetensors", "huggingface-hub", "tokenizers", "sympy"} <= set(in_full)
    entries = bundle.full_entries()
    assert not [entry for entry in entries if entry.startswith(("torch==", "numpy=="))] and all("--hash=sha256:" in entry for entry in entries)


def test_pip_sees_what_lies_elsewhere(tmp_path, pip_unpacked):
    """The folder counts as installed for it, and is not in the way of Python's own modules."""
    (tmp_path / "toy-1.0.dist-info").mkdir()
    (tmp_path / "toy-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (tmp_path / "json.py").write_text("raise ImportError('not this one')")
    with subprocess.Popen(pips.command(Path(sys.executable), pip_unpacked, "list", "--format", "json", seeing=[tmp_path]), stdout=subprocess.PIPE,
                          stdin=subprocess.PIPE, text=True) as pip:
        assert {"name": "toy", "version": "1.0"} in json.loads(pip.stdout.read())
