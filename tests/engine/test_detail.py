# SPDX-License-Identifier: Apache-2.0
"""Where hands and faces are looked for, what is left out, and that a run cut short ends as a whole one. The networks are fakes that answer from the
picture they are given; the real ones are tested in test_hand_face_landmarkers.py."""

from fractions import Fraction

import numpy as np
import pytest

from body4d_engine.events import Notice
from body4d_engine.models.blazepose import Roi
from body4d_engine.models.face_landmarker import Face
from body4d_engine.models.hand_landmarker import Hand
from body4d_engine.people import Person
from body4d_engine.stages.detail import SMALLEST_HAND_PX, Detail
from body4d_engine.take import State, Take

from .tracked import real_walk, run_stage

SIZE = (1080, 1920)


class FakeClip:
    """Frame i is filled with i."""

    width, height = SIZE

    def __init__(self, samples: int, fps: int):
        self.fps, self.frames, self.shots, self.decoded = Fraction(fps), range(samples), (0,), []

    def iterate(self, frames):
        for frame in frames:
            self.decoded.append(frame)
            yield frame, np.full((4, 4, 3), frame, np.uint8).repeat(480, 0).repeat(270, 1)


class Hands:
    """Finds a hand in the middle of the square, of the side asked for, and bends it by the number in the picture."""

    def __init__(self, right=None, square=80.0):
        self.right, self.square = right, square

    def find(self, rgb, roi):
        return Roi(roi.x, roi.y, self.square, roi.angle)

    def detect(self, rgb, roi):
        points = np.linspace(0, 1, 63).reshape(21, 3) * rgb[0, 0, 0]
        right = self.right if self.right is not None else float(roi.x > 0)
        return Hand(points + [roi.x, roi.y, 0], points * 0.001, 0.9, right, roi)


class Faces:
    def detect(self, rgb, roi):
        return Face(np.full((468, 3), float(rgb[0, 0, 0])) + [roi.x, roi.y, 0], 0.8, roi)


@pytest.fixture(scope="module")
def walk():
    return real_walk()


def take_of(path, walk, people=1, samples=40, fps=30, masks=None, scale=1.0):
    clip = {"name": "made.mp4", "path": None, "bytes": 1, "fingerprint": "f", "width": SIZE[0], "height": SIZE[1], "fps": [fps, 1],
            "frame_count": samples, "start": 0, "end": samples, "step": 1, "shots": [0]}
    take = Take.create(path, clip, "lite")
    take.begin("track", "k" * 8)
    persons = [Person(i + 1) for i in range(people)]
    for person in persons:
        group = f"people/{person.id}"
        for name, (kind, shape, values) in {"state": ("u1", (), np.full(samples, State.VISIBLE)), "landmarks_m": ("f4", (33, 3), walk.metres[:samples]),
                                            "landmarks_px": ("f4", (33, 3), walk.px[:samples] * np.float32([scale, scale, 1]))}.items():
            take.create_array(group, name, kind, shape)
            take.append(group, name, values)
        for _ in range(samples):
            take.append_mask(group, masks[person.id] if masks else None)
    take.set_people([person.to_json() for person in persons])
    take.commit({})
    take.finish()
    return take, persons, FakeClip(samples, fps)


def detail(right=None, square=80.0, **options) -> Detail:
    """A stage whose networks say that every hand is a right one with that chance, or if None, that it is of either side."""
    return Detail(lambda: (Hands(0.5 if right is None else right, square), Faces()), **options)


def arrays(take) -> dict[str, np.ndarray]:
    return {name: np.array(take.read("people/1", name, "detail")) for name in ("hands_px", "hands_m", "face_px", "face_score")}


def test_killed_run_ends_as_a_whole_one_whatever_the_chunk(tmp_path, walk):
    take, persons, clip = take_of(tmp_path / "a.take", walk)
    run_stage(detail(), take, persons, clip)
    whole = arrays(take)
    assert (whole["hands_px"][:, :, 0, 2] > 0.5).mean() > 0.8 and (np.diff(whole["hands_m"][:, 0, 20, 0])[:5] != 0).all()
    take.close()
    take, persons, clip = take_of(tmp_path / "b.take", walk)
    run_stage(detail(chunk=7), take, persons, clip, stop_after=3)
    take.close()
    with Take.open(tmp_path / "b.take", writable=True) as again:
        run_stage(detail(chunk=7, workers=1), again, persons, clip)
        for name, values in arrays(again).items():
            np.testing.assert_array_equal(values, whole[name])
    assert clip.decoded == sorted(set(clip.decoded))  # nothing twice


def test_sixty_frames_a_second_are_looked_at_thirty_times(tmp_path, walk):
    take, persons, clip = take_of(tmp_path / "a.take", walk, fps=60)
    run_stage(detail(), take, persons, clip)
    seen = np.flatnonzero(arrays(take)["face_score"])
    assert clip.decoded == list(range(0, 40, 2)) and len(seen) and not (seen % 2).any()
    take.close()


def test_small_people_are_not_looked_at_and_it_is_said(tmp_path, walk):
    take, persons, clip = take_of(tmp_path / "a.take", walk, scale=0.15)
    events = run_stage(detail(), take, persons, clip)
    assert not clip.decoded and not arrays(take)["hands_px"].any()
    assert [e.code for e in events if isinstance(e, Notice)] == ["hands_not_read"]
    take.close()


def test_hand_of_the_other_side_or_too_small_is_not_used(tmp_path, walk):
    take, persons, clip = take_of(tmp_path / "a.take", walk)
    run_stage(detail(right=0.97), take, persons, clip)
    score = arrays(take)["hands_px"][:, :, 0, 2]
    assert score[:, 0].max() == 0 and score[:, 1].max() == pytest.approx(0.9)
    take.close()
    take, persons, clip = take_of(tmp_path / "b.take", walk)
    run_stage(detail(square=SMALLEST_HAND_PX - 1), take, persons, clip)
    assert not arrays(take)["hands_px"].any()
    take.close()


def test_hands_and_face_behind_somebody_else_are_left_out(tmp_path, walk):
    everything = np.ones(SIZE[::-1], bool)
    take, persons, clip = take_of(tmp_path / "a.take", walk, people=2, samples=6, masks={1: ~everything, 2: everything})
    run_stage(detail(), take, persons, clip)
    assert not any(values.any() for values in arrays(take).values())
    assert np.array(take.read("people/2", "hands_px", "detail")).any()
    take.close()


def test_what_two_people_claim_belongs_to_one(tmp_path, walk):
    take, persons, clip = take_of(tmp_path / "a.take", walk, people=2, samples=6)  # two people with the same landmarks
    run_stage(detail(), take, persons, clip)
    for name in ("hands_px", "face_score"):
        first, second = (np.array(take.read(f"people/{person}", name, "detail")) for person in (1, 2))
        assert first.any() and not second.any()
    take.close()


def test_stages_of_the_lite_backend_read_hands_before_bodies():
    from body4d_engine.backends import Lite

    names = [stage.name for stage in Lite().stages({})]
    assert names.index("track") < names.index("detail") < names.index("recover")
    assert "detail" in next(stage for stage in Lite().stages({}) if stage.name == "recover").needs
