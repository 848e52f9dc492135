# SPDX-License-Identifier: Apache-2.0
"""Pictures into SAM 3, masks out, and the word that it is asked for."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
from body4d_engine.errors import Body4DError  # noqa: E402
from body4d_engine.models.sam3 import pictures, text  # noqa: E402

from .sam3_nets import lively  # noqa: E402


def patches(mask: np.ndarray) -> list[np.ndarray]:
    """The connected patches of a mask, over edges and corners, by flooding."""
    left, found = mask.copy(), []
    while left.any():
        one, stack = np.zeros_like(mask), [tuple(np.argwhere(left)[0])]
        while stack:
            y, x = stack.pop()
            if 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1] and left[y, x]:
                left[y, x], one[y, x] = False, True
                stack += [(y + j, x + i) for j in (-1, 0, 1) for i in (-1, 0, 1)]
        found.append(one)
    return found


@pytest.mark.parametrize("area", [1, 5, 16])
def test_holes_are_filled_and_specks_removed_and_nothing_else(area):
    # Mutations: four neighbours instead of eight, `<` for `<=`, no limit at half of the mask, one round of spreading too few.
    random = np.random.default_rng(area)
    masks = [random.random((40, 30)) < share for share in (0.05, 0.4, 0.6, 0.95)] + [np.zeros((40, 30), bool)]
    masks[0][:] = False
    masks[0][3, 4:7] = True                            # somebody far away is not a speck
    snake = np.zeros((40, 30), bool)
    snake[5, 2:25], snake[7, 2:25], snake[6, 24], snake[20:30, 5:20] = True, True, True, True
    masks.append(snake)
    logits = torch.from_numpy(np.where(masks, 3.0, -3.0).astype(np.float32))
    got = pictures.clean(logits, area)
    for mask, before, after in zip(masks, logits.numpy(), got.numpy()):
        wanted = before.copy()
        for patch in patches(~mask):
            if patch.sum() <= area:
                wanted[patch] = 0.1
        inside = wanted > 0
        for patch in patches(inside):
            if patch.sum() <= min(area, inside.sum() // 2):
                wanted[patch] = -0.1
        np.testing.assert_array_equal(after, wanted.astype(np.float32))


def test_a_pixel_belongs_to_the_person_with_the_highest_logit():
    logits = torch.randn(3, 20, 20, generator=torch.Generator().manual_seed(0)) * 20
    got = pictures.exclusive(logits)
    assert ((got > 0).sum(0) <= 1).all()
    owner = logits.argmax(0)
    for k in range(3):
        assert torch.equal(got[k][owner == k], logits[k][owner == k])
        assert (got[k][owner != k] <= pictures.OUTSHONE).all()


def test_a_picture_is_squashed_with_antialiasing_into_minus_one_to_one():
    # Mutations: no antialiasing (a fine grid would turn black or white), another mean.
    grid = np.indices((112, 224)).sum(0) % 2 * 255
    picture = np.repeat(grid[..., None], 3, 2).astype(np.uint8)
    got = pictures.to_network(picture, 14)
    assert got.shape == (1, 3, 14, 14) and got.abs().max() < 0.05
    assert pictures.to_network(np.full((9, 5, 3), 255, np.uint8), 14).eq(1).all() and pictures.to_network(np.zeros((9, 5, 3), np.uint8), 14).eq(-1).all()
    with pytest.raises(ValueError, match="picture"):
        pictures.to_network(np.zeros((9, 5), np.uint8), 14)


def test_what_fills_up_the_words_is_not_read():
    # The published code fills with 0, the hub's tokenizer with the end token: neither may matter. Mutation: an encoder that looks ahead, or no mask.
    sam3 = lively()
    numbers, mask = text.tokens("person")
    assert numbers[:3] == [49406, 2533, 49407] and len(numbers) == len(mask) == 32 and sum(mask) == 3
    encode = sam3.net.detector_model.get_text_features
    with torch.inference_mode():
        one, other = (encode(input_ids=torch.tensor([numbers[:3] + [fill] * 29]), attention_mask=torch.tensor([mask])).pooler_output for fill in (0, text.END))
    assert torch.allclose(one[0, :3], other[0, :3], atol=1e-5) and one.abs().max() > 0.1
    with pytest.raises(Body4DError, match="giraffe"):
        text.tokens("giraffe")
