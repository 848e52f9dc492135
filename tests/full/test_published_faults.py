# SPDX-License-Identifier: Apache-2.0
"""Where the published code of SAM-Body4D and SAM 3D Body is wrong and ours is right, through the whole pipeline. One network at a time:

    the principal point is ignored in 2D points     test_sam_3d_body.test_the_principal_point_is_honoured, test_full_recover.test_a_record_is_what_...
    wrist and finger rotations are the old ones     test_sam_3d_body.test_a_result_can_be_rebuilt_from_its_parameters
    hands are cut from BGR                          test_sam_3d_body.test_hands_are_cut_from_rgb, and below for every network
    masks are 0 and 255                             test_sam_3d_body.test_masks_are_zero_and_one
    an empty crop makes NaN                         test_sam_3d_body.test_empty_crops_are_refused, test_nothing_is_nan; test_full_recover.test_odd_people
    everyone gets person 1's shape                  below
"""

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("av")

from body4d_engine import memory  # noqa: E402
from body4d_engine.backends import Full  # noqa: E402
from body4d_engine.clip import open_clip  # noqa: E402
from body4d_engine.models.moge.model import MoGe  # noqa: E402
from body4d_engine.models.sam3.model import Sam3  # noqa: E402
from body4d_engine.models.sam_3d_body.inference import Sam3dBody  # noqa: E402
from body4d_engine.people import Person, Prompt  # noqa: E402
from body4d_engine.pipeline import run  # noqa: E402
from body4d_engine.settings import checked  # noqa: E402
from body4d_engine.take import Take  # noqa: E402

from . import tiny_weights  # noqa: E402
from .fake_sam3 import Actor, World  # noqa: E402
from .sam3_nets import pictures  # noqa: E402
from .sam_3d_body_nets import network  # noqa: E402
from .test_full_pipeline import Tiny  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


def identities(folder, actors, left: int, right: int) -> dict[int, dict[str, np.ndarray]]:
    """A clip of two people, clicked as persons `left` and `right`: what recover found of each, and the one shape and scale that refine made of it."""
    world = World(actors, 8, size=(200, 120))
    people = [Person(left, prompts=[Prompt(0, 30, 60)]), Person(right, prompts=[Prompt(0, 150, 60)])]
    with open_clip(world.write(folder / "frames")) as clip:
        for _ in run(clip, folder / "a.take", Tiny(network()), people, checked({"hands": False})):
            pass
    with Take.open(folder / "a.take") as take:
        return {person: {stage: {name: np.array(take.by_sample(f"people/{person}", name, stage)[:]) for name in ("shape", "scale")}
                         for stage in ("recover", "refine")} for person in (left, right)}


def test_everybody_has_their_own_shape(tmp_path):
    """Fails if anybody gets another's, by id or by place in a list: each one's is among what was found of them, whatever the numbers are."""
    actors = [Actor(lambda frame: (20 + frame, 20)), Actor(lambda frame: (140 - 2 * frame, 30), tall=80)]
    first, second = identities(tmp_path / "a", actors, 1, 2), identities(tmp_path / "b", actors, 3, 1)
    for name in ("shape", "scale"):
        for person in (1, 2):
            found, kept = first[person]["recover"][name], first[person]["refine"][name]
            assert np.ptp(kept, axis=0).max() == 0
            assert (kept[0] >= found.min(0) - 1e-5).all() and (kept[0] <= found.max(0) + 1e-5).all()
        assert np.abs(first[1]["refine"][name][0] - first[2]["refine"][name][0]).max() > 1e-3  # so that it can be told whose it is
        np.testing.assert_allclose(second[3]["refine"][name], first[1]["refine"][name], atol=1e-5)
        np.testing.assert_allclose(second[1]["refine"][name], first[2]["refine"][name], atol=1e-5)


def test_every_network_is_shown_red_as_red(tmp_path, monkeypatch):
    """A clip in shades of red reaches each of the three networks, and the hand crops, in red. Fails if anything on the way takes BGR for RGB."""
    tiny_weights.use(monkeypatch, tiny_weights.write(tmp_path / "weights"), tmp_path)
    shown = {}

    def spied(owner, name, label, which):
        real = getattr(owner, name)

        def call(*given, **named):
            shown.setdefault(label, []).append(np.asarray(which(given)))
            return real(*given, **named)

        monkeypatch.setattr(owner, name, call)

    spied(Sam3, "see", "SAM 3", lambda given: given[1])
    spied(MoGe, "focal", "MoGe-2", lambda given: given[1][0])
    spied(Sam3dBody, "encode", "SAM 3D Body", lambda given: given[1].movedim(1, -1))
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, picture in enumerate(pictures(2)):
        cv2.imwrite(str(folder / f"{number:04d}.png"), picture[..., ::-1] * np.array([0, 0, 1], np.uint8))  # which writes BGR
    monkeypatch.setattr(memory, "best_device", lambda: "cpu")
    with open_clip(folder) as clip:
        for _ in run(clip, tmp_path / "a.take", Full(), [Person(1, prompts=[Prompt(0, 30, 40)])], checked()):
            pass
    assert set(shown) == {"SAM 3", "MoGe-2", "SAM 3D Body"}
    assert len(shown["SAM 3D Body"]) >= 2  # the bodies' crops and the hands'
    for label, given in shown.items():
        for picture in given:
            assert picture[..., 0].max() > 100 and not picture[..., 1:].any(), label
