# SPDX-License-Identifier: Apache-2.0
"""A take in other forms, without Blender: layout name -> function(take, clip, out, **options) -> Iterator[Event]."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

from ..clip import Clip, open_clip
from ..errors import Body4DError
from ..events import Event, Notice
from ..render.overlay import write_overlay
from ..take import Take
from .report import write_report
from .sam_body4d import write_sam_body4d

LAYOUTS = {"overlay": write_overlay, "report": write_report, "sam-body4d": write_sam_body4d}


def export(take: Take, layout: str, out, clip_path=None, **options) -> Iterator[Event]:
    """Write the take in a layout to `out`. `clip_path`: where the footage is now, if it was moved. Raises Body4DError.

    Options: `parts` (sam-body4d) chooses what to write, see `sam_body4d.PARTS`.
    """
    if layout not in LAYOUTS:
        raise Body4DError(f"There is no layout called {layout}.", f"Choose one of: {', '.join(LAYOUTS)}.", "no_layout")
    clip = footage(take, clip_path)
    if clip is None:
        yield Notice("export", "no_footage", "The take knows no footage, so its people are shown without it. Give --clip to show it.")
    elif take.clip["path"] is not None and clip.fingerprint != take.clip["fingerprint"]:
        yield Notice("export", "clip_differs", f"{clip.path} has the size of the clip that {take.path.name} was made of, but another content: people "
                     " may not lie on the picture.")
    try:
        yield from LAYOUTS[layout](take, clip, Path(out), **options)
    finally:
        if clip is not None:
            clip.close()


def footage(take: Take, clip_path=None) -> Clip | None:
    """The take's clip, opened over its range; None for a take that has none. Raises Body4DError where it is gone or another one."""
    info = take.clip
    if clip_path is None and info["path"] is None:
        return None
    path = Path(clip_path or info["path"])
    if clip_path is None and not path.exists():
        path = take.path.parent / info["name"]  # the take was moved together with it
    if not path.exists():
        raise Body4DError(f"The clip of {take.path.name} is no longer at {info['path'] if clip_path is None else path}.",
                          "Give its place with --clip.", "clip_missing")
    clip = open_clip(path, image_fps=Fraction(*info["fps"]) if path.is_dir() else None)
    if (clip.width, clip.height) != (info["width"], info["height"]) or clip.frame_count < info["end"]:
        raise Body4DError(f"{path} is not the clip of {take.path.name}: it has {clip.frame_count} frames of {clip.width} x {clip.height} px, the take was "
                          f"made of {info['frame_count']} of {info['width']} x {info['height']} px.", "Give the right one with --clip.", "clip_changed")
    clip.use(info["start"], info["end"], info["step"])
    return clip
