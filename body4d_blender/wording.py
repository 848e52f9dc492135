# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine's errors in the words of this interface: it counts frames from 1, and has buttons in place of options. No bpy."""

import re

FRAMES = re.compile(r"\b(frames? )(\d+)(?:( to )(\d+))?\b")
OTHER_TAKE = "Start over, or choose another folder for the take."
HINTS = {  # by an error's code, where the engine's own hint speaks of its options
    "take_of_another_clip": OTHER_TAKE, "take_in_use": OTHER_TAKE, "take_unknown": OTHER_TAKE, "take_folder_in_use": OTHER_TAKE,
    "prompt_outside_clip": "Widen the range, or click this person on a frame in it.",
    "nobody_found": "Pick people by clicking them. They should be at least 60 pixels tall and seen for half a second.",
    "prompt_hit_nobody": "Click the middle of the body, on a frame where it is well seen.",
    "prompt_lost": "Click this person on a frame where they are better seen.",
    "bad_range": "Correct the range in the sidebar.",
    "out_of_memory": "Close other programs, or choose a shorter range, and try again: it goes on where it stopped.",
    "memory_limit": "Set Memory under Advanced to at least that, or to 0 for no limit.",
    "backend_incomplete": "Install what is missing: the button is in the add-on's preferences. On another computer run there: body4d setup full",
    "no_backend": "Update the engine, or choose the other backend.",
}
INSTALL = "Install Full Engine"  # the button
WORDS = {  # options that a notice speaks of
    "Give --focal-px or --focal-mm if you know it.": "Set it in Refine Again if you know it.",
    "Give --focal-px if you know it.": "Set it in Refine Again if you know it.",
    "Give --height for true metres.": "Set their height in Refine Again for true metres.",
    "numbered from 0": "numbered from 1",
}


def message_for_user(text: str) -> str:
    """'a prompt on frame 99' -> 'a prompt on frame 100'."""
    for theirs, ours in WORDS.items():
        text = text.replace(theirs, ours)
    return FRAMES.sub(_from_one, text)


def _from_one(found: re.Match) -> str:
    word, first, to, last = found.groups()
    return f"{word}{int(first) + 1}" + (f"{to}{int(last) + 1}" if to else "")


def notice_for_user(notice: dict) -> str:
    """What a stage said of a person or the whole take; '' for what is told elsewhere: of certain frames among the doubts, the assumed focal length by the
    scene's own words."""
    if notice.get("frame") is not None or notice.get("code") == "focal_assumed":
        return ""
    return message_for_user(str(notice.get("message", "")))


def step_for_user(text: str) -> str:
    """What the doctor says to do next, where the engine is the one that the add-on installed."""
    return text.replace("body4d setup full --only weights", INSTALL).replace("body4d setup full", INSTALL)


def hint_for_user(code: str, hint: str) -> str:
    return HINTS.get(code, hint)
