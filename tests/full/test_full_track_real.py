# SPDX-License-Identifier: Apache-2.0
"""The full backend's tracking with the real SAM 3, tiny and with random weights: what comes out means nothing, but it must be what the tracker says."""

import os
from functools import partial

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from body4d_engine.events import Notice, Progress  # noqa: E402
from body4d_engine.models.sam3.tracker import Tracker  # noqa: E402
from body4d_engine.people import BoxPrompt, Person, Prompt  # noqa: E402
from body4d_engine.stages.full import finding, masklets  # noqa: E402
from body4d_engine.stages.full.track import Track  # noqa: E402
from body4d_engine.take import State, Take  # noqa: E402

from .fake_sam3 import World  # noqa: E402
from .sam3_nets import lively, pictures  # noqa: E402

PEOPLE = [Person(1, prompts=[Prompt(4, 30, 40)]), Person(3, prompts=[BoxPrompt(4, 60, 25, 100, 75)])]


class Pictures(World):
    def __init__(self, frames=10, size=(160, 90), seed=0, **options):
        super().__init__([], frames, size=size, **options)
        self.pictures = pictures(frames, size[1], size[0], seed)

    def read(self, frame):
        self.reads.append(frame)
        return self.pictures[frame]


@pytest.fixture(scope="module")
def sam3():
    return lively(1)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda file: None)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def go_on(world, take, people, sam3, stop_after=None, **options):
    track, events = Track(networks=lambda: (sam3, Tracker(sam3, exclusive=False), "cpu"), **options), []
    generator = track.run(world, people, take, take.begin("track", "k" * 16))
    for event in generator:
        if isinstance(event, Notice):
            take.notice(event)
        events.append(event)
        if stop_after is not None and sum(isinstance(event, Progress) for event in events) >= stop_after:
            generator.close()
            return events
    take.finish()
    return events


def run(world, tmp_path, people, sam3, name="t.take", **options):
    take = Take.create(tmp_path / name, world.describe(), "full")
    go_on(world, take, people, sam3, **options)
    return take


def alike(one, other, pixels=2):
    """The same but for the last digits, which depend on where in memory numbers lie and on what goes together, and with them a few pixels at the edges."""
    assert one.people == other.people
    for person in (p["id"] for p in one.people):
        for name, tolerance in (("state", 0), ("confidence", 1e-5), ("box", 2)):
            np.testing.assert_allclose(*(np.array(take.read(f"people/{person}", name), np.float64) for take in (one, other)), rtol=0, atol=tolerance)
        assert all((one.mask(person, sample) != other.mask(person, sample)).sum() <= pixels for sample in range(one.samples))


def test_masks_are_what_the_tracker_says(tmp_path, sam3):
    """Forward from the prompts to the end, backward to the start; fails for a wrong direction, order, frame number, mix-up of people or coordinates."""
    world = Pictures()
    take, tracker, logits, scores = run(world, tmp_path, PEOPLE, sam3), Tracker(sam3, exclusive=False), {}, {}
    tracker.start(160, 90, 10)
    tracker.prompt(4, 1, [(30, 40, True)])
    tracker.prompt(4, 3, box=(60, 25, 100, 75))
    for frame, reverse in [*((f, False) for f in range(4, 10)), *((f, True) for f in range(3, -1, -1))]:
        found = tracker.step(frame, world.pictures[frame], reverse)
        logits[frame], scores[frame] = torch.stack([found.logits[p] for p in (1, 3)]).numpy(), [found.scores[p] for p in (1, 3)]
    compared = 0
    for frame in range(10):
        best = logits[frame].argmax(0)
        for k, person in enumerate((1, 3)):
            mask = (best == k) & (logits[frame][k] > 0)
            if scores[frame][k] > 0.5 and mask.sum() >= masklets.OWN * (logits[frame][k] > 0).sum() and mask.any():
                assert (take.mask(person, frame) != mask).sum() <= 2
                y, x = np.nonzero(take.mask(person, frame))
                np.testing.assert_array_equal(take.read(f"people/{person}", "box")[frame], [x.min(), y.min(), x.max() + 1, y.max() + 1])
                assert take.read(f"people/{person}", "confidence")[frame] == pytest.approx(scores[frame][k], abs=1e-5)
                compared += 1
            else:
                assert not take.mask(person, frame).any() and take.read(f"people/{person}", "state")[frame] != State.VISIBLE
    assert compared >= 10


@pytest.mark.parametrize("stop_after", [2, 5, 8])
def test_killed_and_gone_on_is_the_same(tmp_path, sam3, stop_after):
    """In the way forward, at its end and in the way back."""
    whole = run(Pictures(), tmp_path, PEOPLE, sam3, "whole.take")
    take = Take.create(tmp_path / "cut.take", Pictures().describe(), "full")
    go_on(Pictures(), take, PEOPLE, sam3, stop_after, commit_every=2)
    take.close()
    with Take.open(tmp_path / "cut.take", writable=True) as take:
        world = Pictures()
        go_on(world, take, PEOPLE, sam3, commit_every=3)
        alike(take, whole)
        assert len(world.reads) < 11


