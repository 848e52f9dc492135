# SPDX-License-Identifier: Apache-2.0
"""The single checks of `body4d doctor`: what was found, and the next step where something is to be done."""

import json
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib import import_module, metadata
from pathlib import Path
from typing import NamedTuple

from .errors import Body4DError
from .models import official
from .setup.machine import Machine
from .setup.packages import PACKAGES
from .setup.plan import OLDEST_TORCH, PYTHONS, fits, gpu_words, lacks, number, torch_build
from .weights import hub
from .weights.catalogue import BODIES, CATALOGUE, Weights, needed
from .weights.places import Located, hub_cache, locate, weights_folder
from .weights.verifying import Ledger, replaced

SET_UP = "body4d setup full"
# torch is asked in a process of its own: a broken one can take its process along.
PROBE = """
import json, torch
devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
mps = getattr(torch.backends, "mps", None) is not None and torch.backends.mps.is_available()
if devices: (torch.ones(8, device="cuda") + 1).sum().item()
if mps: (torch.ones(8, device="mps") + 1).sum().item()
free = torch.cuda.mem_get_info()[0] if devices else 0
print("BODY4D" + json.dumps([torch.__version__, torch.version.cuda or "", [device.name for device in devices], free, mps]))
"""
# Nor is the published code, for which `--models official` asks, imported here.
PROBE_CODE = """
import sys
from importlib import import_module
try:
    import_module(sys.argv[1])
except BaseException as error:
    sys.exit("\\nBODY4D" + f"{type(error).__name__}: {error}".splitlines()[0])
"""
PROBE_S = 120


class Check(NamedTuple):
    """`state`: ok; note (works, with something to know); missing (only the full backend needs it); wrong (there, and does not work). `next`: what to do."""

    name: str
    state: str
    found: str
    next: str = ""


def all_checks(machine: Machine, online: bool = False) -> list[Check]:
    """Every check, from the ground up."""
    checks = [python(machine), video(), graphics(machine), torch(machine), packages(machine)]
    located = [_best_body()] + [locate(weights.name) for weights in needed() if weights.stage != "recover"]
    checks += [weights_check(one) for one in sorted(located, key=lambda one: list(CATALOGUE).index(one.weights.name))]
    checks += [room(located), published_code(machine)]
    return checks + (list(hub_access([one.weights for one in located])) if online else [])


def python(machine: Machine) -> Check:
    version = ".".join(map(str, machine.python))
    if machine.python not in PYTHONS:
        return Check("Python", "wrong", version, "Make an environment with Python 3.11, 3.12 or 3.13.")
    return Check("Python", "ok", version)


def video() -> Check:
    """PyAV, which carries FFmpeg."""
    try:
        av = import_module("av")
        lacking = [name for name in ("h264", "hevc", "vp9") if name not in av.codecs_available]
        ffmpeg = av.ffmpeg_version_info if hasattr(av, "ffmpeg_version_info") else ".".join(map(str, av.library_versions["libavcodec"]))
    except ModuleNotFoundError:
        return Check("FFmpeg", "missing", "PyAV, which carries it, is not installed", "pip install 'body4d-engine[lite]'")
    except Exception as error:  # a package whose libraries do not load fails in many ways
        return Check("FFmpeg", "wrong", f"PyAV does not load: {error}", "pip install --force-reinstall av")
    if lacking:
        return Check("FFmpeg", "note", f"PyAV {av.__version__} without {', '.join(lacking)}", "pip install --force-reinstall av: its FFmpeg has them.")
    return Check("FFmpeg", "ok", f"{ffmpeg} in PyAV {av.__version__}")


def graphics(machine: Machine) -> Check:
    """GPU, driver and the CUDA that the driver runs."""
    try:
        build, why, note = torch_build(machine)
    except Body4DError as error:
        return Check("GPU", "note", error.message, error.hint)
    if build == "mps":
        return Check("GPU", "ok", "Apple")
    if not machine.gpus:
        return Check("GPU", "note", "no NVIDIA GPU", "The lite backend needs none. The full one runs on the processor, slowly.")
    found = f"{'; '.join(map(gpu_words, machine.gpus))}; driver {machine.driver or '?'}"
    if machine.cuda:
        found += f", which runs CUDA up to {machine.cuda[0]}" + (f".{machine.cuda[1]}" if machine.cuda[1] else "")
    return Check("GPU", "note" if note else "ok", found, note)


