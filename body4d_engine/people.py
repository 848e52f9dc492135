# SPDX-License-Identifier: Apache-2.0
"""People of a clip and the prompts that point at them."""

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path

from .errors import Body4DError

SMALLEST_M, TALLEST_M = 0.3, 2.8
KINDS = ("sides", "depth", "limb", "body")
LIMBS = ("left arm", "right arm", "left leg", "right leg")
# Colours (sRGB) that stay apart on footage and for most colour-blind viewers: Okabe and Ito's set without black, then lighter mixes of it.
PALETTE = (
    (0.337, 0.706, 0.914), (0.902, 0.624, 0.000), (0.000, 0.620, 0.451), (0.800, 0.475, 0.655),
    (0.941, 0.894, 0.259), (0.835, 0.369, 0.000), (0.000, 0.447, 0.698), (0.600, 0.600, 0.600),
    (0.620, 0.820, 0.560), (0.700, 0.560, 0.900), (0.950, 0.700, 0.600), (0.450, 0.800, 0.800),
)


@dataclass(frozen=True)
class Prompt:
    """A click: clip frame, position in px of the upright frame, on the person (positive) or on what is not the person."""

    frame: int
    x: float
    y: float
    positive: bool = True


@dataclass(frozen=True)
class BoxPrompt:
    """A box around the person on a clip frame: corners in px of the upright frame."""

    frame: int
    x0: float
    y0: float
    x1: float
    y1: float


@dataclass(frozen=True, order=True)
class Correction:
    """What the user says is wrong with a person in clip frames first_frame to last_frame, both inclusive.

    kind: "sides", left and right are taken for each other; "depth", the body or only the limb is mirrored towards the camera; "limb", it was lost, so
    its landmarks are not believed; "body", nothing is believed, as if hidden. limb: of LIMBS, the person's own left and right; or "".
    """

    first_frame: int
    last_frame: int
    kind: str
    limb: str = ""

    def to_json(self) -> dict:
        return {"first_frame": self.first_frame, "last_frame": self.last_frame, "kind": self.kind, **({"limb": self.limb} if self.limb else {})}

    @classmethod
    def from_json(cls, data: dict) -> "Correction":
        """Raises KeyError, TypeError or ValueError where it makes no sense."""
        said = cls(_whole(data["first_frame"]), _whole(data["last_frame"]), data["kind"], data.get("limb") or "")
        if not 0 <= said.first_frame <= said.last_frame:
            raise ValueError(f"frames {said.first_frame} to {said.last_frame} cannot be corrected")
        if said.kind not in KINDS:
            raise ValueError(f"there is no correction {said.kind!r}, only {', '.join(KINDS)}")
        if said.limb not in ((*LIMBS, "") if said.kind == "depth" else LIMBS if said.kind == "limb" else ("",)):
            raise ValueError(f"the limb of a correction {said.kind} cannot be {said.limb!r}; limbs are {', '.join(LIMBS)}")
        return said


@dataclass
class Person:
    """One identity in the clip: a stable id from 1, a name, a colour (sRGB, 0..1), its prompts, its height in metres where known, and what is to be
    corrected."""

    id: int
    name: str = ""
    color: tuple[float, float, float] = ()
    prompts: list = field(default_factory=list)
    height_m: float | None = None
    corrections: list[Correction] = field(default_factory=list)

    def __post_init__(self):
        self.name = self.name or f"Person {self.id}"
        self.color = tuple(self.color) or PALETTE[(self.id - 1) % len(PALETTE)]

    def to_json(self) -> dict:
        clicks = [[p.frame, p.x, p.y, p.positive] for p in self.prompts if isinstance(p, Prompt)]
        boxes = [[p.frame, p.x0, p.y0, p.x1, p.y1] for p in self.prompts if isinstance(p, BoxPrompt)]
        return {"id": self.id, "name": self.name, "color": list(self.color), "prompts": {"clicks": clicks, "boxes": boxes},
                "height_m": self.height_m, "corrections": [said.to_json() for said in self.corrections]}

    @classmethod
    def from_json(cls, data: dict) -> "Person":
        """Raises Body4DError where a field is missing or is not what it should be."""
        try:
            prompts = data.get("prompts", {})
            clicks = [Prompt(_whole(f), _finite(x), _finite(y), _either(*rest or [True])) for f, x, y, *rest in prompts.get("clicks", [])]
            boxes = [BoxPrompt(_whole(f), *map(_finite, box)) for f, *box in prompts.get("boxes", [])]
            person = cls(_whole(data["id"]), str(data.get("name", "")), tuple(map(float, data.get("color", ()))), clicks + boxes,
                         None if data.get("height_m") is None else float(data["height_m"]),
                         sorted({Correction.from_json(entry) for entry in data.get("corrections") or []}))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Body4DError(f"A person cannot be read ({error}): {json.dumps(data)[:120]}",
                              'Write {"id": 1, "name": "Ana", "prompts": {"clicks": [[frame, x, y, true]]}}.', "bad_people") from error
        if person.id < 1 or len(person.color) != 3 or not all(0 <= part <= 1 for part in person.color):
            raise Body4DError(f"Person {person.id}: ids count from 1, and a colour has three parts from 0 to 1.", "Correct that.", "bad_people")
        if person.height_m is not None and not SMALLEST_M <= person.height_m <= TALLEST_M:
            raise Body4DError(f"Person {person.id}: {person.height_m:g} is not a height in metres.", "Write height_m like 1.75.", "bad_people")
        return person


