# SPDX-License-Identifier: Apache-2.0
"""What `body4d doctor --verify` says of a take of the shipped clip: right ones pass, and each kind of wrong one is refused by the check that is for it.

The right one is the lite backend's own, and the truth itself; the same judge is used for the full backend."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert")

from body4d_engine.backends import Lite  # noqa: E402
from body4d_engine.clip import open_clip  # noqa: E402
from body4d_engine.errors import Body4DError  # noqa: E402
from body4d_engine.imports.mhr70 import MHR70  # noqa: E402
from body4d_engine.metrics.people import motion_of  # noqa: E402
from body4d_engine.pipeline import run  # noqa: E402
from body4d_engine.proving import clip as proof  # noqa: E402
from body4d_engine.proving.judging import FINGERS, bodies, judged, read_truth, tracked  # noqa: E402
from body4d_engine.settings import checked  # noqa: E402
from body4d_engine.take import Take  # noqa: E402

REPROJECTION, SIDES, UPRIGHT, SPACE, SIZE, DISTANCE = ("clip: reprojection", "clip: left and right, front and back", "clip: upright, feet at the bottom",
                                                       "clip: pose in space", "clip: size", "clip: camera and distance")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("proof") / "a.take"
    with open_clip(proof.CLIP) as clip:
        for _ in run(clip, path, Lite(), [], checked()):
            pass
    return path


@pytest.fixture(scope="module")
def take(path):
    with Take.open(path) as take:
        yield take


@pytest.fixture(scope="module")
def motion(take):
    return motion_of(take, 1)


@pytest.fixture(scope="module")
def truth():
    return read_truth(proof.TRUTH)


def refused(motion, truth) -> dict[str, str]:
    """What was wrong, by the names of checks; each says what to do."""
    found = {check.name: check for check in judged(motion, truth)}
    assert set(found) == {REPROJECTION, SIDES, UPRIGHT, SPACE, SIZE, DISTANCE}
    assert all(check.state in ("ok", "wrong") and bool(check.next) == (check.state == "wrong") for check in found.values())
    return {name: check.found for name, check in found.items() if check.state == "wrong"}


def test_a_right_take_is_accepted(take, motion, truth):
    assert not refused(motion, truth)
    assert [check.state for check in bodies(take, truth)] == ["ok"] * 6
    assert tracked("who", take, truth).state == "ok"


def test_the_truth_itself_is_accepted(motion, truth):
    known = truth.reference
    true = replace(motion, joints_m=known.joints_m, names=known.names, focal_px=known.focal_px, principal_px=known.principal_px,
                   rest_vertices_m=np.array([[0, 0, 0], [0, truth.height_m, 0]]))
    assert not refused(true, truth)


def about_hips(motion, change):
    """The same with joints (T, J, 3) from the hips' middle changed."""
    root = motion.root()[:, None]
    return replace(motion, joints_m=root + change(motion.joints_m - root))


def renamed(motion, *parts):
    """Left and right of these parts exchanged, of all without any."""
    def other(name):
        side, _, part = name.partition("_")
        return {"left": f"right_{part}", "right": f"left_{part}"}.get(side, name) if part in parts or not parts else name
    return replace(motion, names=tuple(map(other, motion.names)))


def test_left_and_right(motion, truth):
    assert {SIDES, SPACE} <= set(refused(renamed(motion), truth))
    for part in ("eye", "shoulder", "elbow", "wrist", "hip", "knee", "ankle", "big_toe"):
        found = refused(renamed(motion, part), truth)
        assert part.replace("_", " ") in found[SIDES], part


def test_hands_on_the_wrong_arm(motion, truth):
    """The fingers of one hand at the other's wrist, as where a mirrored crop is put on the side it came from."""
    fingers = [name.partition("_")[2] for name in motion.names if name.startswith("left_") and name.split("_")[1] in ("thumb", "index", "middle", "pinky")]
    assert fingers and set(refused(renamed(motion, *fingers), truth)) == {SIDES}


def test_mirrored_pictures_and_depths(motion, truth):
    """A mirrored clip; a body that leans away where it leans forward."""
    assert SIDES in refused(about_hips(motion, lambda joints: joints * [-1, 1, 1]), truth)
    found = refused(about_hips(motion, lambda joints: joints * [1, 1, -1]), truth)
    assert "front and back" in found[SIDES]


def test_upside_down(motion, truth):
    assert {UPRIGHT, REPROJECTION, SPACE} <= set(refused(about_hips(motion, lambda joints: joints * [1, -1, 1]), truth))


def test_size(motion, truth):
    """Half as large and half as far looks the same in the picture; half as large at the same place does not."""
    small = replace(motion, joints_m=0.5 * motion.joints_m, rest_vertices_m=0.5 * motion.rest_vertices_m)
    assert {SIZE, DISTANCE} <= set(refused(small, truth)) and REPROJECTION not in refused(small, truth)
    assert {REPROJECTION, SPACE} <= set(refused(about_hips(motion, lambda joints: 0.5 * joints), truth))
    centimetres = replace(motion, joints_m=100 * motion.joints_m, rest_vertices_m=100 * motion.rest_vertices_m)
    assert {SIZE, DISTANCE, SPACE} <= set(refused(centimetres, truth))


