# SPDX-License-Identifier: Apache-2.0
"""Every clip of the corpus of odd and broken ones opens and shows its pictures, or is refused for the reason that the corpus states."""

import sys
from pathlib import Path

import numpy as np
import pytest

from body4d_engine.clip import open_clip
from body4d_engine.errors import Body4DError

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
import corpus  # noqa: E402

WITH_PICTURES = ("people", "nobody_found")


@pytest.fixture(scope="module")
def material(demo_clip):
    material = corpus.Material(demo_clip)
    yield material
    material.clip.close()


@pytest.mark.parametrize("case", corpus.CASES, ids=lambda case: case.name)
def test_clip_of_the_corpus(case, material, tmp_path):
    start = int(case.options[1]) if case.options else 0
    path = case.make(tmp_path, material)
    if case.expected not in WITH_PICTURES:
        with pytest.raises(Body4DError) as refused:
            with open_clip(path, start=start) as clip:
                list(clip.iterate(clip.frames))
        assert refused.value.code == case.expected and refused.value.hint and path.name in str(refused.value)
        return
    with open_clip(path) as clip:
        frames = sorted({clip.frames[0], clip.frames[len(clip.frames) // 2], clip.frames[-1]})
        in_order = dict(clip.iterate(frames))
        assert all(rgb.shape == (clip.height, clip.width, 3) for rgb in in_order.values())
        for frame in reversed(frames):
            assert np.array_equal(clip.read(frame), in_order[frame])


@pytest.mark.parametrize("name", ["turned 90.mp4", "turned 180.mov", "mirrored.mp4", "interlaced.mpg", "hdr10.mp4", "alpha.mov", "wide pixels.mp4", "grey.mp4",
                                  "web.webm", "old.avi", "phone.mp4"])
def test_people_stand_upright_and_look_alike(name, material, tmp_path):
    """Whatever way it is stored, the first picture is the one that was put in."""
    case = next(case for case in corpus.CASES if case.name == name)
    with open_clip(case.make(tmp_path, material)) as clip:
        shown = clip.read(0).astype(float)
        original = material.pictures(2 * corpus.FRAMES if name.startswith("inter") else corpus.FRAMES, (clip.width, clip.height))[0].astype(float)
    if name == "wide pixels.mp4":
        assert clip.width == 640
    similar = np.corrcoef(shown.mean(2).ravel(), original.mean(2).ravel())[0, 1]
    assert similar > 0.97
    if name != "grey.mp4":
        assert np.abs(shown.mean((0, 1)) - original.mean((0, 1))).max() < 12
