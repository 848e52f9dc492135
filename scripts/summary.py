# SPDX-License-Identifier: Apache-2.0
"""What convert.py says about a video in the end. Standard library only."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Dict, List, Optional

from setup_env import size_bytes, size_text, time_text

STATES = ("visible", "occluded", "filled", "absent")
NOTES_OF_A_KIND = 3
ASSUMED_FOCAL = "The focal length is assumed"


def summary_text(summary: dict, extra: Dict[str, float], notes: List[str], files: List[Path], seconds: float) -> str:
    """A summary as `body4d run --summary-json` writes it, as lines a person reads.

    extra: seconds per frame of the steps that followed; notes: what they had to say; seconds: all of it.
    """
    lines = ["Done in %s." % time_text(seconds)]
    people = summary.get("people", [])
    width = max([len(str(person["name"])) for person in people] + [8])
    lines.append("  People" if people else "  People    nobody was found")
    for person in people:
        lines.append("    %-*s  %s" % (width, person["name"], ", ".join("%s %d" % (state, person.get(state, 0)) for state in STATES)))
    focal = summary.get("focal") or {}
    if focal:
        note = (focal.get("note") or "").strip().rstrip(".")
        lines.append("  Focal     %.0f px, %s%s" % (focal["px"], focal["method"], " (%s)" % note if note else ""))
    per_stage = {**summary.get("seconds_per_frame", {}), **extra}
    lines.append("  Speed     %d frames, %.3f s per frame: %s" % (summary.get("frames", 0), sum(per_stage.values()),
                                                                  ", ".join("%s %.3f" % pair for pair in per_stage.items())))
    proxy = summary.get("proxy")
    if proxy:
        lines.append("  Clip      Blender shows an upright copy of it, %s: %s" % (proxy.get("file", "proxy.mp4"), "; ".join(proxy.get("reasons", []))))
    said = []
    for line in notice_lines(summary.get("notices", [])) + notes:
        if not (line.startswith(ASSUMED_FOCAL) and any(known.startswith(ASSUMED_FOCAL) for known in said)):  # engine and scene both say so
            said.append(line)
    lines += ["  %-9s %s" % ("Notes" if not index else "", line) for index, line in enumerate(said)]
    for index, path in enumerate(files):
        size = size_bytes(path) if path.is_dir() else path.stat().st_size
        lines.append("  %-9s %s  (%s)" % ("Files" if not index else "", path, size_text(size)))
    return "\n".join(lines)


def notice_lines(notices: List[dict]) -> List[str]:
    """One line each, a few of every kind, and how many more there were."""
    lines, kinds = [], {}  # type: ignore[var-annotated]
    for notice in notices:
        kinds.setdefault((notice.get("stage"), notice.get("code")), []).append(notice)
    for same in kinds.values():
        for notice in same[:NOTES_OF_A_KIND]:
            first, last = notice.get("frame"), notice.get("last_frame")
            where = "" if first is None else " (frame %d)" % first if last in (None, first) else " (frames %d to %d)" % (first, last)
            lines.append(str(notice.get("message", "")) + where)
        if len(same) > NOTES_OF_A_KIND:
            lines.append("... and %d more like this" % (len(same) - NOTES_OF_A_KIND))
    return lines


def failure_text(code: int, error: Optional[dict], tail: List[str]) -> str:
    """Why a child failed: its own explanation, else how it ended and the last it said."""
    if error:
        return ("%s %s" % (error.get("message", ""), error.get("hint", ""))).strip()
    said = [line.strip() for line in tail if line.strip()][-8:]
    if code < 0 and os.name != "nt":
        name = signal.Signals(-code).name if -code in {int(known) for known in signal.Signals} else str(-code)
        ended = "it was ended by %s%s" % (name, ", perhaps for lack of memory" if name == "SIGKILL" else "")
    else:
        ended = "exit code %d" % code
    return "%s%s" % (ended, ". Its last lines:\n    " + "\n    ".join(said) if said else "; what it said is above")