def torch(machine: Machine) -> Check:
    """The installed torch: whether it loads, fits the driver, and can compute on the GPU."""
    if machine.torch is None:
        return Check("torch", "missing", "not installed", f"{SET_UP} shows which build suits, and installs it.")
    if number(machine.torch.version) < OLDEST_TORCH:
        return Check("torch", "wrong", f"{machine.torch.version} is too old", SET_UP)
    try:
        done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, stdin=subprocess.DEVNULL, text=True, timeout=PROBE_S, errors="replace")
        version, cuda, devices, free, mps = json.loads(done.stdout.split("BODY4D", 1)[1])
    except (OSError, subprocess.TimeoutExpired):
        return Check("torch", "wrong", f"{machine.torch.version} does not answer", f"Restart the machine; if that does not help, {SET_UP} installs it anew.")
    except (IndexError, ValueError):
        why = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
        return Check("torch", "wrong", f"{machine.torch.version} does not work: {why}", _again(machine))
    words = f"{version}" + (f" for CUDA {cuda}" if cuda else "")
    if devices:
        return Check("torch", "ok", f"{words}, computes on {devices[0]} ({free / 2**30:.1f} GiB free)")
    if mps:
        return Check("torch", "ok", f"{words}, computes on the Apple GPU")
    unfit = _unfit(machine)
    if unfit:
        return Check("torch", "wrong", unfit, f"{SET_UP} replaces it with one that fits.")
    if machine.gpus and cuda:
        return Check("torch", "wrong", f"{words} does not find the GPU", "Restart the machine; if that does not help, install the NVIDIA driver anew. "
                     "CUDA_VISIBLE_DEVICES must not hide the GPU.")
    return Check("torch", "ok", f"{words}, computes on the processor")


def packages(machine: Machine) -> Check:
    """What the full backend needs beside torch."""
    lacking = [why for package in PACKAGES if (why := lacks(machine, package))]
    if lacking:
        return Check("packages", "wrong" if any("too old" in why for why in lacking) else "missing", "; ".join(lacking), f"{SET_UP} installs them.")
    return Check("packages", "ok", ", ".join(f"{name} {version}" for name, version in machine.packages[:3]))


def weights_check(located: Located) -> Check:
    """Whether weights are there, of full size and readable; and whether their checksums were found right."""
    weights, name = located.weights, f"weights {located.weights.name}"
    if not located.files:
        return Check(name, "missing", f"not in {weights_folder() or hub_cache()}", _how_to_get(weights))
    if located.missing:
        return Check(name, "missing", f"{', '.join(located.missing)} is missing beside {next(iter(located.files.values()))}", _how_to_get(weights))
    if located.short:
        file = located.short[0]
        size = located.files[file].stat().st_size
        return Check(name, "wrong", f"{located.files[file]} has {size} of {weights.file(file).bytes} bytes", f"{SET_UP} fetches it again.")
    for file, path in located.files.items():
        if why := unreadable(path):
            return Check(name, "wrong", f"{path} cannot be read: {why}", f"{SET_UP} fetches it again." if file in [one.name for one in weights.files]
                         else f"Delete it and run {SET_UP}.")
    known = {file.name: file.sha256 for file in weights.files if file.sha256 and file.name in located.files}
    sound = all(Ledger().knows(located.files[file], sha256) or replaced().has(located.files[file]) for file, sha256 in known.items())
    return Check(name, "ok", f"{located.checkpoint}" + (", checksum right" if known and sound else ", checksum not verified yet") + f" ({weights.use})",
                 "" if known and sound else f"{SET_UP} --only weights verifies it.")


def unreadable(path: Path) -> str:
    """Why a weights file cannot be opened: cut off, of another kind, not permitted; '' where it can. Reads its ends only and runs nothing of it."""
    try:
        with open(path, "rb") as file:
            start = file.read(8)
        if path.suffix == ".safetensors":
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            return "" if 0 < length < path.stat().st_size - 8 else "it is cut off or no safetensors file"
        if path.suffix in (".pt", ".ckpt", ".pth") and start[:2] == b"PK":
            with zipfile.ZipFile(path) as archive:
                return "" if archive.namelist() else "it is empty"
        if path.suffix in (".pt", ".ckpt", ".pth") and start[:1] != b"\x80":  # of the older format: a bare pickle
            return "it is no weights file"
    except OSError as error:
        return error.strerror or str(error)
    except zipfile.BadZipFile:
        return "it is cut off"
    return ""


