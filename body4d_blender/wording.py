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
}


def message_for_user(text: str) -> str:
    """'a prompt on frame 99' -> 'a prompt on frame 100'."""
    return FRAMES.sub(_from_one, text).replace("numbered from 0", "numbered from 1")


def _from_one(found: re.Match) -> str:
    word, first, to, last = found.groups()
    return f"{word}{int(first) + 1}" + (f"{to}{int(last) + 1}" if to else "")


def hint_for_user(code: str, hint: str) -> str:
    return HINTS.get(code, hint)