def _whole(value) -> int:
    if isinstance(value, bool) or int(value) != value:
        raise ValueError(f"{value!r} is not a whole number")
    return int(value)


def _finite(value) -> float:
    if not math.isfinite(value):
        raise ValueError(f"{value!r} is not a position")
    return float(value)


def _either(value) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is not true or false")
    return value


def load_people(path) -> list[Person]:
    """People from a JSON file: a list, or an object with the list under "people"."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8-sig"))  # Windows editors put a mark in front
        entries = data["people"] if isinstance(data, dict) else data
        if not isinstance(entries, list):
            raise ValueError("it holds no list of people")
        people = [Person.from_json(entry) for entry in entries]
    except KeyError as error:
        raise Body4DError(f'The people file {path} cannot be read: there is no "people" in it.', "Give --people auto or a JSON file.", "bad_people") from error
    except (OSError, ValueError) as error:
        raise Body4DError(f"The people file {path} cannot be read: {error}.", "Give --people auto or a JSON file.", "bad_people") from error
    except Body4DError as error:
        raise Body4DError(f"The people file {path}: {error.message}", error.hint, error.code) from error
    if not people:
        raise Body4DError(f"The people file {path} names nobody.", "Give --people auto to find everyone.", "bad_people")
    if len({p.id for p in people}) < len(people):
        raise Body4DError(f"The people file {path} gives two people the same id.", "Number them 1, 2, 3, ...", "bad_people")
    return people


def people_from_options(people: str = "auto", clicks=(), boxes=(), heights=()) -> list[Person]:
    """People from the command line's texts; an empty list means: find everyone.

    clicks `ID:FRAME,X,Y[,-]`, boxes `ID:FRAME,X0,Y0,X1,Y1`, heights `[ID=]METRES`.
    """
    found = {} if people == "auto" else {p.id: p for p in load_people(people)}

    def of(number: str) -> Person:
        return found.setdefault(int(number), Person(int(number)))

    for text in clicks:
        match = re.fullmatch(r"(\d+):(\d+),(\d+\.?\d*|\.\d+),(\d+\.?\d*|\.\d+)(,[-+])?", text)
        if not match or match[1] == "0":
            raise Body4DError(f"--click {text} cannot be read.", "Write ID:FRAME,X,Y, with ,- at the end for what is not the person.", "bad_option")
        of(match[1]).prompts.append(Prompt(int(match[2]), float(match[3]), float(match[4]), match[5] != ",-"))
    for text in boxes:
        match = re.fullmatch(r"(\d+):(\d+),(\d+\.?\d*|\.\d+),(\d+\.?\d*|\.\d+),(\d+\.?\d*|\.\d+),(\d+\.?\d*|\.\d+)", text)
        if not match or match[1] == "0":
            raise Body4DError(f"--box {text} cannot be read.", "Write ID:FRAME,X0,Y0,X1,Y1.", "bad_option")
        of(match[1]).prompts.append(BoxPrompt(int(match[2]), *map(float, match.groups()[2:])))
    for number, metres in heights_from_options(heights).items():
        if number in found:
            found[number].height_m = metres
    return [found[number] for number in sorted(found)]


def heights_from_options(texts) -> dict[int, float]:
    """`1.8` -> {0: 1.8} (everyone), `2=1.65` -> {2: 1.65}. Metres between 0.3 and 2.8."""
    heights = {}
    for text in texts:
        match = re.fullmatch(r"(?:(\d+)=)?(\d+\.?\d*|\.\d+)m?", text)
        metres = float(match[2]) if match else 0.0
        if not SMALLEST_M <= metres <= TALLEST_M:
            raise Body4DError(f"--height {text} is not a height in metres.", "Write 1.8 for everyone or 2=1.65 for person 2.", "bad_option")
        heights[int(match[1] or 0)] = metres
    return heights
