# SPDX-License-Identifier: Apache-2.0
"""take.json read with suspicion: a take may be damaged, or come from a stranger. numpy and the standard library only."""

import io
import json
import math
import re
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path, PurePosixPath

import numpy as np

from .errors import TakeError

SCHEMA = 2  # 1: every array of a person has a record of every sample; it is read as ever
MOST_BYTES = 256 << 20  # of one record
MOST_UNPACKED = 100 << 20  # of one whole file
MOST_PIXELS = 1 << 27  # of a frame
MOST = 1 << 40  # frames, records, bytes
TYPE_NAMES = {"<f4": "f32", "<f8": "f64", "|u1": "u8", "<u2": "u16", "<i4": "i32", "<i8": "i64"}
# What zipfile, zlib and numpy's reader of headers raise over damaged bytes.
DAMAGED = (KeyError, EOFError, NotImplementedError, RuntimeError, SyntaxError, TypeError, MemoryError, struct.error, zlib.error, tokenize.TokenError,
           zipfile.BadZipFile)
KINDS = {"format": str, "schema": int, "id": str, "clip": dict, "backend": str, "settings": dict, "seed": int, "people": list, "stages": dict,
         "working": dict | None}
CLIP_KINDS = {"name": str, "path": str | None, "fingerprint": str, "width": int, "height": int, "fps": list, "start": int, "end": int, "step": int}


def read_take_json(path: Path, repair: bool = False) -> dict:
    """The content of take.json, or of the one before where that is damaged; `repair`: which is then put away. Raises TakeError."""
    reasons = []
    for name in ("take.json", "take.json.bak"):
        try:
            text = (path / name).read_bytes()
            meta = json.loads(text)
            if re.search(rb"\\u[dD][89a-fA-F]", text):  # half a character could not be written again
                json.dumps(meta, ensure_ascii=False).encode()
            if meta["format"] != "body4d-take":
                raise ValueError("not a Body4D take")
            if isinstance(meta["schema"], int) and meta["schema"] > SCHEMA:
                raise TakeError(f"{path} was made by a newer Body4D (take schema {meta['schema']}, this one reads {SCHEMA}).",
                                "Update Body4D.", "take_too_new")
            check_meta(meta)
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            reasons.append(f"{name}: {str(error)[:200]}")
            continue
        if reasons and repair:  # or the next commit would keep the damaged one as the one before
            (path / "take.json").unlink(missing_ok=True)
        return meta
    raise TakeError(f"{path} is not a readable take ({'; '.join(reasons)}).",
                    "Delete the folder, or choose another, and run again.", "take_unreadable")


def check_meta(meta: dict) -> None:
    """Raises ValueError where something is not what every reader takes for granted."""
    _kinds(meta, KINDS, "it")
    _check_clip(meta["clip"])
    _check_people(meta["people"])
    for name, entry in meta["stages"].items():
        _check_entry(entry, f"the stage {name}")
    for name, entry in _dict(meta.get("earlier", {}), "earlier").items():
        _check_entry(entry, f"the stage {name} of before")
    if meta["working"] is not None:
        _check_entry(meta["working"], "the stage being written")
        _kinds(meta["working"], {"run": str, "cursor": dict | None}, "the stage being written")
        _check_people(meta["working"].get("people", []))


def _kinds(data, kinds: dict, where: str) -> None:
    if not isinstance(data, dict):
        raise ValueError(f"{where} is of the wrong kind")
    wrong = [key for key, kind in kinds.items() if not isinstance(data[key], kind) or isinstance(data[key], bool)]
    if wrong:
        raise ValueError(f"{', '.join(wrong)} of {where} is of the wrong kind")


def _dict(data, where: str) -> dict:
    if not isinstance(data, dict):
        raise ValueError(f"{where} is of the wrong kind")
    return data


def _number(value, low: float, high: float, whole: bool = True) -> bool:
    return isinstance(value, int if whole else int | float) and not isinstance(value, bool) and low <= value <= high  # nan is not


def _check_clip(clip: dict) -> None:
    _kinds(clip, CLIP_KINDS, "the clip")
    if not (_number(clip["width"], 1, MOST) and _number(clip["height"], 1, MOST) and clip["width"] * clip["height"] <= MOST_PIXELS):
        raise ValueError(f"a frame of {clip['width']} x {clip['height']} px")
    if not (0 <= clip["start"] < clip["end"] <= MOST and 1 <= clip["step"] <= MOST):
        raise ValueError(f"frames {clip['start']} to {clip['end']} step {clip['step']}")
    if len(clip["fps"]) != 2 or not all(_number(part, 1, MOST) for part in clip["fps"]):
        raise ValueError(f"{clip['fps']} frames per second")
    lists = {"shots": (int, clip.get("shots") or []), "proxy_reasons": (str, clip.get("proxy_reasons") or [])}
    for name, (kind, values) in lists.items():
        if not isinstance(values, list) or not all(isinstance(value, kind) for value in values):
            raise ValueError(f"{name} of the clip are of the wrong kind")
    if clip.get("proxy") is not None:
        _check_file(clip["proxy"])


