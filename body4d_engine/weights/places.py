# SPDX-License-Identifier: Apache-2.0
"""Where weights lie: the weights folder of the user, and the cache of huggingface_hub. Reads folders only; opens no file but the cache's references.

Three layouts are known:

    named   FOLDER/sam3/sam3.pt, FOLDER/sam-3d-body-dinov3/model.ckpt, ...: the checkpoint folder of SAM-Body4D's README, and what `body4d setup` writes
    flat    FOLDER/sam3.pt, FOLDER/model.ckpt, FOLDER/mhr_model.pt, ...: as a browser leaves them; a name that several repositories use counts for the
            one whose file has that size
    cache   FOLDER/models--facebook--sam3/snapshots/...: huggingface_hub's
"""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import Body4DError
from .catalogue import CATALOGUE, File, Weights

VARIABLE = "BODY4D_WEIGHTS"


@dataclass(frozen=True)
class Located:
    """What is there of some weights. `files`: by their names in the repository; they may lie in several places. `missing`: those that are needed and are
    not there. `short`: those whose size is not the published one: cut short, as a rule. `layout`: of the checkpoint, '' where it is not there."""

    weights: Weights
    files: dict[str, Path] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    short: tuple[str, ...] = ()
    layout: str = ""

    @property
    def whole(self) -> bool:
        """Whether everything needed is there at its full size; whether it is sound is another question (`verifying`)."""
        return not self.missing and not self.short

    @property
    def checkpoint(self) -> Path | None:
        """The file of the network itself, in whichever form it is there; its folder is what the loaders take."""
        names = [self.weights.files[0].name, *(names[0] for names in self.weights.instead)]
        return next((self.files[name] for name in names if name in self.files), None)

    @property
    def folder(self) -> Path:
        """Where the checkpoint lies. Raises Body4DError where there is none."""
        return self.path(self.weights.files[0].name).parent if self.checkpoint is None else self.checkpoint.parent

    def path(self, name: str) -> Path:
        """The file of that name in the repository. Raises Body4DError where it is not there."""
        if name not in self.files:
            raise Body4DError(f"{self.weights.title} is not on this machine: {name} is missing.", "Run `body4d setup full`, which fetches what is missing; or "
                              f"name the folder that has it: {VARIABLE}=FOLDER.", "weights_missing")
        return self.files[name]


def settings_folder() -> Path:
    """Where this program keeps what it remembers of a user."""
    if os.name == "nt":
        base = os.environ.get("APPDATA") or Path.home() / "AppData" / "Roaming"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "body4d"


def hub_home() -> Path:
    """The folder of huggingface_hub, by the same variables that it reads."""
    home = os.environ.get("HF_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    return Path(os.path.expandvars(home)).expanduser()


def hub_cache() -> Path:
    """Its cache."""
    cache = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    return Path(os.path.expandvars(cache)).expanduser() if cache else hub_home() / "hub"


def weights_folder(given: str | Path | None = None) -> Path | None:
    """The folder named now, else by BODY4D_WEIGHTS, else the one that setup was last given; None where weights are kept in the hub's cache."""
    for folder in (given, os.environ.get(VARIABLE)):
        if folder:
            return Path(folder).expanduser().absolute()
    try:
        remembered = _memory().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return Path(remembered) if remembered else None


def remember(folder: Path) -> None:
    """Keep `folder` as the weights folder of later runs."""
    try:
        _memory().parent.mkdir(parents=True, exist_ok=True)
        _memory().write_text(str(folder), encoding="utf-8")
    except OSError as error:
        raise Body4DError(f"{_memory()} cannot be written: {error.strerror}.", f"Set {VARIABLE}={folder} instead.", "not_writable") from error


def locate(name: str, folder: str | Path | None = None) -> Located:
    """What is there of the weights of that name in the catalogue, in the weights folder (see `weights_folder`) and in the hub's cache.

    Of several copies of a file the first of full size counts: named before cached before flat, the weights folder before the hub's cache.
    """
    weights = CATALOGUE[name]
    chosen = weights_folder(folder)
    names = [file.name for file in weights.files] + [name for names in weights.instead for name in names]
    found: dict[str, list[tuple[str, Path]]] = {name: [] for name in names}
    for layout, root in _roots(weights, chosen):
        for name in names:
            if (root / name).is_file():
                found[name].append((layout, root / name))
    for file in weights.files if chosen else ():
        if _lies_flat(file, weights, chosen / _flat(file)):
            found[file.name].append(("flat", chosen / _flat(file)))
    sizes = {file.name: file.bytes for file in weights.files}
    best = {name: min(copies, key=lambda copy: _is_short(copy[1], sizes.get(name))) for name, copies in found.items() if copies}  # of equals the first
    files = {name: path for name, (_, path) in best.items()}
    other_form = any(all(name in files for name in names) for names in weights.instead)
    needed = [] if other_form else [file for file in weights.files if file.needed]
    located = Located(weights, files, tuple(file.name for file in needed if file.name not in files),
                      tuple(file.name for file in needed if file.name in files and _is_short(files[file.name], file.bytes)))
    layout = next((layout for layout, path in best.values() if path == located.checkpoint), "")
    return replace(located, layout=layout)


def _roots(weights: Weights, chosen: Path | None) -> Iterator[tuple[str, Path]]:
    """Folders that a repository's files may lie in, the likeliest first."""
    if chosen:
        yield "named", chosen / weights.name
    for cache in dict.fromkeys(filter(None, (chosen, hub_cache()))):
        repository = cache / f"models--{weights.repository.replace('/', '--')}"
        try:
            main = (repository / "refs" / "main").read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            main = ""
        for folder in sorted(repository.glob("snapshots/*"), key=lambda folder: (folder.name != main, -folder.stat().st_mtime)):
            yield "cache", folder


def _flat(file: File) -> str:
    return file.name.rsplit("/", 1)[-1]


def _lies_flat(file: File, weights: Weights, path: Path) -> bool:
    others = [other for one in CATALOGUE.values() if one is not weights for other in one.files if _flat(other) == path.name]
    return path.is_file() and (all(other == file for other in others) or not _is_short(path, file.bytes))


def _is_short(path: Path, published: int | None) -> bool:
    from .verifying import replaced

    return published is not None and path.stat().st_size != published and not replaced().has(path)


def _memory() -> Path:
    return settings_folder() / "weights_folder.txt"
