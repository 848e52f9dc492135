# SPDX-License-Identifier: Apache-2.0
"""The take: the folder that holds everything one run makes, safe against a crash at any byte.

Layout of NAME.take/:
    take.json           the only truth: clip, people, settings, and per stage its key, its arrays with their committed record counts and its
                        files with their checksums. Replaced atomically; the version before it stays as take.json.bak
    people/<id>/...     growing arrays of fixed-size little-endian records, `<name>.<mark>.<type>`, `mesh.<mark>.pc2` for vertices
    *.npz, proxy.mp4    whole files, written once; marked too where an older result has the plain name

Data is appended and synced first and committed afterwards, so whatever take.json counts is on disk. A reader trusts min(committed, file
size); a writer that goes on continues at the last commit. Each run of a stage marks its files, so nothing that a reader may have mapped is ever
overwritten; those that take.json does not name were replaced or left by a kill, and are swept away. This module needs numpy and the standard
library only: Blender imports it too.
"""

import os
import re
import shutil
import struct
import time
import uuid
from collections.abc import Iterable
from enum import IntEnum
from pathlib import Path

import numpy as np

from .disk import FileLock, acquire, fingerprint, sweep, sync_folder, write_json, write_whole, writing
from .errors import TakeError
from .masks import decode_mask, encode_mask
from .take_arrays import PC2_COUNT_OFFSET, PC2_HEADER, BySample, Earlier, by_sample, header_bytes, map_array, record_bytes
from .take_json import SCHEMA, TYPE_NAMES, load_npz, read_take_json

RESULT_STAGES = ("refine", "import", "recover")  # the best first
SPILL_BYTES = 32 << 20
EMPTY = {"take.json.tmp", "lock"}  # what a folder may hold that is no take yet


class State(IntEnum):
    """Of one person in one sample."""

    ABSENT = 0
    VISIBLE = 1
    OCCLUDED = 2
    FILLED = 3


def span_of(state: np.ndarray) -> tuple[int, int]:
    """[begin, stop) from the first to the last sample in which somebody is not absent, of state (T,); (0, 0) where there is none."""
    there = np.flatnonzero(np.asarray(state) != State.ABSENT)
    return (int(there[0]), int(there[-1]) + 1) if len(there) else (0, 0)