def _check_people(people) -> None:
    for entry in people if isinstance(people, list) else [None]:
        _kinds(entry, {"id": int, "name": str, "color": list}, "a person")
        if not _number(entry["id"], 1, MOST) or len(entry["color"]) != 3 or not all(_number(part, 0, 1, False) for part in entry["color"]):
            raise ValueError("a person without a number or a colour")
        if not isinstance(entry.get("prompts", {}), dict) or not (entry.get("height_m") is None or _number(entry["height_m"], 0, 10, False)):
            raise ValueError("a person with odd prompts or height")
        said = entry.get("corrections", [])
        for one in said if isinstance(said, list) else [None]:
            _kinds(one, {"first_frame": int, "last_frame": int, "kind": str}, "a correction")
    if len({entry["id"] for entry in people}) < len(people):
        raise ValueError("two people of one number")


def _check_entry(entry, where: str) -> None:
    _kinds(entry, {"stage": str, "key": str, "seconds": int | float, "notices": list, "arrays": dict, "files": dict}, where)
    if not isinstance(entry.get("base", ""), str):
        raise ValueError(f"the base of {where} is of the wrong kind")
    _dict(entry.get("corrections", {}), f"what was corrected in {where}")
    if not math.isfinite(entry["seconds"]):
        raise ValueError(f"{where} took no time")
    for notice in entry["notices"]:
        _kinds(notice, {"stage": str, "code": str, "message": str}, f"a notice of {where}")
        if not all(notice.get(name) is None or _number(notice[name], -MOST, MOST) for name in ("person", "frame", "last_frame")):
            raise ValueError(f"a notice of {where} about nothing")
    for name, array in entry["arrays"].items():
        _kinds(array, {"file": str, "dtype": str, "shape": list, "count": int}, name)
        _check_file(array["file"])
        good = "/" in name and array["dtype"] in TYPE_NAMES and isinstance(array["pc2"], bool) and _number(array["count"], 0, MOST)
        good = good and len(array["shape"]) <= 8 and all(_number(side, 1, MOST) for side in array["shape"]) and _is_span(array.get("span", [0, 0]))
        if not good or math.prod(array["shape"]) * np.dtype(array["dtype"]).itemsize > MOST_BYTES or (array["pc2"] and len(array["shape"]) != 2):
            raise ValueError(f"{name} is described wrongly")
    for name, known in entry["files"].items():
        _check_file(name)
        _kinds(known, {"bytes": int, "sha256": str | None}, name)
        _check_file(known.get("file", name))
        if not _number(known["bytes"], 0, MOST):
            raise ValueError(f"{name} is described wrongly")


def _is_span(span) -> bool:
    return isinstance(span, list) and len(span) == 2 and all(_number(sample, 0, MOST) for sample in span) and span[0] <= span[1]


def _check_file(name) -> None:
    """Inside the take, whatever the system makes of it."""
    parts = PurePosixPath(name).parts if isinstance(name, str) else ()
    if not parts or name.startswith("/") or ".." in parts or re.search(r'[\\:<>"|?*\x00-\x1f\ud800-\udfff]', name) or len(name) > 200:
        raise ValueError(f"a file called {name!r:.60}")


def load_npz(path: Path, known: dict) -> dict[str, np.ndarray]:
    """The arrays of an .npz file that take.json describes. Raises OSError, and ValueError where it is damaged."""
    if path.stat().st_size != known["bytes"]:
        raise ValueError(f"{path.stat().st_size} bytes in place of {known['bytes']}")
    try:
        return dict(_members(path))
    except DAMAGED as error:
        raise ValueError(str(error)) from error


def _members(path: Path):
    left = MOST_UNPACKED
    with zipfile.ZipFile(path) as file:
        for member in file.infolist():
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{member.filename} is packed in an unknown way")
            with file.open(member) as data:
                content = data.read(left + 1)  # what the zip says of its size may be a lie
            left -= len(content)
            if left < 0:
                raise ValueError("it is far too large")
            stream = io.BytesIO(content)
            version = np.lib.format.read_magic(stream)
            read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read_header(stream)
            if dtype.hasobject or min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(content) - stream.tell():
                raise ValueError(f"{member.filename} is not of the size it says")
            stream.seek(0)
            yield member.filename.removesuffix(".npy"), np.lib.format.read_array(stream, allow_pickle=False)