def room(located: list[Located]) -> Check:
    """Disk for the weights that are still to be fetched."""
    place = weights_folder() or hub_cache()
    there = next(parent for parent in (place.absolute(), *place.absolute().parents) if parent.exists())
    free = shutil.disk_usage(there).free
    lacking = sum(file.bytes or 0 for one in located for file in one.weights.files if not one.whole and (file.name not in one.files or file.name in one.short))
    found = f"{free / 1e9:.1f} GB free for weights in {place}"
    if lacking > free:
        return Check("disk", "wrong", f"{found}; {lacking / 1e9:.1f} GB are needed", f"Make room, or {SET_UP} --weights FOLDER on another disk.")
    return Check("disk", "ok", found + (f"; {lacking / 1e9:.1f} GB are needed" if lacking else ""))


def published_code(machine: Machine) -> Check:
    """The packages of `--models official`, which nobody needs: which are here, of which version, where, and whether they load."""
    found, steps = [], []
    for package in official.PACKAGES.values():
        if not package.here:
            why = "is not installed"
        elif not package.whole:
            why = f"in {package.folder} has no {package.file}"
        elif wrong := _failing(package.entry):
            why = f"in {package.folder} does not load: {wrong}"
        else:
            found.append(f"{package.module} {_version(package.module)} in {package.folder}")
            continue
        found.append(f"{package.module} {why}")
        steps.append(f"For {package.module}: {package.install}.")
    if not machine.gpus:
        found.append("there is no NVIDIA GPU, and it computes on no other")
    words = "; ".join(found)
    return Check("--models official", "note", words, " ".join(["Nothing needs it: the engine has its own networks.", *steps])) if steps or not machine.gpus \
        else Check("--models official", "ok", words)


def hub_access(weights: list[Weights]) -> Iterator[Check]:
    """Asks the hub for every repository whether this user may have it. Downloads nothing."""
    for one in weights:
        name = f"hub {one.repository}"
        try:
            hub.ask(one, one.files[0].name)
        except Body4DError as error:
            yield Check(name, "missing" if error.code == "no_hub_library" else "wrong", error.message, error.hint)
        else:
            yield Check(name, "ok", "may be fetched")


def _failing(module: str) -> str:
    """Why a module does not load; "" where it does."""
    try:
        done = subprocess.run([sys.executable, "-c", PROBE_CODE, module], capture_output=True, stdin=subprocess.DEVNULL, text=True, timeout=PROBE_S,
                              errors="replace")
    except (OSError, subprocess.TimeoutExpired):
        return f"it does not answer within {PROBE_S} s"
    told = [line[6:] for line in done.stderr.splitlines() if line.startswith("BODY4D")]
    return told[0] if told else f"it takes its process along ({done.returncode})" if done.returncode else ""


def _version(module: str) -> str:
    """Of the package that is installed under that name; a folder in PYTHONPATH has none."""
    try:
        return metadata.version(module)
    except metadata.PackageNotFoundError:
        return "(a checkout)"


def _unfit(machine: Machine) -> str:
    try:
        return fits(machine)
    except Body4DError as error:
        return error.message


def _again(machine: Machine) -> str:
    """What to do about a torch that does not load."""
    return f"{_unfit(machine)}: {SET_UP}" if _unfit(machine) else f"pip uninstall torch, then {SET_UP}"


def _best_body() -> Located:
    """Of the published sizes of SAM 3D Body the one that is there, else the default."""
    return max((locate(f"sam-3d-body-{body}") for body in BODIES), key=lambda one: (one.whole, bool(one.checkpoint)))


def _how_to_get(weights: Weights) -> str:
    asked = f" Access is granted at {weights.page}: press '{weights.form}' there first." if weights.form else ""
    return f"{SET_UP} fetches it ({weights.licence}, {weights.use}).{asked}"
