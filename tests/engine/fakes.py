# SPDX-License-Identifier: Apache-2.0
"""A clip and stages that are quick and small, to test what carries the real ones."""

from fractions import Fraction

import numpy as np

from body4d_engine.events import Committed, Notice, Progress
from body4d_engine.people import Person
from body4d_engine.take import State


class FakeClip:
    name, path, width, height, fps, fingerprint, focal_px, shots, notices = "fake.mp4", None, 64, 48, Fraction(30), "f00d", None, (0,), []

    def __init__(self, frames=40, step=1):
        self.frame_count, self.frames = frames, range(0, frames, step)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        pass

    def describe(self):
        return {"name": self.name, "path": None, "bytes": 1, "fingerprint": self.fingerprint, "width": 64, "height": 48, "fps": [30, 1],
                "frame_count": self.frame_count, "start": 0, "end": self.frame_count, "step": self.frames.step}


class FakeTrack:
    """Two people; the second enters half way. The cursor carries a running state, like a real tracker's."""

    name, version, needs, heeds = "track", 1, (), "prompts"

    def __init__(self, chunk=7, fail_at=None):
        self.settings, self.chunk, self.fail_at = {}, chunk, fail_at

    def run(self, clip, people, take, cursor):
        cursor = cursor or {"next": 0, "state": 1}
        for person in (1, 2):
            take.create_array(f"people/{person}", "state", "u1", ())
            take.create_array(f"people/{person}", "box", "f4", (4,))
        for i in range(cursor["next"], take.samples):
            if i == self.fail_at:
                raise MemoryError
            cursor["state"] = (cursor["state"] * 48271 + i) % 2147483647
            for person in (1, 2):
                there = person == 1 or i >= take.samples // 2
                take.append(f"people/{person}", "state", [State.VISIBLE if there else State.ABSENT])
                take.append(f"people/{person}", "box", [np.full(4, cursor["state"] % 1000 + person)])
                mask = np.zeros((48, 64), bool)
                mask[i % 40 :, person : 30 + person] = there
                take.append_mask(f"people/{person}", mask)
            cursor["next"] = i + 1
            if (i + 1) % self.chunk == 0:
                take.commit(cursor)
            yield Progress(self.name, i + 1, take.samples)
        yield Notice(self.name, "late", "Person 2 enters late.", person=2, frame=take.frames[take.samples // 2])
        take.set_people([Person(p).to_json() for p in (1, 2)])


class FakeRecover:
    """Meshes that depend on the boxes and on the sample before."""

    name, version, needs, heeds = "recover", 1, ("track",), "body"

    def __init__(self, chunk=5, scale=1.0):
        self.settings, self.chunk = {"scale": scale}, chunk

    def run(self, clip, people, take, cursor):
        for person in people:
            group = f"people/{person.id}"
            take.create_array(group, "vertices", "f4", (5, 3), pc2=True)
            take.create_array(group, "root", "f4", (3,))
            take.create_array(group, "state", "u1", ())
            take.write_npz(f"{group}/body.recover.npz", faces=np.arange(12, dtype=np.int32).reshape(4, 3) % 5)
            boxes, states = take.read(group, "box", "track"), take.read(group, "state", "track")
            start = take.count(group, "root")
            last = take.read(group, "vertices", "recover")[-1] if start else np.zeros((5, 3), np.float32)
            for i in range(start, take.samples):
                last = (0.5 * last + self.settings["scale"] * boxes[i, 0]).astype(np.float32)
                take.append(group, "vertices", last[None])
                take.append(group, "root", [[i, 0, 3]])
                take.append(group, "state", states[i : i + 1])
                if (i + 1) % self.chunk == 0 or i + 1 == take.samples:
                    take.commit({})
                    yield Committed(self.name, person.id, 0, i + 1)


class FakeBackend:
    name, models = "fake", ("ours",)

    def __init__(self, *stages):
        self._stages = stages or (FakeTrack(), FakeRecover())

    def lacks(self, weights=None, models="ours"):
        return []

    def stages(self, settings):
        return list(self._stages)


def contents(path):
    """Everything a take holds, as values that can be compared (file names carry the keys, so the logical names are used)."""
    from body4d_engine.take import Take

    with Take.open(path) as take:
        found = {"people": take.people, "notices": take.notices()}
        for stage, entry in take.to_json()["stages"].items():
            for name in entry["arrays"]:
                found[f"{stage}:{name}"] = np.array(take.read(*name.rsplit("/", 1), stage))
            for name in (n for n in entry["files"] if n.endswith(".npz")):
                found.update({f"{stage}:{name}:{key}": value for key, value in take.read_npz(name).items()})
        return found


def assert_same(ours, theirs, tolerance=0.0):
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            np.testing.assert_allclose(value, theirs[name], rtol=0, atol=tolerance, err_msg=name)
        elif isinstance(value, np.ndarray):
            np.testing.assert_array_equal(value, theirs[name], err_msg=name)
        else:
            assert value == theirs[name], name
