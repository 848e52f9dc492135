# SPDX-License-Identifier: Apache-2.0
"""What is to be installed on a machine, and why: a pure function, shown to the user before anything is done."""

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from ..errors import Body4DError
from ..weights.catalogue import Weights
from ..weights.places import Located
from .machine import Gpu, Machine
from .packages import PACKAGES, Package

TORCH = "2.13.0"  # the tested one; published for all builds below
OLDEST_TORCH = (2, 6)
PYTHONS = ((3, 11), (3, 12), (3, 13))
PYTORCH = "https://download.pytorch.org/whl/"
PYPI = "https://pypi.org/simple"

# Bytes of download with everything that belongs to it, by system, processor and build, as pip counts them for TORCH and Python 3.11. Not every one was
# looked up: pip says the rest.
TORCH_BYTES = {("linux", "x86_64", "cpu"): 201_700_000, ("linux", "x86_64", "cu130"): 2_740_500_000, ("macos", "arm64", "mps"): 121_000_000,
               ("windows", "x86_64", "cpu"): 132_000_000, ("windows", "x86_64", "cu126"): 2_604_500_000}

# What packages need on disk while they are installed, beside the download: with CUDA 2.7 GB became 5.6 GB, without it 0.2 GB became 0.9 GB.
UNPACKED, UNPACKED_BYTES = 2.1, 500_000_000


@dataclass(frozen=True)
class Step:
    """One thing that is done. `kind`: packages or weights. `what`: for the user. `why`: for what reason it is this and no other. `source`: the address it comes
    from. `bytes`: of the download, None where not known before. For packages `requirements` and `index` are pip's; for weights `name` is the
    catalogue's and `files` are those that are still missing."""

    kind: str
    what: str
    why: str
    source: str
    bytes: int | None
    requirements: tuple[str, ...] = ()
    index: str = ""
    name: str = ""
    files: tuple[str, ...] = ()
    licence: str = ""
    page: str = ""


@dataclass(frozen=True)
class Plan:
    """`steps` in order. `device`: cuda, mps or cpu, on which it will run. `notes`: what the user should know. `present`: what is there and stays."""

    steps: tuple[Step, ...]
    device: str
    notes: tuple[str, ...] = ()
    present: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """Of those downloads whose size is known."""
        return sum(step.bytes or 0 for step in self.steps)

    @property
    def room_bytes(self) -> int:
        """What the packages take on disk while they are installed, with their downloads."""
        packages = sum(step.bytes or 0 for step in self.steps if step.kind == "packages")
        return int(packages * (1 + UNPACKED)) + UNPACKED_BYTES if packages else 0

    def to_json(self) -> dict:
        return {**asdict(self), "bytes": self.bytes, "room_bytes": self.room_bytes}


def plan(machine: Machine, weights: Iterable[Located] = (), packages: bool = True) -> Plan:
    """What is to be done on `machine`, where `weights` are those that are needed with what is there of them. Raises Body4DError where nothing can be."""
    steps, notes, present = [], [], []
    build, why, note = torch_build(machine)
    notes += [note] if note else []
    if packages:
        step, told = _torch(machine, build, why)
        steps += [step] if step else []
        present += [told] if told else []
        lacking = [package for package in PACKAGES if lacks(machine, package)]
        stay = [f"{name} {version}" for name, version in machine.packages if name not in [package.name for package in lacking]]
        present += [", ".join(stay)] if stay else []
        if lacking:
            steps.append(Step("packages", ", ".join(package.name for package in lacking), "networks, weight files, the hub, video and arithmetic", PYPI,
                              sum(package.bytes for package in lacking), tuple(package.requirement for package in lacking)))
    for located in weights:
        if located.whole:
            present.append(f"{located.weights.title}: {located.checkpoint}")
        else:
            steps.append(_fetching(located.weights, located))
    return Plan(tuple(steps), "cuda" if build.startswith("cu") else build, tuple(notes), tuple(present))


def lacks(machine: Machine, package: Package) -> str:
    """Why a package has to be installed; '' where it is there. One that another package brings in its place (OpenCV with windows) counts as there."""
    version = dict(machine.packages).get(package.name)
    if version is None:
        return f"{package.name} is not installed"
    return f"{package.name} {version} is too old" if number(version) and number(version) < package.oldest else ""


