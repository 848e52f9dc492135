# SPDX-License-Identifier: Apache-2.0
"""Who is where: masks, boxes and landmarks of every person in every frame."""

from functools import partial

import numpy as np

from ..errors import Body4DError
from ..events import Committed, Notice, Progress
from ..people import Person
from ..tracking import rows, search
from ..tracking.asked import nobody, only_negative, sample_of
from ..tracking.linking import Tracklet, link, spans
from ..tracking.prompts import hints_of
from ..tracking.splitting import tracklets_of
from ..tracking.tracker import Hint, Tracker

DETECT_EVERY_S = 0.17
COMMIT_EVERY = 32  # samples
SHORTEST_S, SMALLEST_PX = 0.5, 60.0


class Track:
    """Finds and follows the people that were asked for, or everybody.

    One pass forward in time; where prompts lie later than the first frame one more, backward. Both follow everybody they see, so that nobody is
    taken for somebody else; the tracks are then linked into people. State is the samples done, the tracker's own and nothing else: a killed run
    goes on exactly. Memory does not grow with the clip, but for some 40 bytes per person and sample while people are put together.
    """

    name = "track"
    version = 5
    needs = ("prepare",)
    heeds = "prompts"

    def __init__(self, networks=None):
        """`networks()` returns (detector, landmarker); the default builds the real ones when the stage runs."""
        self.settings = {}
        self._networks = networks or _lite_networks

    def run(self, clip, people: list[Person], take, cursor: dict | None):
        """Yields events. Raises Body4DError where nobody is found or a prompt hits nobody."""
        self._clip, self._take, self._frames = clip, take, clip.frames
        self._seconds = clip.frames.step / float(clip.fps)
        self._cuts = [int(np.searchsorted(np.array(clip.frames), shot)) for shot in clip.shots[1:]]
        asked = [person for person in people if person.prompts]
        cursor = cursor or {"phase": 0, "done": 0, "tracker": None, "kept": []}
        if cursor["phase"] != "people":
            self._detector, self._landmarker = self._networks()
            hints = self._read_prompts(asked)
            passes = self._passes(hints)
            for number in range(cursor["phase"], len(passes)):
                yield from self._track(number, passes, hints, cursor)
                cursor = {"phase": number + 1, "done": 0, "tracker": None, "kept": cursor["kept"]}
            yield from self._name_people(people, hints, cursor["kept"])
            cursor = take.working["cursor"]
        yield from self._assemble(cursor)

    # -- prompts and passes -------------------------------------------------------------------------------------------

    def _read_prompts(self, people: list[Person]) -> dict[int, list[Hint]]:
        """Sample -> what prompts say there. A prompt on a frame between two samples counts for the nearer one."""
        hints: dict[int, list[Hint]] = {}
        frames = self._frames
        for frame in sorted({p.frame for person in people for p in person.prompts}):
            sample = sample_of(next(person for person in people if any(p.frame == frame for p in person.prompts)), frame, frames)
            hints.setdefault(sample, []).extend(hints_of(people, frame, sample, self._clip.read(frame), self._detector, self._landmarker))
        for person in people:
            if not any(h.person == person.id and h.roi for found in hints.values() for h in found):
                raise only_negative(person)
        return hints

    def _passes(self, hints: dict[int, list[Hint]]) -> list[range]:
        """The samples to go through, forward and, where a prompt is not on the first sample, backward."""
        positive = [sample for sample, found in hints.items() if any(h.roi for h in found)]
        if not positive:
            return [range(self._take.samples)]
        forward, backward = range(min(positive), self._take.samples), range(max(positive), -1, -1)
        return [forward, backward] if max(positive) else [forward]

    def _track(self, number: int, passes: list[range], hints: dict[int, list[Hint]], cursor: dict):
        """One pass over the clip. Rows go into the take as they are found; `cursor["kept"]` gets the pass's labels."""
        take, samples, group = self._take, passes[number], rows.group_of(number)
        rows.create(take, group, rows.ROW_ARRAYS)
        tracker = Tracker(self._detector, self._landmarker, self._seconds, cursor["tracker"])
        every = max(1, round(DETECT_EVERY_S / self._seconds))
        looks = search.looks_for_newcomers(self._clip.width, self._clip.height)
        behind, total = sum(map(len, passes[:number])), sum(map(len, passes))
        todo = samples[cursor["done"] :]
        cuts = {cut if samples.step > 0 else cut - 1 for cut in self._cuts}
        for done, (sample, (_, rgb)) in enumerate(zip(todo, self._clip.iterate(self._frames[s] for s in todo)), cursor["done"] + 1):
            if sample in cuts:
                tracker.cut()
            begins, due = sample in cuts or done == 1, sample % every == 0
            more = looks if begins else [looks[sample // (2 * every) % len(looks)]] if sample % (2 * every) == 0 else []
            seen = tracker.step(rgb, begins or due, hints.get(sample, []), more)
            rows.append(take, group, sample, seen)
            if done % COMMIT_EVERY == 0 and done < len(samples):
                take.commit({"phase": number, "done": done, "tracker": tracker.state(), "kept": cursor["kept"]})
                yield Progress(self.name, behind + done, total, note=_people_text(len(seen)))
        cursor["kept"].append({"labels": tracker.labels, "bans": tracker.bans})
        take.commit({"phase": number + 1, "done": 0, "tracker": None, "kept": cursor["kept"]})
        yield Progress(self.name, behind + len(samples), total)

    # -- from tracks to people ----------------------------------------------------------------------------------------

    def _name_people(self, people: list[Person], hints: dict[int, list[Hint]], kept: list[dict]):
        """Link tracks, drop what is too short or small, number the rest; ends with the commit that begins the assembly."""
        chains = [chain for number, said in enumerate(kept)
                  for chain in link(tracklets_of(self._take, number, said, self._seconds, self._cuts), self._seconds, self._cuts)]
        asked = {person.id: person for person in people if person.prompts}
        found: dict[int, dict] = {}
        if asked:
            for number, person in asked.items():
                tracks = [span for chain in chains if any(t.person == number for t in chain) for span in spans(chain)]
                anchors = [sample for sample, said in hints.items() if any(h.person == number and h.roi for h in said)]
                if not tracks:
                    frame = self._frames[min(anchors)]
                    raise Body4DError(f"{person.name} (id {number}) could not be followed from the prompt at frame {frame}.",
                                      "Prompt this person on a frame where they are better seen.", "prompt_lost")
                found[number] = {"tracks": tracks, "anchors": sorted(anchors)}
        else:
            kept_chains = yield from self._dropping(chains)
            kept_chains.sort(key=lambda chain: (-sum(t.area for t in chain), chain[0].first))
            found = {number: {"tracks": spans(chain), "anchors": []} for number, chain in enumerate(kept_chains, 1)}
        if not found:
            raise nobody(self._clip)
        known = {person.id: person for person in people}
        self._take.set_people([known.get(number, Person(number)).to_json() for number in found])
        for number in found:
            rows.create(self._take, rows.person_group(number), rows.ARRAYS)
        self._take.commit({"phase": "people", "done": 0, "found": {str(number): entry for number, entry in found.items()}})

    def _dropping(self, chains: list[list[Tracklet]]):
        """The chains long and tall enough; a notice for each other one."""
        shortest = min(SHORTEST_S, 0.5 * self._take.samples * self._seconds)
        kept = []
        for chain in sorted(chains, key=lambda chain: chain[0].first):
            seconds = sum(t.count for t in chain) * self._seconds
            height = sum(t.count * t.height for t in chain) / sum(t.count for t in chain)
            notice = partial(Notice, self.name, frame=self._frames[chain[0].first], last_frame=self._frames[chain[-1].last])
            if seconds < shortest:
                yield notice(code="track_too_short", message=f"Somebody seen for {seconds:.2f} s was left out (under {shortest:.2g} s).")
            elif height < SMALLEST_PX:
                yield notice(code="track_too_small", message=f"Somebody {height:.0f} px tall was left out (under {SMALLEST_PX:.0f} px).")
            else:
                kept.append(chain)
        return kept

    def _assemble(self, cursor: dict):
        """Write each person's arrays from the rows, then drop the rows."""
        take = self._take
        picks = {int(number): rows.Picks.of(take, entry["tracks"], entry["anchors"]) for number, entry in cursor["found"].items()}
        assembler = rows.Assembler(take, picks, self._cuts, self._seconds)
        for start in range(cursor["done"], take.samples, rows.BLOCK // 16):
            stop = min(start + rows.BLOCK // 16, take.samples)
            assembler.write(start, stop)
            if stop < take.samples:
                take.commit({**cursor, "done": stop})
                yield from (Committed(self.name, number, start, stop) for number in picks)
        del assembler  # lets go of the files before they are deleted
        for group in {name.rpartition("/")[0] for name in take.working["arrays"] if name.startswith("tracklets/")}:
            take.drop_group(group)
        take.commit({"phase": "people", "done": take.samples, "found": {}})
        yield from (Committed(self.name, number, 0, take.samples) for number in picks)
        yield Progress(self.name, take.samples, take.samples, note=_people_text(len(take.people)))


def _people_text(count: int) -> str:
    return "nobody in sight" if count == 0 else "1 person" if count == 1 else f"{count} people"


def _lite_networks():
    from ..models.blazepose import PoseLandmarker
    from ..models.people_detector import PeopleDetector

    return PeopleDetector(), PoseLandmarker()
