# SPDX-License-Identifier: Apache-2.0
"""What the user showed: clicks and boxes, by shot and sample."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from ...people import Person, Prompt
from ...tracking.asked import only_negative, sample_of, within

Clicks = list[tuple[float, float, bool]]


@dataclass
class Shown:
    """One person on one sample: clicks x, y, whether the person is there, and a box x0, y0, x1, y1 within the picture; all in px."""

    clicks: Clicks = field(default_factory=list)
    box: tuple[float, float, float, float] | None = None

    @property
    def positive(self) -> bool:
        """Whether it says where the person is, and not only where not."""
        return self.box is not None or any(there for *_, there in self.clicks)


class Asked:
    """The prompts of everybody by (sample, person id). A prompt on a frame between two samples counts for the nearer one; of several boxes the last counts.

    Raises Body4DError for prompts on frames that are not used or outside the picture, and where somebody has none that says where they are."""

    def __init__(self, people: list[Person], frames: range, width: int, height: int):
        self.people = {person.id: person for person in people if person.prompts}
        self._shown: dict[tuple[int, int], Shown] = {}
        for person in self.people.values():
            for prompt in person.prompts:
                sample = sample_of(person, prompt.frame, frames)
                shown = self._shown.setdefault((sample, person.id), Shown())
                if isinstance(prompt, Prompt):
                    shown.clicks.append((*within(person, prompt, width, height), prompt.positive))
                else:
                    shown.box = within(person, prompt, width, height)
            if not any(shown.positive for (_, number), shown in self._shown.items() if number == person.id):
                raise only_negative(person)

    def __bool__(self) -> bool:
        return bool(self.people)

    def where(self, samples: range) -> dict[int, dict[int, Shown]]:
        """Sample -> person id -> what says where the person is, in order, of these samples."""
        return self._of(samples, True)

    def where_not(self, samples: range) -> dict[int, dict[int, Shown]]:
        """The same for samples on which a person has nothing but negative clicks."""
        return self._of(samples, False)

    def _of(self, samples: range, positive: bool) -> dict[int, dict[int, Shown]]:
        found: dict[int, dict[int, Shown]] = {}
        for (sample, person), shown in sorted(self._shown.items()):
            if sample in samples and shown.positive == positive:
                found.setdefault(sample, {})[person] = shown
        return found

    def absent_from(self, samples: range) -> Iterator[Person]:
        """Those whom nothing shows in these samples."""
        shown = {person for found in self.where(samples).values() for person in found}
        return (person for number, person in self.people.items() if number not in shown)
