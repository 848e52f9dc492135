# SPDX-License-Identifier: Apache-2.0
"""Who is where: masks and boxes of every person in every frame, by SAM 3."""

import time

import numpy as np

from ...disk import writing
from ...errors import Body4DError
from ...events import Committed, Notice, Progress
from ...memory import Batches, planned, release
from ...people import Person
from ...tracking.asked import hits_nobody, nobody, one_body
from . import masklets
from .asked import Asked
from .claims import Claims, Owned
from .costs import slow, tracking
from .finding import newcomers, same_body, worth_keeping
from .joining import joined, told
from .seeing import absences

LOOK_EVERY_S = 0.5
PATIENCE_S = 1.0  # for so long unseen, backwards from where they were found, people have not been there before
COMMIT_EVERY, COMMIT_S = 128, 30.0  # samples; seconds, where samples take long


class Track:
    """Follows the people that were asked for, or everybody that SAM 3 finds by the word "person".

    Each shot is gone through forward from where people were shown or found, then backward from there to its start. In another shot somebody who was asked for
    is only who is shown there too; of those who are found, who looks like somebody of another shot, and like nobody else, is taken for them. Everybody is found
    by the word at the start of a shot, every half second and at its end: who is there and in nobody's mask is followed from then on. Pictures are read once per
    direction, the prompted ones once more; one is held.

    The cursor holds what has been found; the tracker's memory lies beside it as a file, so a killed run goes on exactly.
    """

    name = "track"
    version = 2
    needs = ("prepare",)
    heeds = "prompts"

    def __init__(self, folder=None, limit: int | None = None, networks=None, commit_every: int = COMMIT_EVERY, models: str = "ours"):
        """folder: where SAM 3's weights are. limit: bytes of memory that the user allows. `networks()` returns (network, tracker, device) in place of
        the real ones. models: whose code runs them, see `settings`."""
        self.settings = {"model": "sam3", "models": models}
        self._networks = networks or (lambda: _networks(folder, limit, models))
        self._limit, self._commit_every = limit, commit_every

    def run(self, clip, people: list[Person], take, cursor: dict | None):
        """Yields events. Raises Body4DError where nobody is found or a prompt hits nobody."""
        self._clip, self._take = clip, take
        self._seconds = clip.frames.step / float(clip.fps)
        cuts = [int(np.searchsorted(np.array(clip.frames), shot)) for shot in clip.shots[1:]]
        bounds = sorted({0, take.samples, *(cut for cut in cuts if 0 < cut < take.samples)})
        self._shots = [range(first, stop) for first, stop in zip(bounds, bounds[1:])]
        self._asked = Asked(people, clip.frames, clip.width, clip.height)
        if cursor is None or cursor["phase"] != "people":
            try:
                yield from self._follow(cursor)
            finally:
                self._sam3 = self._tracker = None
                release()
            yield from self._name_people(people)
            cursor = take.working["cursor"]
        yield from self._assemble(cursor)

    # -- through the clip ---------------------------------------------------------------------------------------------

    def _follow(self, cursor: dict | None):
        """All passes that are left.

        The cursor: phase (2 x shot, + 1 for the way back), done (samples of it), first (person -> the sample from which they are known in this shot),
        last_seen (the same on the way back), known (people so far), passed_over (the first sample with somebody too small), behind (samples of finished
        passes), state (the tracker's file)."""
        self._at = cursor or {"phase": 0, "done": 0, "first": {}, "last_seen": {}, "known": 0, "passed_over": None, "behind": 0, "state": None}
        if self._at["phase"] == 2 * len(self._shots):
            return
        self._sam3, self._tracker, device = self._networks()
        self._batches = Batches(planned(tracking(self._clip.width, self._clip.height), device, self._limit), "tracking")
        if cursor is None:
            if told := slow(self.name, device):
                yield told
            masklets.create_rows(self._take)
            for shot in self._shots[1:]:  # what is wrong with a prompt is told before an hour has passed
                self._show(shot)
        elif cursor["state"]:
            self._tracker.resume(self._take.path / cursor["state"])
        self._since = time.monotonic()
        for phase in range(self._at["phase"], 2 * len(self._shots)):
            shot, backward = self._shots[phase // 2], bool(phase % 2)
            if not backward and self._at["done"] == 0:
                self._at["first"] = {str(person): sample for person, sample in self._show(shot).items()}
                yield from self._not_shown(shot)
            samples = self._samples(shot, backward)
            yield from self._pass(shot, backward, samples)
            self._at |= {"phase": phase + 1, "done": 0, "last_seen": {}, "behind": self._at["behind"] + len(samples)}
            self._commit(remember=not backward)

    def _samples(self, shot: range, backward: bool) -> range:
        """The way through a shot."""
        known = self._at["first"].values()
        if backward:
            return range(max(known, default=shot.start) - 1, shot.start - 1, -1)
        return range(min(known, default=shot.stop), shot.stop) if self._asked else shot

    def _not_shown(self, shot: range):
        """A notice for each person that is asked for, but not in this shot."""
        frames = self._take.frames
        for person in self._asked.absent_from(shot):
            yield Notice(self.name, "shot_without_prompt", f"{person.name} has no prompt in the shot from frame {frames[shot[0]]} to {frames[shot[-1]]} and is "
                         "not looked for there. Click them there too.", person.id, frames[shot[0]], frames[shot[-1]])

    def _show(self, shot: range) -> dict[int, int]:
        """Start on a shot and look at all that prompts show in it. Returns person -> first sample. Raises Body4DError where they hit nobody."""
        self._tracker.start(self._clip.width, self._clip.height, len(shot))
        first: dict[int, int] = {}
        for sample, shown in self._asked.where(shot).items():
            for person, what in shown.items():
                self._tracker.prompt(sample, person, what.clicks, what.box)
                first.setdefault(person, sample)
            self._check(sample, self._shown_masks(sample, list(shown)))
        return first

    def _shown_masks(self, sample: int, people: list[int]) -> dict:
        """What the tracker makes of prompts: (H, W) bool by person, on its device."""
        seen, masks = self._sam3.see(self._read(sample)), {}
        self._in_parts(sample, seen, people, lambda found: masks.update({person: logits > 0 for person, logits in found.logits.items()}))
        return masks

    def _check(self, sample: int, masks: dict) -> None:
        frame, who = self._take.frames[sample], self._asked.people
        for person, mask in masks.items():
            if not bool(mask.any()):
                raise hits_nobody(who[person], f"frame {frame}")
        for one, other in same_body(masks):
            raise one_body(who[one], who[other], frame)

    def _pass(self, shot: range, backward: bool, samples: range):
        """One way through a shot; rows go into the take as they are found."""
        at = self._at
        first, last_seen = ({int(person): sample for person, sample in at[name].items()} for name in ("first", "last_seen"))
        not_there = self._asked.where_not(shot)
        every = max(1, round(LOOK_EVERY_S / self._seconds))
        total = at["behind"] + len(samples) + sum(len(later) for later in self._shots[self._shots.index(shot) + 1 :])
        for done, sample in enumerate(samples[at["done"] :], at["done"] + 1):
            if backward:
                wanted = [p for p, start in first.items() if start > sample and (self._asked or last_seen.get(p, start) - sample <= self._patience)]
            else:
                wanted = [p for p, start in first.items() if start <= sample]
            looks = not (self._asked or backward) and ((sample - shot.start) % every == 0 or sample == shot[-1])
            seen = []
            if wanted or looks:
                rgb = self._read(sample)
                owned = self._step(sample, rgb, wanted, backward, not_there.get(sample, {}), first if looks else None)
                seen = masklets.append_rows(self._take, sample, owned, backward, rgb if self._joins else None)
                last_seen.update(dict.fromkeys(seen, sample))
            at |= {"done": done, "first": {str(p): s for p, s in first.items()}, "last_seen": {str(p): s for p, s in last_seen.items()} if backward else {}}
            if done < len(samples) and (done % self._commit_every == 0 or time.monotonic() - self._since > COMMIT_S):
                self._commit()
            yield Progress(self.name, at["behind"] + done, total, note=_people_text(len(seen)))

    @property
    def _patience(self) -> int:
        return max(1, round(PATIENCE_S / self._seconds))

    @property
    def _joins(self) -> bool:
        """Whether people of several shots are to be told by their looks."""
        return len(self._shots) > 1 and not self._asked

    def _step(self, sample: int, rgb: np.ndarray, wanted: list[int], backward: bool, not_there: dict, first: dict[int, int] | None) -> Owned:
        """Who has which pixel of a sample. `first`, where everybody is to be looked for, gets those who are new."""
        seen = self._sam3.see(rgb)
        owned = self._owned(sample, seen, wanted, backward)
        again = [person for person in not_there if person in wanted]
        for person in again:  # refines the mask that was just found
            self._tracker.prompt(sample, person, not_there[person].clicks)
        if first is not None:
            found = newcomers(self._sam3.detect(seen).masks, owned.owner > 0)
            for mask in found.masks:
                self._at["known"] += 1
                first[self._at["known"]] = sample
                self._tracker.prompt(sample, self._at["known"], mask=mask)
            if found.too_small and self._at["passed_over"] is None:
                self._at["passed_over"] = sample
            again = again or list(found.masks)
        return self._owned(sample, seen, [*wanted, *(p for p in first or () if p not in wanted)], backward) if again else owned

    def _owned(self, sample: int, seen, people: list[int], backward: bool) -> Owned:
        claims = Claims()
        self._in_parts(sample, seen, people, lambda found: claims.add(found.logits, found.scores), backward)
        return claims.settled(self._clip.height, self._clip.width)

    def _in_parts(self, sample: int, seen, people: list[int], keep, backward: bool = False) -> None:
        """One step of the tracker for as many people at a time as there is memory for; keep(what it found) may come again for the same people."""
        for _ in self._batches.run(lambda part: keep(self._tracker.step(sample, seen, reverse=backward, people=part)), people):
            pass

    def _read(self, sample: int) -> np.ndarray:
        return self._clip.read(self._take.frames[sample])

    def _commit(self, remember: bool = True) -> None:
        """Make permanent what was found, and the tracker's memory where it is to remember: in a new file; the one before it is swept away later."""
        working, old = self._take.working, self._at["state"]
        working["files"].pop(old, None)
        self._at["state"] = None
        if remember:
            number = 0 if old and "tracker1." in old else 1
            name = f"tracklets/tracker{number}.{working['key'][:8]}{working['run']}.u8"  # as data files are called, so that it is swept away
            path = self._take.path / name
            with writing(path):
                path.parent.mkdir(exist_ok=True)
                self._tracker.save(path)
            self._take.add_file(name)
            self._at["state"] = name
        self._take.commit(self._at)
        self._since = time.monotonic()

    # -- from rows to people ------------------------------------------------------------------------------------------

    def _name_people(self, people: list[Person]):
        """Number those who were found; ends with the commit that begins the assembly."""
        take, clip = self._take, self._clip
        if self._asked:
            rows = {int(p) for _, (found,) in masklets.blocks(take, "person") for p in np.unique(found)}
            for person in self._asked.people.values():
                if person.id not in rows:
                    raise Body4DError(f"{person.name} (id {person.id}) could not be followed from the prompt.",
                                      "Prompt this person on a frame where they are better seen.", "prompt_lost")
            ids = {person: person for person in self._asked.people}
        else:
            same = joined(take, self._shots, self._seconds) if self._joins else {}
            ids = yield from worth_keeping(take, self._seconds, self._at["passed_over"], same)
            if self._joins:
                yield from told(take, ids, self._shots)
        if not ids:
            raise nobody(clip)
        known = {person.id: person for person in people}
        take.set_people([known.get(number, Person(number)).to_json() for number in sorted(set(ids.values()))])
        take.working["files"].pop(self._at["state"], None)
        take.commit({"phase": "people", "done": 0, "ids": {str(row): number for row, number in ids.items()}})

    def _assemble(self, cursor: dict):
        """Write each person's arrays from the rows, then drop the rows."""
        take = self._take
        if not cursor["ids"]:  # all is written
            return
        shot = np.repeat(np.arange(len(self._shots)), [len(shot) for shot in self._shots])
        assembler = masklets.Assembler(take, {int(row): number for row, number in cursor["ids"].items()}, shot, self._seconds)
        assembler.create()
        for start in range(cursor["done"], take.samples, masklets.BLOCK // 16):
            stop = min(start + masklets.BLOCK // 16, take.samples)
            assembler.write(start, stop)
            if stop < take.samples:
                take.commit({**cursor, "done": stop})
                yield from (Committed(self.name, number, start, stop) for number in assembler.row)
        yield from self._losses(assembler, shot)
        numbers = list(assembler.row)
        del assembler  # lets go of the files before they are deleted
        take.drop_group(masklets.ROWS)
        take.drop_group(masklets.PICTURES)
        take.commit({"phase": "people", "done": take.samples, "ids": {}})
        yield from (Committed(self.name, number, 0, take.samples) for number in numbers)
        yield Progress(self.name, take.samples, take.samples, note=_people_text(len(numbers)))

    def _losses(self, assembler: masklets.Assembler, shot: np.ndarray):
        """A notice for each time that somebody was lost in the middle of the picture."""
        frames, size = self._take.frames, (self._clip.width, self._clip.height)
        for number, state in assembler.state.items():
            for begin, stop in absences(state, assembler.box[number], shot, self._seconds, size):
                yield Notice(self.name, "person_lost", f"Person {number} is not seen from frame {frames[begin]} to {frames[stop - 1]}. Click them there if "
                             "they are in the picture.", number, frames[begin], frames[stop - 1])


def _people_text(count: int) -> str:
    return "nobody in sight" if count == 0 else "1 person" if count == 1 else f"{count} people"


def _networks(folder, limit: int | None, models: str):
    import torch

    from ...memory import computing_device
    from ...models.sam3.model import Sam3
    from ...models.sam3.tracker import Tracker
    from ...weights.places import locate

    device, found = computing_device(limit), locate("sam3", folder)
    if not found.whole:
        found.path("sam3.pt")  # says where to get it
    if models == "official":
        from ...models.official import sam3 as official

        network = official.Sam3.load(found.folder, device)
        return network, official.Tracker(network, exclusive=False), device
    sam3 = Sam3.load(found.folder, device=device, dtype=torch.bfloat16 if device == "cuda" else torch.float32, lean=True)
    return sam3, Tracker(sam3, exclusive=False), device
