# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo clip: two people, 230 frames, from the package sports2d (BSD-3-Clause). Downloaded once and checked. No bpy."""

import hashlib
import os
import re
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from pathlib import Path
from typing import Callable

from body4d_engine.errors import Body4DError

INDEX = "https://pypi.org/simple/sports2d/"
WHEEL_SHA256 = "733b6db70742636ae9c35d870c22bd416582f579abd5881bee93a14bb0e2655d"  # sports2d 0.8.34
INSIDE = "Sports2D/Demo/demo.mp4"
CLIP_SHA256 = "d9a66417185647b112304b57093f0c180f37a768e6a14daca75ca541f3b78039"
NAME = "body4d_demo.mp4"
MEGABYTES = 9
TIMEOUT_S = 30
BLOCK = 1 << 16


def fetch(folder: Path, watch: Callable[[float], None] = lambda fraction: None) -> Path:
    """The demo clip in this folder, downloaded unless it is there. `watch` is called with how much is done, 0 to 1, and may raise to stop that.

    Raises Body4DError.
    """
    clip = Path(folder) / NAME
    try:
        if clip.is_file() and _sha256(clip.read_bytes()) == CLIP_SHA256:
            return clip
        with tempfile.TemporaryDirectory(dir=folder) as work:
            wheel = Path(work) / "sports2d.whl"
            _download(wheel, watch)
            with zipfile.ZipFile(wheel) as archive:
                data = archive.read(INSIDE)
            if _sha256(data) != CLIP_SHA256:
                raise Body4DError("The demo clip that was downloaded is not the expected one.", "Choose a clip of your own instead.", "demo_damaged")
            (Path(work) / NAME).write_bytes(data)
            os.replace(Path(work) / NAME, clip)
    except (urllib.error.URLError, TimeoutError) as error:
        raise Body4DError(f"The demo clip cannot be downloaded: {getattr(error, 'reason', None) or error}.", "Check the network, or choose a clip of your own.",
                          "no_network") from error
    except OSError as error:
        raise Body4DError(f"The demo clip cannot be kept in {folder}: {error.strerror or error}.", "Choose a clip of your own instead.", "disk") from error
    return clip


def _download(target: Path, watch: Callable[[float], None]) -> None:
    """The wheel with this checksum, whatever its address is today."""
    with urllib.request.urlopen(INDEX, timeout=TIMEOUT_S) as page:
        link = re.search(rf'href="([^"#]+)#sha256={WHEEL_SHA256}"', page.read().decode("utf-8", "replace"))
    if link is None:
        raise Body4DError(f"The demo clip is no longer offered at {INDEX}.", "Choose a clip of your own instead.", "demo_gone")
    digest = hashlib.sha256()
    with urllib.request.urlopen(urllib.parse.urljoin(INDEX, link[1]), timeout=TIMEOUT_S) as source, open(target, "wb") as file:
        size, done = int(source.headers.get("Content-Length") or MEGABYTES << 20), 0
        while block := source.read(BLOCK):
            digest.update(block)
            file.write(block)
            done += len(block)
            watch(min(1.0, done / size))
    if digest.hexdigest() != WHEEL_SHA256:
        raise Body4DError("The demo clip arrived damaged.", "Try again.", "demo_damaged")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
