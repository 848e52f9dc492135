# SPDX-License-Identifier: Apache-2.0
"""How far landmarks are believed: squeezed bodies, leaping limbs and what is outside the picture are doubted, real motion is not."""

import numpy as np
import pytest

from body4d_engine.fit import flips, trust

from .tracked import real_walk

SIZE = (1088, 1920)
LEFT_LEG = trust.LIMBS["left leg"]


@pytest.fixture(scope="module", params=[1])
def walk(request):
    return real_walk(request.param)


def measured(pixels, metres, box=None, size=SIZE):
    steady = trust.steadiness(pixels, metres, np.ones(len(pixels), bool), 1 / 60)
    box = np.tile([200.0, 200, 800, 1500], (len(pixels), 1)) if box is None else box
    return trust.measure(pixels, metres, box, steady, size)


def test_a_whole_person_is_believed(walk):
    image, space = measured(walk.px, walk.metres)
    assert image.mean() > 0.97 and space[:, flips.CORE].mean() > 0.9
    assert not trust.doubtful_limbs(image).any()


def test_landmarks_outside_the_picture_were_seen_by_nobody(walk):
    image, space = measured(walk.px, walk.metres, size=(1088, int(walk.px[50, 25:29, 1].min())))
    assert (image[50, 25:29] == 0).all() and (space[50, 25:29] <= trust.GUESSED).all() and image[50, 0] == 1
    assert trust.doubtful_limbs(image)[50, 1:].tolist() == [False, True, True]  # the left arm hangs down as far
    edge = trust._inside(np.array([[960.0, 540], [960, 1079], [-50, 540], [1900, 540]]), (1920, 1080))
    assert edge[0] == 1 and 0 < edge[1] < 0.1 and edge[2] == 0 and 0.3 < edge[3] < 0.4


def test_a_squeezed_body_is_doubted_the_more_where_it_is_cut(walk):
    small = walk.metres * 0.8
    whole_box, cut_box = np.tile([200.0, 200, 800, 1500], (100, 1)), np.tile([200.0, 200, 800, SIZE[1]], (100, 1))
    free, cut = measured(walk.px, small, whole_box)[0].mean(), measured(walk.px, small, cut_box)[0].mean()
    assert measured(walk.px, walk.metres * 0.6)[0].max() == pytest.approx(trust.LEAST) and cut < 0.6 * free


def test_one_short_bone_costs_its_limb_depth_only(walk):
    metres = walk.metres.copy()
    metres[:, 25] = metres[:, 23] + 0.1 * (metres[:, 25] - metres[:, 23])
    image, space = measured(walk.px, metres)
    before = measured(walk.px, walk.metres)
    assert (space[:, LEFT_LEG] == 0).all() and image[:, LEFT_LEG].min() > 0.5
    np.testing.assert_allclose(space[:, trust.LIMBS["right arm"]], before[1][:, trust.LIMBS["right arm"]] * image[:, [0]] / before[0][:, [0]], atol=0.05)


def test_squeezed_legs_are_doubted_and_the_rest_is_not(walk):
    metres = walk.metres.copy()
    metres[:, 25:33] *= 0.45
    doubtful = trust.doubtful_limbs(measured(walk.px, metres)[0])
    assert doubtful[:, 2:].all() and not doubtful[:, :2].any()


@pytest.mark.parametrize("visible, doubted", [(0.4, True), (0.97, False)])
def test_a_limb_that_leaps_and_is_back_did_not_move_unless_it_was_clearly_seen(walk, visible, doubted):
    pixels = walk.px.copy()
    pixels[40:48, LEFT_LEG, :2] += [300, -200]
    pixels[35:53, LEFT_LEG, 2] = visible
    image, _ = measured(pixels, walk.metres)
    assert trust.doubtful_limbs(image)[40:48, 2].all() == doubted
    assert not trust.doubtful_limbs(image)[:, [0, 1, 3]].any() and not trust.doubtful_limbs(image)[[*range(38), *range(50, 100)]].any()


def test_where_most_limbs_leap_the_body_does(walk):
    pixels = walk.px.copy()
    pixels[40:48, 11:23, :2] += [0, -300]
    pixels[40:48, 25:, :2] += [300, 0]
    pixels[..., 2] = 0.5
    assert (trust.steadiness(pixels, walk.metres, np.ones(100, bool), 1 / 60)[40:48] == 1).all()


def test_unseen_samples_and_short_clips_say_nothing(walk):
    seen = np.arange(100) != 44
    pixels = walk.px.copy()
    pixels[40:48, LEFT_LEG, :2] += 300
    pixels[:, LEFT_LEG, 2] = 0.3
    assert (trust.steadiness(pixels, walk.metres, seen, 1 / 60)[34:55] == 1).all()
    assert (trust.steadiness(pixels[:5], walk.metres[:5], seen[:5], 1 / 60) == 1).all()