def torch_build(machine: Machine) -> tuple[str, str, str]:
    """Which build of torch suits: cu126, cu130, mps or cpu; why; and a note for the user, '' for none. Raises Body4DError where there is none.

    A build for CUDA 12 or 13 runs with every driver of that major version (NVIDIA's minor version compatibility). Builds for CUDA 13 have no code for GPUs
    before Turing (7.5), that for 12.6 none for Blackwell (10.0) and later.
    """
    if machine.python not in PYTHONS:
        raise Body4DError(f"Python {machine.python[0]}.{machine.python[1]} is not one that the packages exist for.", "Use Python 3.11, 3.12 or 3.13.", "python")
    slow = "It will run on the processor, slowly."
    if machine.system == "macos":
        if machine.processor != "arm64":
            raise Body4DError("There is no current torch for Macs with an Intel processor.", "Use an engine on another machine.", "no_torch")
        return "mps", "the GPU of an Apple processor", "It will run on the Apple GPU: slower than on an NVIDIA one."
    if machine.system not in ("linux", "windows"):
        raise Body4DError(f"There is no torch for {machine.system}.", "Use an engine on another machine.", "no_torch")
    if not machine.gpus:
        return "cpu", "no NVIDIA GPU was found", slow
    gpu, driver = machine.gpus[0], machine.driver or "in use"
    newest = machine.cuda or (0, 0)
    words = f"{gpu.name}, driver {driver}"
    if newest < (12, 0):
        return "cpu", f"{words}: too old", f"Driver {driver} is too old for any current torch. Install driver 580 or newer and run this again. {slow}"
    if (0, 0) < gpu.capability < (5, 0):
        return "cpu", f"{words}: a GPU that no current torch has code for", slow
    if newest >= (13, 0) and not (0, 0) < gpu.capability < (7, 5):
        return "cu130", words, ""
    if gpu.capability >= (10, 0):
        return "cpu", f"{words}: too old for this GPU", f"{gpu.name} needs the NVIDIA driver 580 or newer. Install that and run this again. {slow}"
    return "cu126", words, ""


def fits(machine: Machine) -> str:
    """Why the installed torch cannot use this machine's GPU; '' where it can, or where there is neither."""
    build, why, _ = torch_build(machine)
    if machine.torch is None or build in ("cpu", "mps"):
        return ""
    if not machine.torch.cuda:
        return f"torch {machine.torch.version} is built for the processor only, and there is a GPU ({why})"
    built, gpu = number(machine.torch.cuda), machine.gpus[0]
    if built[0] > (machine.cuda or (0, 0))[0]:
        return f"torch {machine.torch.version} is built for CUDA {machine.torch.cuda}, and the driver {machine.driver} runs CUDA {machine.cuda[0]}.x at most"
    too_old = (0, 0) < gpu.capability < ((7, 5) if built >= (13,) else (7, 0) if built >= (12, 8) else (5, 0))
    if too_old or built < (12, 8) and gpu.capability >= (10, 0):
        return f"torch {machine.torch.version}, built for CUDA {machine.torch.cuda}, has no code for {gpu.name}"
    return ""


def _torch(machine: Machine, build: str, why: str) -> tuple[Step | None, str]:
    """What to install, or what is there already."""
    unfit = fits(machine)
    if machine.torch and number(machine.torch.version) >= OLDEST_TORCH and not unfit:
        return None, f"torch {machine.torch.version}" + (f" for CUDA {machine.torch.cuda}" if machine.torch.cuda else "")
    index = "" if build == "mps" else PYTORCH + build
    requirement = f"torch=={TORCH}" + ("" if build == "mps" else f"+{build}")
    size = TORCH_BYTES.get((machine.system, machine.processor, build))
    return Step("packages", requirement, unfit or why, index or PYPI, size, (requirement,), index), ""


def _fetching(weights: Weights, located: Located) -> Step:
    files = tuple(file for file in weights.files if file.name not in located.files or file.name in located.short)
    sizes = [file.bytes for file in files]
    licence = f"{weights.licence}: {weights.use}" + (f"; {weights.terms}" if weights.terms else "")
    why = f"for {weights.stage}" + ("; access has to be asked for, once" if weights.form else "")
    return Step("weights", weights.title, why, weights.repository, None if None in sizes else sum(sizes), name=weights.name,
                files=tuple(file.name for file in files), licence=licence, page=weights.page)


def gpu_words(gpu: Gpu) -> str:
    """For the user."""
    return gpu.name + (f", {gpu.bytes / 2**30:.0f} GiB" if gpu.bytes else "")


def number(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: 2.13.0+cu130 -> (2, 13, 0)."""
    return tuple(int(part) for part in (re.match(r"\d+(\.\d+)*", version) or re.match("", ""))[0].split(".") if part)
