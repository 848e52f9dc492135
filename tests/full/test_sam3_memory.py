# SPDX-License-Identifier: Apache-2.0
"""Which memories a frame looks at, and that nothing is deleted that a later frame would have looked at."""

import random

import pytest

pytest.importorskip("torch")
from body4d_engine.models.sam3.memory import GOOD, MASKS, POINTERS, PROMPTED, Bank, Memory, nearest_prompted  # noqa: E402


def memory(frame: int, quality: float) -> Memory:
    return Memory(pointer=frame, score=1.0, quality=quality, features=f"features of {frame}", logits=f"logits of {frame}")


def everything_kept(prompted, tracked, frame, reverse):
    """The published rule over a full history: frames and steps of the masks, frames and distances of the pointers. `tracked`: quality by frame."""
    step = -1 if reverse else 1
    near = nearest_prompted(prompted, frame)
    rest = [f for f in prompted if f not in near]
    worth = []
    f = frame - step
    while len(worth) < POINTERS - 1 and (f >= 1 if not reverse else f <= max([*tracked, *prompted])):
        if tracked.get(f, 0.0) > GOOD:
            worth.append(f)
        f -= step
    worth = worth[::-1]
    if frame - step not in worth:
        worth.append(frame - step)
    exists = set(tracked) | set(rest)
    masks = [(f, 0) for f in near] + [(worth[-n], n) for n in range(MASKS - 1, 0, -1) if n <= len(worth) and worth[-n] in exists]
    pointers = [(f, (frame - f) * step) for f in near if (frame - f) * step >= 0]
    pointers += [(worth[-n], n) for n in range(1, POINTERS) if n < len(worth) and worth[-n] in exists]
    return masks, pointers


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_a_bounded_bank_chooses_what_the_published_rule_chooses_from_everything(reverse, seed):
    # Mutations: drop one frame too many in `remember`, forget that the previous frame is always looked at, count pointers by time, use all prompted frames.
    chance = random.Random(seed)
    order = list(range(70))[:: -1 if reverse else 1]
    bank, tracked = Bank(), {}
    prompts = {order[0], *chance.sample(order, chance.choice([0, 2, 7]))}
    if seed % 2:                                  # frames prompted ahead of the pass
        bank.prompted = {f: memory(f, 1.0) for f in sorted(prompts)}
    share_of_bad = chance.choice([0.0, 0.3, 0.9])
    for frame in order:
        bank.enter(frame, reverse)
        if frame in prompts:
            bank.prompted[frame] = memory(frame, 1.0)
            continue
        choice = bank.choose(frame)
        masks, pointers = everything_kept(bank.prompted, tracked, frame, reverse)
        assert [(m.pointer, steps) for m, steps in choice.masks] == masks
        assert [(m.pointer, distance) for m, distance in choice.pointers] == pointers
        assert all(m.features is not None for m, _ in choice.masks)
        tracked[frame] = 0.0 if chance.random() < share_of_bad else chance.random()
        bank.remember(frame, memory(frame, tracked[frame]))
        assert len(bank.tracked) <= POINTERS
        assert sum(m.features is not None for m in bank.tracked.values()) <= MASKS - 1
        assert [f for f, m in bank.tracked.items() if m.logits is not None] == [frame]


def test_prompted_frames_are_the_closest_before_and_after_and_then_the_closest():
    assert nearest_prompted([0, 10, 20, 30, 40, 50], 31) == [30, 40, 20, 50]
    assert nearest_prompted([0, 1, 2, 3, 40], 4) == [3, 40, 2, 1]
    assert len(nearest_prompted(range(100), 50)) == PROMPTED


def test_a_pass_starts_from_the_prompted_frames():
    # Mutation: keep the tracked frames when the direction changes.
    bank = Bank(prompted={5: memory(5, 1.0)})
    for frame in range(5, 12):
        bank.enter(frame, False)
        if frame != 5:
            bank.remember(frame, memory(frame, 1.0))
    bank.enter(5, True)
    assert not bank.tracked
    bank.enter(4, True)
    assert [(m.pointer, s) for m, s in bank.choose(4).masks] == [(5, 0)]


def test_short_clips_look_at_fewer_pointers():
    bank = Bank(prompted={0: memory(0, 1.0)})
    for frame in range(1, 9):
        bank.enter(frame, False)
        bank.remember(frame, memory(frame, 1.0), frames=6)
    bank.enter(9, False)
    assert len(bank.choose(9, frames=6).pointers) == 5       # the prompted one, and four of the five that are kept
