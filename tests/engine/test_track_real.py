# SPDX-License-Identifier: Apache-2.0
"""The whole stage with the real networks on the demo clip: an acrobat who somersaults, and a woman who walks in and out of the picture."""

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert")

from body4d_engine.clip import open_clip
from body4d_engine.errors import Body4DError
from body4d_engine.people import BoxPrompt, Person, Prompt
from body4d_engine.stages.track import Track
from body4d_engine.take import State, Take

ACROBAT, WALKER = 1, 2


def run(clip, path, people=(), events=None):
    """Track, giving up after so many events; the take."""
    take = Take.open(path, writable=True) if path.exists() else Take.create(path, clip.describe(), "lite")
    cursor = take.begin("track", "k" * 16)
    for count, _ in enumerate(Track().run(clip, list(people), take, cursor), 1):
        if count == events:
            take.close()
            return None
    take.finish()
    return take


@pytest.fixture(scope="module")
def demo(demo_clip, tmp_path_factory):
    with open_clip(demo_clip) as clip:
        clip.shots = (0,)
        yield run(clip, tmp_path_factory.mktemp("real") / "demo.take")


def landmarks(take, person):
    return np.array(take.read(f"people/{person}", "landmarks_px"))


def test_exactly_two_people_the_acrobat_throughout(demo):
    assert [p["id"] for p in demo.people] == [ACROBAT, WALKER]
    acrobat, walker = (np.array(demo.read(f"people/{p}", "state")) for p in (ACROBAT, WALKER))
    assert (acrobat == State.VISIBLE).mean() > 0.95
    assert not walker[:33].any() and (walker[48:195] == State.VISIBLE).all() and not walker[215:].any()


def test_who_leaves_is_not_squeezed_into_what_is_left(demo):
    """The walker goes out on the left, the acrobat behind a tree: no landmark counts while the body is too small."""
    for person, seen, hidden in ((WALKER, range(185, 195), range(198, 204)), (ACROBAT, range(180, 224), range(226, 229))):
        state, visibility = (np.array(demo.read(f"people/{person}", "state")), landmarks(demo, person)[:, :, 2].max(1))
        assert (state[seen] == State.VISIBLE).all() and (state[hidden] == State.OCCLUDED).all() and not visibility[hidden].any()


def test_ids_never_switch(demo):
    """The acrobat starts on the left and lands on the right; the walker goes from right to left on the ground."""
    x, y = landmarks(demo, WALKER)[45:195, [23, 24], :2].mean(1).T
    smooth = np.convolve(x, np.ones(9) / 9, "valid")
    assert (np.diff(smooth) < 0).all() and x[0] > 1400 and x[-1] < 200 and y.min() > 650
    steps = np.linalg.norm(np.diff(landmarks(demo, ACROBAT)[:225, [23, 24], :2].mean(1), axis=0), axis=1)
    assert steps.max() < 150 and landmarks(demo, ACROBAT)[:100, 23, 0].max() < 800


def test_the_somersault_is_followed(demo):
    """Upright before, upside down in the air, upright again, all within a second."""
    points = landmarks(demo, ACROBAT)
    whirl = np.array(demo.read(f"people/{ACROBAT}", "state"))[155:185]
    assert whirl.all() and (whirl == State.OCCLUDED).sum() <= 3  # single blurred pictures of it may be bridged
    trunk = points[:, [11, 12], 1].mean(1) - points[:, [23, 24], 1].mean(1)  # px; negative: shoulders above hips
    assert (trunk[100:155] < -40).all() and (trunk[184:190] < -40).all()
    assert trunk[172:179].max() > 10
    metres = np.array(demo.read(f"people/{ACROBAT}", "landmarks_m"))
    trunk_m = metres[:, [11, 12], 1].mean(1) - metres[:, [23, 24], 1].mean(1)
    assert np.sign(trunk_m[[120, 176, 187]]).tolist() == np.sign(trunk[[120, 176, 187]]).tolist()


def test_masks_lie_on_their_people_and_share_nothing(demo):
    for sample in range(50, 190, 20):
        masks = [demo.mask(p, sample) for p in (ACROBAT, WALKER)]
        assert not (masks[0] & masks[1]).any()
        for person, mask in zip((ACROBAT, WALKER), masks):
            x, y = landmarks(demo, person)[sample, [23, 24, 11, 12], :2].mean(0).astype(int)
            x0, y0, x1, y1 = np.array(demo.read(f"people/{person}", "box"))[sample]
            rows, columns = np.nonzero(mask)
            assert mask[y, x] and min(columns.min() - x0, x1 - columns.max(), rows.min() - y0, y1 - rows.max()) > -8  # px


def test_killed_and_resumed_with_the_real_networks(demo_clip, tmp_path):
    with open_clip(demo_clip, 60, 150) as clip:
        clip.shots = (60,)
        whole = run(clip, tmp_path / "whole.take")
        assert run(clip, tmp_path / "killed.take", events=1) is None and run(clip, tmp_path / "killed.take", events=1) is None
        again = run(clip, tmp_path / "killed.take")
    assert whole.people == again.people
    for person in whole.people:
        for name in ("state", "confidence", "box", "landmarks_px", "landmarks_m", "mask_index", "mask_bytes"):
            assert np.array_equal(whole.read(f"people/{person['id']}", name), again.read(f"people/{person['id']}", name)), name


@pytest.mark.parametrize("prompt", [Prompt(110, 985, 700), BoxPrompt(110, 900, 500, 1080, 940)], ids=["click", "box"])
def test_the_walker_alone_from_the_middle(demo_clip, tmp_path, prompt):
    with open_clip(demo_clip, 80, 140, 3) as clip:
        clip.shots = (80,)
        take = run(clip, tmp_path / "t.take", [Person(5, "Walker", prompts=[prompt])])
    assert [p["name"] for p in take.people] == ["Walker"]
    assert (np.array(take.read("people/5", "state")) == State.VISIBLE).all()
    assert landmarks(take, 5)[:, 23, 1].min() > 600


def test_a_click_on_the_wall_says_so(demo_clip, tmp_path):
    with open_clip(demo_clip, 100, 110) as clip:
        clip.shots = (100,)
        with pytest.raises(Body4DError, match="frame 105, position 300, 700") as error:
            run(clip, tmp_path / "t.take", [Person(1, prompts=[Prompt(105, 300, 700)])])
    assert error.value.code == "prompt_hit_nobody" and error.value.hint