def test_result_does_not_depend_on_how_many_go_together(tmp_path, sam3):
    alike(*(run(Pictures(), tmp_path, PEOPLE, sam3, f"{limit}.take", limit=limit) for limit in (None, 1)))


def test_everybody_is_found_and_each_picture_is_seen_once(tmp_path, monkeypatch):
    """The detector and the tracker share what the backbone made of a picture."""
    network, calls = lively(0), []
    monkeypatch.setattr(network, "detect", partial(type(network).detect, network, threshold=0.15))
    monkeypatch.setattr(finding, "SMALLEST_PX", 20.0)
    network.net.detector_model.vision_encoder.backbone.register_forward_hook(lambda *_: calls.append(1))
    world = Pictures(20, fps=10)
    take = run(world, tmp_path, [], network)
    assert [p["id"] for p in take.people] == list(range(1, 1 + len(take.people))) and len(take.people) >= 1
    assert len(calls) == len(world.reads) and world.reads[:20] == list(range(20))
    for sample in range(20):
        masks = [take.mask(p["id"], sample) for p in take.people]
        assert np.sum(masks, 0).max() <= 1


@pytest.mark.parametrize("size", [(3840, 2160), (216, 384)])
def test_four_k_and_portrait(tmp_path, sam3, size):
    width, height = size
    world = Pictures(2, size=size)
    take = run(world, tmp_path, [Person(2, prompts=[BoxPrompt(1, 0.4 * width, 0.3 * height, 0.7 * width, 0.8 * height)])], sam3)
    assert take.mask(2, 1).shape == (height, width) and take.mask(2, 1).any() and take.read("people/2", "box")[1, 3] <= height


def test_the_network_is_let_go(tmp_path):
    import gc
    import weakref

    made = []

    def networks():
        network = lively(1)
        made.append(weakref.ref(network))
        return network, Tracker(network, exclusive=False), "cpu"

    world = Pictures(5)
    take, track = Take.create(tmp_path / "t.take", world.describe(), "full"), Track(networks=networks)
    for _ in track.run(world, PEOPLE, take, take.begin("track", "k" * 16)):
        pass
    gc.collect()
    assert made[0]() is None


def test_weights_are_loaded_from_the_folder_and_what_is_missing_is_told(tmp_path, monkeypatch):
    """The stage as the backend makes it, but for the size of the network."""
    from safetensors.torch import save_file

    from body4d_engine.errors import Body4DError
    from body4d_engine.models.sam3 import model

    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setitem(model.CONFIGS, "full", model.CONFIGS["tiny"])
    world = Pictures(3)
    take = Take.create(tmp_path / "t.take", world.describe(), "full")
    people = [Person(1, prompts=[Prompt(1, 30, 40)])]
    with pytest.raises(Body4DError) as error:
        list(Track(tmp_path / "weights").run(world, people, take, take.begin("track", "k" * 16)))
    assert error.value.code == "weights_missing"
    (tmp_path / "weights" / "sam3").mkdir(parents=True)
    network = lively(1)
    tensors = {name: tensor.clone() for name, tensor in network.net.state_dict().items()}
    save_file(tensors, tmp_path / "weights" / "sam3" / "model.safetensors")
    for _ in Track(tmp_path / "weights").run(world, people, take, take.begin("track", "k" * 16)):
        pass
    take.finish()
    other = run(Pictures(3), tmp_path, people, network, "other.take")
    if not torch.cuda.is_available():
        alike(take, other)


@pytest.mark.parametrize("name, calls", [("encode_memory", (1, 4)), ("with_memory", (2,)), ("segment", (1, 5)), ("at_picture_size", (1, 6))])
def test_out_of_memory_anywhere_in_a_step_changes_nothing(tmp_path, sam3, monkeypatch, name, calls):
    """The tracker's step is begun anew with one person at a time: fails where it keeps half of what it did."""
    from body4d_engine.models.sam3 import network

    whole, real, count = run(Pictures(), tmp_path, PEOPLE, sam3, "whole.take"), getattr(network, name), []
    for fatal in calls:
        count.clear()

        def short(*given, fatal=fatal, **named):
            count.append(1)
            if len(count) == fatal:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.")
            return real(*given, **named)

        monkeypatch.setattr(network, name, short)
        take = run(Pictures(), tmp_path, PEOPLE, sam3, f"{fatal}.take")
        monkeypatch.setattr(network, name, real)
        alike(take, whole)
        assert len(count) > fatal