def test_one_arm_too_long(motion, truth):
    joints = motion.joints_m.copy()
    elbow, wrist = (motion.names.index(f"left_{part}") for part in ("elbow", "wrist"))
    joints[:, wrist] += 0.2 * (joints[:, wrist] - joints[:, elbow])
    assert "elbow to wrist" in refused(replace(motion, joints_m=joints), truth)[SIZE]


def test_another_place_focal_length_and_centre(motion, truth):
    assert REPROJECTION in refused(replace(motion, joints_m=motion.joints_m + [0.5, 0, 0]), truth)
    assert {REPROJECTION, DISTANCE} <= set(refused(replace(motion, focal_px=2 * motion.focal_px), truth))
    assert REPROJECTION in refused(replace(motion, principal_px=motion.principal_px + [20, 0]), truth)
    assert refused(replace(motion, focal_px=2 * motion.focal_px, joints_m=motion.joints_m * [1, 1, 2]), truth)  # consistent, but not this camera


def test_another_moment_and_noise(motion, truth):
    assert REPROJECTION in refused(replace(motion, joints_m=motion.joints_m[::-1].copy()), truth)
    random = np.random.default_rng(0)
    noise = motion.root()[:, None] + random.normal(0, 0.4, motion.joints_m.shape)
    assert {REPROJECTION, SIDES, UPRIGHT, SPACE} <= set(refused(replace(motion, joints_m=noise), truth))
    behind = replace(motion, joints_m=motion.joints_m * [1, 1, -1])
    assert {REPROJECTION, DISTANCE} <= set(refused(behind, truth))


def test_who_is_missing(motion, truth):
    gone = replace(motion, joints_m=np.where(np.arange(len(motion))[:, None, None] == 5, np.nan, motion.joints_m))
    nameless = replace(motion, names=tuple(name.replace("left_knee", "somewhere") for name in motion.names))
    for wrong, word in ((gone, "absent"), (nameless, "left knee")):
        check, = judged(wrong, truth)
        assert check.state == "wrong" and word in check.found


class Tracks:
    """A take's tracking, changed."""

    def __init__(self, take, state=None, box=None, mask=None):
        self.people, self._take, self._changed, self._mask = take.people, take, {"state": state, "box": box}, mask

    def read(self, group, name, stage):
        given = np.array(self._take.read(group, name, stage))
        return given if self._changed.get(name) is None else self._changed[name](given)

    def mask(self, person, sample, stage):
        mask = self._take.mask(person, sample, stage)
        return mask if self._mask is None else self._mask(mask)


@pytest.mark.parametrize("name, change", [("box", lambda boxes: boxes + [40, 0, 40, 0]), ("box", lambda boxes: boxes * [1, 1, 1, 0.6]),
                                          ("state", lambda state: np.where(np.arange(len(state)) < 4, 2, state)), ("state", lambda state: 0 * state),
                                          ("mask", np.ones_like), ("mask", lambda mask: mask & (np.cumsum(mask).reshape(mask.shape) < 300))])
def test_masklets_elsewhere_or_of_something_else(take, truth, name, change):
    assert tracked("who", Tracks(take, **{name: change}), truth).state == "wrong"


def test_what_the_pipeline_took_and_why_it_stopped(take, monkeypatch):
    """The path of the command with the lite backend; fails where an error is not told in its words, or a missing part counts as proven."""
    found = list(proof.pipeline(Lite()))
    assert [check.state for check in found] == ["ok"] * 9 and found[-1].name == proof.BY_CLICK and "recover" in found[0].found
    monkeypatch.setattr(Lite, "lacks", lambda self, weights=None: ["the weights of SAM 3 (sam3.pt)"])
    missing, = proof.pipeline(Lite())
    assert missing.state == "missing" and "the weights of SAM 3 (sam3.pt)" in missing.found and missing.next == Lite.remedy
    monkeypatch.undo()

    class Blind(Lite):
        def stages(self, settings):
            stages = super().stages(settings)
            stages[2].run = lambda *_: (_ for _ in ()).throw(Body4DError("Nobody was found.", "Look again.", "nobody_found"))
            return stages

    word, click = proof.pipeline(Blind())
    assert (word.name, click.name) == (proof.NAME, proof.BY_CLICK)
    for check in (word, click):
        assert check.state == "wrong" and "after prepare" in check.found and "Nobody was found." in check.found and check.next == "Look again."


def test_the_full_backend_has_all_these_joints(truth):
    """By the same names: else its bodies could not be judged."""
    assert set(truth.reference.names) <= set(MHR70)
    for side in ("left", "right"):
        assert sum(name.startswith(tuple(f"{side}_{finger}" for finger in FINGERS)) for name in MHR70) == 20


def test_the_clip_is_the_one_that_is_documented():
    """THIRD_PARTY.md names what is bundled and its checksum."""
    text = (Path(__file__).resolve().parents[2] / "THIRD_PARTY.md").read_text(encoding="utf-8")
    for file in (proof.CLIP, proof.TRUTH):
        assert hashlib.sha256(file.read_bytes()).hexdigest() in text, file.name
    assert proof.CLIP.stat().st_size < 150_000
