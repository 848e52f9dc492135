# SPDX-License-Identifier: Apache-2.0
"""People who are hidden, cut off, or not there, odd ids, short clips and odd pictures, through all stages of the full backend to the user's screen.

Tracking follows made-up people exactly, so that it is known who is seen where; what comes after it is real, with a tiny random network. At the end of the
file everything is real."""

import json

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("av")

from body4d_engine import backends, memory  # noqa: E402
from body4d_engine.cli import main  # noqa: E402
from body4d_engine.take import State, Take  # noqa: E402

from . import tiny_weights  # noqa: E402
from .fake_sam3 import Actor, World  # noqa: E402
from .sam3_nets import pictures  # noqa: E402
from .sam_3d_body_nets import network  # noqa: E402
from .test_full_pipeline import Tiny  # noqa: E402

ARRAYS = ("vertices", "root", "params", "joints", "rotations", "keypoints_m", "keypoints_px", "confidence", "shape", "scale")


@pytest.fixture(scope="module")
def net():
    torch.set_num_threads(1)
    return network()


@pytest.fixture
def run(net, tmp_path, monkeypatch, capsys):
    """Draws a world and runs the command on it. Returns exit status, what was said, and the take (None where there is no result)."""
    monkeypatch.setitem(backends.BACKENDS, "full", Tiny(net))
    monkeypatch.setattr(memory, "best_device", lambda: "cpu")
    takes = []

    def go(world, *options):
        folder = world.write(tmp_path / "frames")
        status = main(["run", str(folder), "--out", str(tmp_path / "a.take"), "--backend", "full", "--body-only", "--image-fps", "10", *options])
        said = capsys.readouterr()
        if status == 0:
            takes.append(Take.open(tmp_path / "a.take"))
        return status, said.out + said.err, takes[-1] if takes else None

    yield go
    for take in takes:
        take.close()


def states(take, person: int) -> str:
    """As tracked, one letter a sample."""
    return "".join("-vof"[state] for state in np.asarray(take.read(f"people/{person}", "state", "track")))


def assert_sound(take, person: int) -> None:
    """Everything is a number, and there is a result wherever the person is not absent."""
    group, stage = f"people/{person}", take.result_stage(person)
    assert stage == "refine"
    seen = np.flatnonzero(np.asarray(take.read(group, "state", "track")))
    for name in ARRAYS:
        values = take.by_sample(group, name, stage)
        assert values.span == (seen[0], seen[-1] + 1) and np.isfinite(np.asarray(values[seen[0] : seen[-1] + 1])).all(), name


def still(x=40, y=20, away=(), **options) -> Actor:
    return Actor(lambda frame: None if frame in away else (x + frame, y), **options)


FRONT = {"tall": 90, "wide": 60, "front": 5}


def test_hidden_on_some_frames(run):
    """Who walks behind somebody has no mask there: their body goes on between, and is said to be so."""
    status, said, take = run(World([Actor(lambda frame: (10 + 12 * frame, 25)), still(60, 15, **FRONT)], 12, size=(200, 120)))
    assert status == 0 and len(take.people) == 2
    hidden = next(person["id"] for person in take.people if "o" in states(take, person["id"]))
    text = states(take, hidden)
    assert text.strip("-")[0] == "v" and text.strip("-")[-1] == "v" and "o" in text
    assert_sound(take, hidden), assert_sound(take, 3 - hidden)
    refined = np.asarray(take.by_sample(f"people/{hidden}", "state", "refine")[:])
    assert all(refined[sample] in (State.OCCLUDED, State.FILLED) for sample in range(12) if text[sample] == "o")
    line = next(line for line in said.splitlines() if f"Person {hidden} (id {hidden}): " in line)
    assert "occluded" in line or "filled" in line


def test_hidden_on_the_first_frame(run):
    """Clicked where they are seen: before that they are absent, not a body without numbers."""
    status, _, take = run(World([still(away=(0, 1))], 8, size=(200, 120)), "--click", "1:2,50,40")
    assert status == 0 and states(take, 1) == "--vvvvvv"
    assert_sound(take, 1)


def test_never_seen(run):
    """A click on nobody is said before anything is made of it; so is a clip with nobody."""
    status, said, take = run(World([still(away=range(8))], 8, size=(200, 120)), "--click", "1:2,50,40")
    assert status == 1 and "The prompt of Person 1 (id 1) at frame 2 hits nobody." in said and "Click the middle of the body" in said and take is None


