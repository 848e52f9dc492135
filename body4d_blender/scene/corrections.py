# SPDX-License-Identifier: GPL-3.0-or-later
"""What the user marked as wrong in a take. It is kept on the take's collection, so that undo works, until the take is solved again with it."""

import json
from typing import NamedTuple

from . import tags

KINDS = {"SIDES": "sides", "DEPTH": "depth", "LIMB": "limb", "BODY": "body"}
LIMBS = {"LEFT_ARM": "left arm", "RIGHT_ARM": "right arm", "LEFT_LEG": "left leg", "RIGHT_LEG": "right leg"}
WORDS = {"sides": "sides swapped", "depth": "flipped in depth", "limb": "lost", "body": "all wrong"}


class Correction(NamedTuple):
    """Of a person, clip frames first to last; limb: "" for the whole body."""

    person: int
    first: int
    last: int
    kind: str
    limb: str = ""

    def words(self) -> str:
        return f"{self.limb or 'body'} {WORDS[self.kind]}" if self.kind in ("depth", "limb") else WORDS[self.kind]

    def to_json(self) -> dict:
        """As in `Person.to_json`."""
        return {"first_frame": self.first, "last_frame": self.last, "kind": self.kind, **({"limb": self.limb} if self.limb else {})}


def of_people(people: list[dict]) -> list[Correction]:
    """The corrections that a take was solved with."""
    return [Correction(entry["id"], one["first_frame"], one["last_frame"], one["kind"], one.get("limb") or "")
            for entry in people for one in entry.get("corrections") or ()]


def read(collection) -> list[Correction]:
    return [Correction(*entry) for entry in json.loads(collection.get(tags.CORRECTIONS) or "[]")]


def write(collection, corrections: list[Correction]) -> None:
    collection[tags.CORRECTIONS] = json.dumps(corrections)


def solved(collection) -> list[Correction]:
    """Those that the take was solved with when it was imported."""
    return [Correction(*entry) for entry in tags.read_items(collection).get("solved", ())]


def imported(collection, items: dict, same: bool, people: list[dict]) -> None:
    """After an import: what the user marked since stays, unless it is another take."""
    items["solved"] = of_people(people)
    if not same or tags.CORRECTIONS not in collection:
        write(collection, items["solved"])


def put(corrections: list[Correction], people: list[dict]) -> None:
    """Make these the corrections of the people (`Person.to_json` each)."""
    for entry in people:
        entry["corrections"] = [one.to_json() for one in sorted(set(corrections)) if one.person == entry["id"]]
