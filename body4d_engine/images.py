# SPDX-License-Identifier: Apache-2.0
"""A folder of images as a clip: one file, one frame, in the order a person would put them."""

import re
import struct
from collections import OrderedDict
from pathlib import Path

import cv2
import numpy as np

from .clip_files import SUFFIXES, image_files
from .errors import Body4DError
from .pixels import over_black

_KEEP = 4
_ORIENTATION, _EXIF_FOLDER, _FOCAL_35MM = 0x0112, 0x8769, 0xA405


class ImageFolder:
    """The images of a folder, numbered from 0 in natural order of their names.

    gaps: (number of the image after the gap, first missing, last missing) for names that count with holes.
    """

    def __init__(self, path: Path):
        self.path = path
        self.files = image_files(path)
        if not self.files:
            raise Body4DError(f"The folder {path} holds no images.", f"Give a video, or a folder of {', '.join(s[1:] for s in SUFFIXES)} files.",
                              "no_images")
        self.size = self._check_sizes()
        self.gaps = _gaps([p.stem for p in self.files])
        self.exif = read_exif(self.files[0])
        self._cache: OrderedDict[int, np.ndarray] = OrderedDict()

    def __len__(self) -> int:
        return len(self.files)

    def _check_sizes(self) -> tuple[int, int]:
        """The common (width, height) px, from the headers alone."""
        sizes = [image_size(p) for p in self.files]
        for file, size in zip(self.files, sizes):
            if size != sizes[0]:
                raise Body4DError(f"The images of {self.path} differ in size: {file.name} is {size[0]} x {size[1]}, "
                                  f"{self.files[0].name} is {sizes[0][0]} x {sizes[0][1]}.", "Make them all the same size, or move the odd ones away.", "mixed_sizes")
        return sizes[0]

    def picture(self, number: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB, upright, read-only."""
        if number not in self._cache:
            pixels = read_image(self.files[number])
            if pixels.shape[1::-1] != self.size:
                raise Body4DError(f"{self.files[number]} has changed its size while it was in use.", "Start again.", "mixed_sizes")
            pixels.flags.writeable = False
            self._cache[number] = pixels
            while len(self._cache) > _KEEP:
                self._cache.popitem(last=False)
        return self._cache[number]


def read_image(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB, turned as its EXIF orientation says; 16 bit is scaled down, transparency laid over black."""
    try:
        pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED) if path.stat().st_size else None
    except cv2.error:  # a header that promises an impossible picture
        pixels = None
    if pixels is None:
        raise Body4DError(f"The image {path} cannot be read.", "It is damaged or not what its name says: replace it or take it out of the folder.", "unreadable_image")
    if pixels.dtype == np.uint16:
        pixels = (pixels / 257 + 0.5).astype(np.uint8)
    elif pixels.dtype != np.uint8:
        pixels = (np.clip(pixels, 0, 1) * 255 + 0.5).astype(np.uint8)
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        pixels = np.repeat(pixels.reshape(*pixels.shape[:2], 1), 3, axis=2)
    elif pixels.shape[2] == 4:
        pixels = over_black(cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA))
    else:
        pixels = pixels[..., ::-1]
    return np.ascontiguousarray(turn_by_orientation(pixels, read_exif(path).get(_ORIENTATION, 1)))


def turn_by_orientation(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Apply an EXIF orientation 1..8 to an (H, W, ...) array."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


def image_size(path: Path) -> tuple[int, int]:
    """Upright (width, height) px. Read from the header for png and jpeg, by decoding otherwise."""
    with open(path, "rb") as file:
        head = file.read(26)
        if head[:8] == b"\x89PNG\r\n\x1a\n" and len(head) >= 24:
            size = struct.unpack(">II", head[16:24])
        elif head[:2] == b"\xff\xd8":
            size = _jpeg_size(file)
        else:
            size = None
    if size is None:
        height, width = read_image(path).shape[:2]
        return width, height
    return size[::-1] if read_exif(path).get(_ORIENTATION, 1) >= 5 else size


def _jpeg_size(file) -> tuple[int, int] | None:
    file.seek(2)
    while True:
        marker = file.read(4)
        if len(marker) < 4 or marker[0] != 0xFF:
            return None
        if 0xC0 <= marker[1] <= 0xCF and marker[1] not in (0xC4, 0xC8, 0xCC):
            frame = file.read(5)
            return struct.unpack(">xHH", frame)[::-1] if len(frame) == 5 else None
        file.seek(struct.unpack(">H", marker[2:])[0] - 2, 1)


def read_exif(path: Path) -> dict[int, int]:
    """The whole-number EXIF tags of an image (main and Exif folder); empty where there are none or they are damaged."""
    with open(path, "rb") as file:
        head = file.read(256 << 10)
    for mark in (b"Exif\0\0", b"eXIf", b"EXIF"):
        at = head.find(mark)
        if at >= 0:
            start = at + (8 if mark == b"EXIF" else len(mark))
            return _tiff_tags(head[start:])
    return {}


def _tiff_tags(data: bytes) -> dict[int, int]:
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    tags: dict[int, int] = {}
    folders = [struct.unpack_from(order + "I", data, 4)[0]] if order and len(data) >= 8 else []
    try:
        while folders:
            at = folders.pop()
            for entry in range(struct.unpack_from(order + "H", data, at)[0]):
                tag, kind, count = struct.unpack_from(order + "HHI", data, at + 2 + 12 * entry)
                if kind in (3, 4) and count == 1:
                    tags[tag] = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, at + 10 + 12 * entry)[0]
            if _EXIF_FOLDER in tags and not tags.get(-1):
                tags[-1] = 1  # the Exif folder is read once, whatever a damaged file says
                folders.append(tags[_EXIF_FOLDER])
    except struct.error:
        return {}
    return tags


def _gaps(stems: list[str]) -> list[tuple[int, int, int]]:
    """Holes in the last number of the names, as (index of the name after the hole, first missing, last missing)."""
    numbers = [re.findall(r"\d+", stem) for stem in stems]
    if not all(numbers):
        return []
    last = [int(found[-1]) for found in numbers]
    return [(i, a + 1, b - 1) for i, (a, b) in enumerate(zip(last, last[1:]), 1) if b - a > 1]