class Take:
    """One take folder. Sample i is clip frame `frames[i]`.

    A group is a folder of arrays inside the take ("people/1"). Arrays belong to the stage that wrote them.
    """

    def __init__(self, path: Path, meta: dict, lock: FileLock | None = None):
        self.path, self._meta, self._lock = path, meta, lock
        self._pending: dict[str, list[bytes]] = {}  # appended, not yet written
        self._spilled: dict[str, int] = {}  # records written, not yet committed
        self._begun = self._dropped = False  # whether the working stage is our own; whether a commit leaves files to sweep
        self._since = time.monotonic()

    # -- open and close -----------------------------------------------------------------------------------------------

    @classmethod
    def create(cls, path, clip: dict, backend: str, settings: dict | None = None, versions: dict | None = None, seed: int = 0) -> "Take":
        """Make a new take folder. `clip`: what Clip.describe() returns. Raises TakeError where the folder holds something else."""
        path = Path(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            strangers = [p.name for p in path.iterdir() if p.name not in EMPTY]
        except OSError as error:
            raise TakeError(f"The take folder {path} cannot be made: {error.strerror or error}.",
                            "Choose another --out, where you may write.", "take_not_writable") from error
        if strangers:
            raise TakeError(f"{path} exists and holds other files ({', '.join(sorted(strangers)[:3])}).",
                            "Choose another folder for the take.", "take_folder_in_use")
        name = path.stem if re.fullmatch(r"[0-9a-f]{32}", path.stem) else uuid.uuid4().hex  # the engine's own takes are called by their id
        meta = {"format": "body4d-take", "schema": SCHEMA, "id": name, "clip": dict(clip), "backend": backend,
                "settings": settings or {}, "versions": versions or {}, "seed": seed, "people": [], "stages": {}, "working": None}
        take = cls(path, meta, acquire(path))
        try:
            take.save()
        except TakeError:
            take.close()
            raise
        return take

    @classmethod
    def open(cls, path, writable: bool = False) -> "Take":
        """Open a take to read it, or (writable) to go on with it. Raises TakeError."""
        path = Path(path)
        if not path.is_dir():
            raise TakeError(f"There is no take at {path}.", "A take is a folder whose name ends in .take.", "take_missing")
        if not writable:
            return cls(path, read_take_json(path))
        lock = acquire(path)
        try:
            take = cls(path, read_take_json(path, repair=True), lock)
        except TakeError:
            lock.release()
            raise
        take._meta["schema"] = SCHEMA  # what is written from now on
        sweep(path, take._meta)
        return take

    @staticmethod
    def exists(path) -> bool:
        """Whether there is a take at path (readable or not)."""
        return any((Path(path) / name).exists() for name in ("take.json", "take.json.bak"))

    def close(self) -> None:
        """Let go of the writer's lock. What was not committed is forgotten."""
        self._pending.clear()
        self._spilled.clear()
        if self._lock:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> "Take":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def refresh(self) -> None:
        """Read take.json again, to see what a writer has committed since."""
        self._meta = read_take_json(self.path)

    # -- what the take says -------------------------------------------------------------------------------------------

    def to_json(self) -> dict:
        """The content of take.json."""
        return self._meta

    @property
    def id(self) -> str:
        return self._meta["id"]

    @property
    def clip(self) -> dict:
        return self._meta["clip"]

    @property
    def frames(self) -> range:
        """The clip frame of every sample."""
        clip = self.clip
        return range(clip["start"], clip["end"], clip["step"])

    @property
    def samples(self) -> int:
        return len(self.frames)

    @property
    def people(self) -> list[dict]:
        """While a stage looks for people anew, those whom the results are of."""
        return self._meta["people"] or (self.working or {}).get("people", [])

    @property
    def settings(self) -> dict:
        return self._meta["settings"]

    @property
    def backend(self) -> str:
        return self._meta["backend"]

    @property
    def seed(self) -> int:
        return self._meta["seed"]

    def describe(self, **changes) -> None:
        """Change top-level facts (settings, versions, backend, people, clip); they are written with the next commit or `save`."""
        unknown = set(changes) - {"settings", "versions", "backend", "people", "clip"}
        if unknown:
            raise KeyError(f"a take has no {sorted(unknown)}")
        self._meta.update(changes)

    def set_people(self, people: list[dict]) -> None:
        """Name the people of the take: dicts with id, name, color, prompts, height_m. Written with the next commit; those that a stage names
        replace earlier ones when it is finished, together with its arrays."""
        (self.working if self._begun else self._meta)["people"] = people

    def stage(self, name: str) -> dict | None:
        """The completed stage of that name (key, seconds, notices, arrays, files), or None."""
        return self._meta["stages"].get(name)

    @property
    def working(self) -> dict | None:
        """The stage that is being written or was cut short, with `stage`, `key`, `cursor`; or None."""
        return self._meta["working"]

    def notices(self) -> list[dict]:
        """All notices of all stages, in stage order."""
        shown = [entry for entry in self.entries() if entry is not self.working or entry["stage"] not in self._meta["stages"]]
        return [notice for entry in shown for notice in entry["notices"]]

    def entries(self) -> list[dict]:
        """The entries of all stages, the one being written last."""
        return [*self._meta["stages"].values(), *filter(None, [self.working])]

    # -- writing ------------------------------------------------------------------------------------------------------

    def is_complete(self, stage: str, key: str) -> bool:
        """Whether the stage was completed under this key and all its data is still there, undamaged."""
        entry = self.stage(stage)
        return entry is not None and entry["key"] == key and self._intact(entry)

    def begin(self, stage: str, key: str, base: str | None = None, corrections: dict[str, list] | None = None) -> dict | None:
        """Start to write a stage. Returns the cursor of its last commit to go on from, or None to start from nothing.

        A stage already complete keeps its data until `finish`, so that readers have something to show meanwhile. base: the key that it would have
        without the people's corrections, by person id; see `earlier`.
        """
        self._pending.clear()
        self._spilled.clear()
        self._since = time.monotonic()
        self._begun, working = True, self.working
        if working and working["stage"] == stage and working["key"] == key and working["cursor"] is not None and self._intact(working):
            return working["cursor"]
        self._meta["working"] = {"stage": stage, "key": key, "run": uuid.uuid4().hex[:4], "cursor": None, "seconds": 0.0,
                                 "notices": [], "arrays": {}, "files": {}, "base": key if base is None else base, "corrections": corrections or {}}
        self.save()
        sweep(self.path, self._meta)
        return None

    def create_array(self, group: str, name: str, dtype, shape: tuple[int, ...], pc2: bool = False, span: tuple[int, int] | None = None) -> None:
        """Declare a growing array of records (*shape,) in the stage being written. Does nothing where it exists (resume).

        span: [begin, stop) of the samples that the records will be of, see `by_sample`; None where these are all, or where they are no samples.
        """
        arrays = self._meta["working"]["arrays"]
        if f"{group}/{name}" in arrays:
            return
        dtype = np.dtype(dtype).newbyteorder("<")
        file = f"{group}/mesh.{self._mark}.pc2" if pc2 else f"{group}/{name}.{self._mark}.{TYPE_NAMES[dtype.str]}"
        arrays[f"{group}/{name}"] = {"file": file, "dtype": dtype.str, "shape": list(shape), "count": 0, "pc2": pc2,
                                      **({} if span is None else {"span": [int(sample) for sample in span]})}

    @property
    def _mark(self) -> str:
        return f"{self.working['key'][:8]}{self.working['run']}"

    def append(self, group: str, name: str, records: np.ndarray) -> None:
        """Add records (n, *shape). Readers see them after the next commit."""
        array = self.working["arrays"][f"{group}/{name}"]
        records = np.ascontiguousarray(records, dtype=array["dtype"])
        if list(records.shape[1:]) != array["shape"]:
            raise ValueError(f"{group}/{name} takes records of shape {array['shape']}, not {list(records.shape[1:])}")
        pending = self._pending.setdefault(f"{group}/{name}", [])
        pending.append(records.tobytes())
        if sum(map(len, pending)) > SPILL_BYTES:
            self._write(f"{group}/{name}", array)

    def count(self, group: str, name: str, stage: str | None = None) -> int:
        """Records that the array holds; of the stage being written those not yet committed are counted too."""
        own = self._begun and stage in (None, self.working["stage"])
        entry = self.working["arrays"].get(f"{group}/{name}") if own else None
        if entry is None:
            entry = self._find(group, name, stage)
            return entry["count"] if entry else 0
        waiting = sum(map(len, self._pending.get(f"{group}/{name}", ()))) // record_bytes(entry)
        return entry["count"] + self._spilled.get(f"{group}/{name}", 0) + waiting

    def append_mask(self, group: str, mask: np.ndarray | None) -> None:
        """Add one sample's mask (H, W) bool, or None for an empty one, to the group's masks."""
        self.create_array(group, "mask_bytes", "u1", ())
        self.create_array(group, "mask_index", "i8", (6,))
        data, (x, y, w, h) = encode_mask(mask)
        self.append(group, "mask_index", np.array([[self.count(group, "mask_bytes"), len(data), x, y, w, h]]))
        self.append(group, "mask_bytes", np.frombuffer(data, np.uint8))

    def write_npz(self, name: str, **arrays: np.ndarray) -> None:
        """Write a whole .npz file atomically; it counts from the next commit on. Overwrites what this run of the stage wrote before."""
        taken = {known.get("file", other) for entry in self._meta["stages"].values() for other, known in entry["files"].items()}
        file = f"{name.removesuffix('.npz')}.{self._mark}.npz" if name in taken else name
        write_whole(self.path / file, lambda target: np.savez_compressed(target, **arrays))
        self.working["files"][name] = {**fingerprint(self.path / file), **({"file": file} if file != name else {})}

    def add_file(self, name: str) -> None:
        """Register a whole file, already written inside the take under that name, as a part of the stage being written."""
        self._meta["working"]["files"][name] = fingerprint(self.path / name)

    def notice(self, notice) -> None:
        """Keep a Notice (or its JSON dict) in the stage being written; on disk with the next commit."""
        self._meta["working"]["notices"].append(notice if isinstance(notice, dict) else notice.to_json())

    def drop_group(self, group: str) -> None:
        """Forget all arrays of the group in the stage being written; their files go with the next commit."""
        arrays = self._meta["working"]["arrays"]
        for name in [n for n in arrays if n.startswith(group + "/")]:
            del arrays[name]
            self._pending.pop(name, None)
            self._spilled.pop(name, None)
            self._dropped = True

    def commit(self, cursor: dict | None = None) -> None:
        """Make everything appended so far permanent, together with the cursor from which the stage can go on."""
        self._flush()
        self.working["cursor"] = {} if cursor is None else cursor
        self.save()
        if self._dropped:
            sweep(self.path, self._meta)
        self._dropped = False

    def earlier(self, stage: str) -> "Earlier | None":
        """What an earlier run of the stage that is being written left, undamaged, where it differs in nothing but the people's corrections."""
        found = [known for known in (self._meta["stages"].get(stage), self._meta.get("earlier", {}).get(stage))
                 if known is not None and base_of(known) == base_of(self.working) and self._intact(known)]
        return Earlier(self.path, found[0], self.samples) if found else None

    def finish(self, outdated: Iterable[str] = (), bases: dict[str, str] | None = None) -> dict:
        """Make everything appended permanent and declare the stage complete, in one instant with which data of an older run of it and of the
        stages `outdated` is gone; but what has its base still (see `begin`) in `bases`, by stage, is set aside for `earlier`. Returns its entry."""
        self._flush()
        entry = self.working
        del entry["cursor"]
        self._meta["people"] = entry.pop("people", self._meta["people"])
        aside = self._meta.pop("earlier", {})
        aside.update({name: self._meta["stages"].pop(name) for name in outdated if name in self._meta["stages"]})
        aside = {name: known for name, known in aside.items() if name != entry["stage"] and base_of(known) == (bases or {}).get(name)}
        if aside:
            self._meta["earlier"] = aside
        self._meta["stages"][entry["stage"]] = entry
        self.discard()
        return entry

    def discard(self) -> None:
        """Forget a stage that was cut short."""
        self._meta["working"], self._begun, self._dropped = None, False, False
        self.save()
        sweep(self.path, self._meta)

    def save(self) -> None:
        """Write take.json."""
        write_json(self.path / "take.json", self._meta)

    def _flush(self) -> None:
        """Bring all that was appended to the disk, and count it."""
        for name, array in self.working["arrays"].items():
            if self._pending.get(name) or self._spilled.get(name):
                self._write(name, array, sync=True)
                array["count"] += self._spilled.pop(name)
        now = time.monotonic()
        self.working["seconds"] += now - self._since
        self._since = now

    def _write(self, name: str, array: dict, sync: bool = False) -> None:
        path, size = self.path / array["file"], record_bytes(array)
        data = b"".join(self._pending.pop(name, []))
        start = array["count"] + self._spilled.get(name, 0)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            new = not path.exists()
            with open(path, "w+b" if new else "r+b") as file:
                if array["pc2"] and start == 0:
                    file.write(PC2_HEADER.pack(b"POINTCACHE2\0", 1, array["shape"][0], 0.0, 1.0, 0))
                file.seek(header_bytes(array) + start * size)
                file.write(data)
                file.flush()
                if array["pc2"] and sync:  # after the data, so that the count which Blender reads is never ahead of it
                    file.seek(PC2_COUNT_OFFSET)
                    file.write(struct.pack("<i", start + len(data) // size))
                    file.flush()
                if sync:
                    os.fsync(file.fileno())
            if new:
                sync_folder(path.parent)
        self._spilled[name] = start - array["count"] + len(data) // size

    def _intact(self, entry: dict) -> bool:
        for array in entry["arrays"].values():
            file = self.path / array["file"]
            needed = header_bytes(array) + array["count"] * record_bytes(array)
            if array["count"] and (not file.is_file() or file.stat().st_size < needed):
                return False
        for name, known in entry["files"].items():
            file = self.path / known.get("file", name)  # where it could not have its plain name
            if not file.is_file() or not fingerprint(file).items() <= known.items():
                return False
        return True

    # -- reading ------------------------------------------------------------------------------------------------------

    def _entries(self, stage: str | None) -> list[dict]:
        """Where to look for something: in the stage of that name, our own before a completed one; without a name in the best completed result,
        then in what is being written for the first time, then in the other stages."""
        stages, working = self._meta["stages"], self.working
        if stage is not None:
            own = working is not None and working["stage"] == stage and (self._begun or stage not in stages)
            return [working] if own else [stages[stage]] if stage in stages else []
        first = working is not None and working["stage"] not in stages
        others = [entry for s, entry in stages.items() if s not in RESULT_STAGES]
        return [*(stages[s] for s in RESULT_STAGES if s in stages), *([working] if first else []), *reversed(others)]

    def _find(self, group: str, name: str, stage: str | None) -> dict | None:
        return next((entry["arrays"][f"{group}/{name}"] for entry in self._entries(stage) if f"{group}/{name}" in entry["arrays"]), None)

    def has(self, group: str, name: str, stage: str | None = None) -> bool:
        return self._find(group, name, stage) is not None

    def file_of(self, group: str, name: str, stage: str | None = None) -> Path | None:
        """The file that holds an array, such as the .pc2 of a person's vertices."""
        array = self._find(group, name, stage)
        return self.path / array["file"] if array else None

    def read(self, group: str, name: str, stage: str | None = None) -> np.ndarray:
        """The committed records (n, *shape) of an array, mapped read-only: of the first samples, but see `by_sample`. Raises TakeError where there
        is none."""
        return map_array(self.path, self._array(group, name, stage))

    def by_sample(self, group: str, name: str, stage: str | None = None) -> BySample:
        """An array of a person by sample: a result has records only from where the person is first seen to where they are last. Raises TakeError
        where there is none."""
        return by_sample(self.path, self._array(group, name, stage), name, self.samples)

    def _array(self, group: str, name: str, stage: str | None) -> dict:
        array = self._find(group, name, stage)
        if array is None:
            raise TakeError(f"The take {self.path.name} has no {name} for {group}.", "Run it again to complete it.", "take_incomplete")
        return array

    def read_npz(self, name: str) -> dict[str, np.ndarray]:
        """The arrays of a whole file. Raises TakeError where it is missing or damaged."""
        entries = [*([self.working] if self._begun else []), *self.entries()]
        known = next((entry["files"][name] for entry in entries if name in entry["files"]), None)
        try:
            if known is None:
                raise ValueError("no stage has written it")
            return load_npz(self.path / known.get("file", name), known)
        except (OSError, ValueError) as error:
            raise TakeError(f"{name} of the take {self.path.name} is missing or damaged ({error}).",
                            "Run it again: only the damaged part is made anew.", "take_damaged") from error

    def camera(self) -> dict[str, np.ndarray]:
        """focal_px (T,), principal_px (T, 2), method (estimated, metadata, user, assumed), note."""
        return self.read_npz("camera.npz")

    def result_stage(self, person: int) -> str | None:
        """Which stage a reader gets a person's meshes from: refine, recover or import; None before there are any."""
        for stage in RESULT_STAGES:
            if self.stage(stage) and self.has(f"people/{person}", "vertices", stage):
                return stage
        return self.working["stage"] if self.working and f"people/{person}/vertices" in self.working["arrays"] else None

    def body(self, person: int) -> dict[str, np.ndarray]:
        """The person's body model: faces (F, 3) and whatever else its stage knew (see `docs/take.md`)."""
        return self.read_npz(f"people/{person}/body.{self.result_stage(person)}.npz")

    def mask(self, person: int, sample: int, stage: str | None = None) -> np.ndarray:
        """One sample's mask (H, W) bool. Raises TakeError where it is missing or damaged."""
        group = f"people/{person}"
        try:
            offset, length, *box = (int(v) for v in self.read(group, "mask_index", stage)[sample])
            data = self.read(group, "mask_bytes", stage)[offset : offset + length].tobytes()
            return decode_mask(data, box, self.clip["height"], self.clip["width"])
        except (IndexError, TypeError, ValueError) as error:
            raise TakeError(f"The mask of person {person} in sample {sample} of the take {self.path.name} is missing or damaged ({error}).",
                            "Run it again: only the damaged part is made anew.", "take_damaged") from error


def base_of(entry: dict) -> str:
    """The key that a stage's entry would have without corrections."""
    return entry.get("base", entry["key"])


def delete_take(path) -> None:
    """Delete a take folder, if it is there. take.json goes last, so that what is left by a kill is still a take. Raises TakeError for a folder
    that holds no take, and where somebody writes it."""
    path = Path(path)
    if not path.exists():
        return
    if not path.is_dir() or (not Take.exists(path) and any(p.name not in EMPTY for p in path.iterdir())):
        raise TakeError(f"{path} is not a take, so it was not deleted.", "Delete it yourself if you want it gone.", "take_unreadable")
    lock = acquire(path)
    try:
        last = [path / "take.json.bak", path / "take.json"]
        for child in [p for p in path.iterdir() if p not in (*last, lock.path)]:
            shutil.rmtree(child) if child.is_dir() and not child.is_symlink() else child.unlink()
        for file in last:
            file.unlink(missing_ok=True)
        lock.release()
        shutil.rmtree(path)
    except OSError as error:
        raise TakeError(f"The take {path} could not be deleted: {error.strerror or error} ({error.filename}).",
                        "Close what has it open, such as Blender, and try again.", "take_in_use") from error
    finally:
        lock.release()
