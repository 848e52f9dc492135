# SPDX-License-Identifier: Apache-2.0
"""What is checked of prompts before anything is looked at, whichever backend follows people."""

from ..errors import Body4DError
from ..people import BoxPrompt, Person, Prompt


def sample_of(person: Person, frame: int, frames: range) -> int:
    """The sample that a prompt on this clip frame counts for: the nearer one of two. Raises Body4DError where the frame is not used."""
    if not frames.start <= frame < frames.stop:
        raise Body4DError(f"{person.name} has a prompt on frame {frame}, but frames {frames.start} to {frames.stop - 1} are used.",
                          "Move the click or box, or choose a range of frames that holds it.", "prompt_outside_clip")
    return min(len(frames) - 1, round((frame - frames.start) / frames.step))


def within(person: Person, prompt: Prompt | BoxPrompt, width: int, height: int) -> tuple[float, ...]:
    """The point of a click, or a box with its corners in order and cut to the picture: one around somebody at the edge is drawn past it. Raises Body4DError
    for what lies outside the picture, and for a box without area."""
    if isinstance(prompt, BoxPrompt):
        (x0, x1), (y0, y1) = sorted((prompt.x0, prompt.x1)), sorted((prompt.y0, prompt.y1))
        if x0 == x1 or y0 == y1:
            raise Body4DError(f"A box of {person.name} has no area ({where(prompt)}).", "Draw it around the whole person.", "prompt_without_area")
        if x0 < width and y0 < height and x1 > 0 and y1 > 0:
            return max(x0, 0.0), max(y0, 0.0), min(x1, width), min(y1, height)
    elif 0 <= prompt.x <= width and 0 <= prompt.y <= height:
        return prompt.x, prompt.y
    raise Body4DError(f"A prompt of {person.name} lies outside the picture ({where(prompt)}; the picture has {width} x {height} px).",
                      "Give pixels of the upright picture, counted from its top left corner.", "prompt_outside_picture")


def where(prompt: Prompt | BoxPrompt) -> str:
    """In words."""
    if isinstance(prompt, BoxPrompt):
        return f"frame {prompt.frame}, box {prompt.x0:g}, {prompt.y0:g}, {prompt.x1:g}, {prompt.y1:g}"
    return f"frame {prompt.frame}, position {prompt.x:g}, {prompt.y:g}"


def only_negative(person: Person) -> Body4DError:
    """Somebody whom no prompt shows."""
    return Body4DError(f"{person.name} (id {person.id}) has only negative clicks.", "Add a click on the person.", "prompt_only_negative")


def hits_nobody(person: Person, at: str) -> Body4DError:
    """A prompt at a place, in words, with nobody there."""
    return Body4DError(f"The prompt of {person.name} (id {person.id}) at {at} hits nobody.",
                       "Click the middle of the body, on a frame where it is well seen, or draw a box around it.", "prompt_hit_nobody")


def one_body(person: Person, other: Person, frame: int) -> Body4DError:
    """Prompts of two people that point at one."""
    return Body4DError(f"The prompts of {person.name} and {other.name} on frame {frame} point at the same body.",
                       "Move one of them onto the other person.", "prompts_on_one_person")


def nobody(clip) -> Body4DError:
    """A clip in which nobody was found."""
    return Body4DError(f"Nobody was found in {clip.name}, frames {clip.frames.start} to {clip.frames.stop - 1}.",
                       "Click a person (--click ID:FRAME,X,Y) or draw a box (--box ID:FRAME,X0,Y0,X1,Y1); people should be at least 60 px tall "
                       "and seen for half a second.", "nobody_found")