def test_nobody_at_all(run):
    status, said, take = run(World([still(away=range(8))], 8, size=(200, 120)))
    assert status == 1 and "Nobody was found in frames, frames 0 to 7." in said and "Click a person (--click ID:FRAME,X,Y)" in said and take is None


def test_a_frame_with_nobody(run):
    """Everybody is away for two frames, and comes back as who they were."""
    status, _, take = run(World([still(away=(4, 5)), still(130, away=(4, 5))], 10, size=(200, 120)))
    assert status == 0 and len(take.people) == 2
    for person in (1, 2):
        assert states(take, person)[4:6] in ("oo", "--") and states(take, person).count("v") == 8
        assert_sound(take, person)


def test_cut_by_the_border(run):
    """At the left, at the bottom right, and walking out: nothing is read outside, and what lies there is not trusted."""
    actors = [Actor(lambda frame: (-18, 20)), Actor(lambda frame: (182, 40), tall=90), Actor(lambda frame: (60 + 22 * frame, 20))]
    status, _, take = run(World(actors, 9, size=(200, 120)))
    assert status == 0 and len(take.people) == 3
    for person in (1, 2, 3):
        assert_sound(take, person)
        begin, stop = take.by_sample(f"people/{person}", "root", "refine").span
        boxes = np.asarray(take.read(f"people/{person}", "box", "track"))[begin:stop]
        assert (boxes >= 0).all() and (boxes <= [200, 120, 200, 120]).all()
        points = np.asarray(take.by_sample(f"people/{person}", "keypoints_px", "recover")[begin:stop])
        outside = ((points[..., :2] < 0) | (points[..., :2] > [200, 120])).any(-1)
        assert outside.any() and (points[outside, 2] == 0).all()


def test_ids_one_and_three(run):
    """Arrays are by id: nobody is called 2, and each id is the person that was clicked."""
    status, said, take = run(World([still(30), still(120)], 6, size=(200, 120)), "--click", "3:0,40,50", "--box", "1:0,120,20,150,90")
    assert status == 0 and [person["id"] for person in take.people] == [1, 3] and "Person 3 (id 3)" in said and "id 2" not in said
    assert sorted(path.name for path in (take.path / "people").iterdir()) == ["1", "3"]
    for person, x in ((3, 30), (1, 120)):
        assert_sound(take, person)
        assert abs(np.asarray(take.read(f"people/{person}", "box", "track"))[0, 0] - x) <= 5


@pytest.mark.parametrize("frames", [1, 2])
def test_a_clip_shorter_than_the_number_of_people(run, frames):
    actors = [still(20 + 45 * number, **{"wide": 25}) for number in range(5)]
    status, _, take = run(World(actors, frames, size=(260, 120)))
    assert status == 0 and len(take.people) == 5 and take.samples == frames
    roots = [np.asarray(take.by_sample(f"people/{person}", "root", "refine")[:]) for person in range(1, 6)]
    for person in range(1, 6):
        assert_sound(take, person)
    assert all(np.abs(roots[one] - roots[two]).max() > 1e-3 for one in range(5) for two in range(one))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.set_num_threads(1)
    return tiny_weights.write(tmp_path_factory.mktemp("weights"))


@pytest.mark.parametrize("width, height", [(3840, 2160), (216, 384)])
def test_four_k_and_portrait(weights, tmp_path, monkeypatch, capsys, width, height):
    """All real, tiny: arrays and masks are of the source's pixels, upright."""
    tiny_weights.use(monkeypatch, weights, tmp_path)
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, picture in enumerate(pictures(2, height // 4, width // 4)):
        cv2.imwrite(str(folder / f"{number:04d}.jpg"), np.kron(picture, np.ones((4, 4, 1), np.uint8)))
    box = f"7:1,{0.4 * width:.0f},{0.3 * height:.0f},{0.7 * width:.0f},{0.8 * height:.0f}"
    summary = tmp_path / "summary.json"
    status = main(["run", str(folder), "-o", str(tmp_path / "a.take"), "--backend", "full", "--box", box, "--summary-json", str(summary)])
    assert status == 0 and json.loads(summary.read_text())["people"]
    with Take.open(tmp_path / "a.take") as take:
        assert (take.clip["width"], take.clip["height"]) == (width, height) and take.mask(7, 1, "track").shape == (height, width)
        np.testing.assert_allclose(take.camera()["principal_px"], np.tile([width / 2, height / 2], (2, 1)))
        assert_sound(take, 7)
    assert "Traceback" not in capsys.readouterr().err
