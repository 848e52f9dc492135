# SPDX-License-Identifier: Apache-2.0
"""The published code of the networks, as a user has installed it, behind the interfaces of ours (`--models official`). Importing this loads nothing heavy.

Ours are the default: they need no checkout, take people and frames in batches, and compute on what there is. The published code is there to compare with,
and for what it gains first. What it does wrong stays wrong unless the module that wraps it says otherwise."""

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from ...errors import Body4DError, is_out_of_memory

MODELS = ("ours", "official")
OPTIONS = "model_config.yaml"  # what the published SAM 3D Body reads beside its checkpoint, and ours does not
INSTEAD = "Or leave out --models official: the engine has its own networks for the same weights."


@dataclass(frozen=True)
class Package:
    """`module`: what is imported; `title`: of the network; `install`: how one comes by it; `entry`: the module that the engine asks for it; `file`: what must
    lie in its folder beside the code, "" for nothing."""

    module: str
    title: str
    install: str
    entry: str
    file: str = ""

    @property
    def here(self) -> bool:
        return find_spec(self.module) is not None

    @property
    def folder(self) -> Path | None:
        """Where its code is; None where that is nowhere. Imports nothing."""
        spec = find_spec(self.module)
        return Path(next(iter(spec.submodule_search_locations))) if spec and spec.submodule_search_locations else None

    @property
    def whole(self) -> bool:
        """Whether it is here, with `file`."""
        return self.here and (not self.file or self.folder is not None and (self.folder / self.file).is_file())


PACKAGES = {package.module: package for package in (
    Package("sam3", "SAM 3", "pip install git+https://github.com/facebookresearch/sam3", "sam3.model_builder",
            "assets/bpe_simple_vocab_16e6.txt.gz"),  # the words that it knows; wheels of the package index have come without them
    Package("moge", "MoGe-2", "pip install git+https://github.com/microsoft/MoGe", "moge.model.v2"),
    Package("sam_3d_body", "SAM 3D Body", "git clone https://github.com/facebookresearch/sam-3d-body, put that folder into PYTHONPATH, and install what its "
            "INSTALL.md asks for", "sam_3d_body"),
)}


def lacks() -> list[str]:
    """What the published code lacks here, in words."""
    missing = [f"the package {package.module} (the published {package.title})" if not package.here else f"the package {package.module} whole: {package.file} "
               f"is missing in {package.folder}" for package in PACKAGES.values() if not package.whole]
    if not missing and find_spec("torch") is not None:
        from ...memory import best_device

        missing += ["an NVIDIA GPU that torch can use, on which alone the published code computes"] if best_device() != "cuda" else []
    return missing


def remedy() -> str:
    """What to do about what `lacks` found."""
    steps = [f"For {package.module}: {package.install}." for package in PACKAGES.values() if not package.whole]
    return " ".join([*steps, INSTEAD])


def published(module: str, name: str):
    """What the package calls `name` in `module`. Raises Body4DError: `official_missing`; `official_broken`, where it is there and does not load;
    `official_version`, where it is there and has no such thing."""
    package = PACKAGES[module.split(".")[0]]
    try:
        if not package.here:
            raise Body4DError(f"The published {package.title} (the package {package.module}) is not installed here.", f"{package.install}. {INSTEAD}",
                              "official_missing")
        with silent():
            return getattr(import_module(module), name)
    except Body4DError:
        raise
    except Exception as error:  # a package whose own packages are missing or do not fit fails in many ways
        inside = isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] == package.module
        if inside or isinstance(error, AttributeError) and name in str(error):
            raise Body4DError(f"The installed {package.module} is of another version: it has no {name} in {module}.",
                              f"Install it anew: {package.install}. {INSTEAD}", "official_version") from error
        raise Body4DError(f"The installed {package.module} does not load: {type(error).__name__}: {_line(error)}",
                          f"Install what it asks for: {package.install}. {INSTEAD}", "official_broken") from error


def on_cuda(module: str, device: str) -> str:
    """The device, where the published code computes on it. Raises Body4DError `needs_cuda`: it asks for CUDA whatever it is told."""
    if not device.startswith("cuda"):
        raise Body4DError(f"The published {PACKAGES[module].title} computes on an NVIDIA GPU only, and there is none here that torch can use.", INSTEAD,
                          "needs_cuda")
    return device


@contextlib.contextmanager
def running(module: str) -> Iterator[None]:
    """Inside, the published code runs: nothing it prints is heard, and what it raises is told as Body4DError `official_failed`, but for a lack of memory."""
    try:
        with silent():
            yield
    except Body4DError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise Body4DError(f"The published {PACKAGES[module].title} failed: {type(error).__name__}: {_line(error)}", INSTEAD, "official_failed") from error


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Standard output is for our own words; the published code prints a line or more for every frame."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]
