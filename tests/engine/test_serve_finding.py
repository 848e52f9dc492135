# SPDX-License-Identifier: Apache-2.0
"""Clicks and masks: with made-up people and networks, then with the real ones."""

import io
import zlib

import numpy as np
import pytest

from body4d_engine import wire
from body4d_engine.clip_files import identify
from body4d_engine.errors import Body4DError
from body4d_engine.people import BoxPrompt, Person, Prompt
from body4d_engine.serve.finding import KEEP, Finder
from body4d_engine.serve.server import Cancelled

from .fake_people import Actor, World
from .serving import Threaded


@pytest.fixture
def world():
    return World([Actor(lambda frame: (150 + frame, 120)), Actor(lambda frame: (450, 120), color=(30, 200, 60))])


class Counting:
    def __init__(self, network):
        self.network, self.count = network, 0

    def detect(self, *arguments):
        self.count += 1
        return self.network.detect(*arguments)


def finder_of(world, check=lambda: None):
    networks = [Counting(network) for network in world.networks()]
    return Finder(check, lambda: networks), networks


def clicks(*points, frame=0):
    return Person(3, prompts=[Prompt(frame, x, y, positive) for x, y, positive in points])


def test_everybody_has_a_mask_of_their_own_and_a_click_that_means_them(world):
    finder, _ = finder_of(world)
    found = finder.everybody(world, 5)
    assert len(found) == 2
    for seen, click in found:
        x, y = click
        assert seen.mask[int(y), int(x)]
        again = finder.meant(world, 5, clicks((x, y, True), frame=5))
        np.testing.assert_array_equal(again.mask, seen.mask)
        assert not any(other.mask[int(y), int(x)] for other, _ in found if other is not seen)
    assert not (found[0][0].mask & found[1][0].mask).any()


def test_clicks_boxes_and_what_they_rule_out(world):
    finder, _ = finder_of(world)
    left, right = (finder.meant(world, 0, clicks((x, 120, True))).mask for x in (150, 450))
    assert left[120, 150] and not left[120, 450] and right[120, 450]
    np.testing.assert_array_equal(finder.meant(world, 0, Person(1, prompts=[BoxPrompt(0, 400, 60, 500, 180)])).mask, right)
    np.testing.assert_array_equal(finder.meant(world, 0, clicks((450, 120, True), (150, 120, False))).mask, right)
    other_frame = Person(1, prompts=[Prompt(0, 150, 120), Prompt(9, 450, 120)])  # only what is said of the frame counts
    assert finder.meant(world, 9, other_frame).mask[120, 450]


@pytest.mark.parametrize("points, frame, code", [
    ([(300, 20, True)], 0, "prompt_hit_nobody"), ([(450, 120, True), (450, 110, False)], 0, "prompt_hit_nobody"),
    ([(450, 120, False)], 0, "prompt_only_negative"), ([(450, 120, True)], 4, "no_prompt"), ([(-5, 120, True)], 0, "prompt_outside_picture")])
def test_clicks_that_mean_nobody_say_why(world, points, frame, code):
    finder, _ = finder_of(world)
    with pytest.raises(Body4DError) as raised:
        finder.meant(world, frame, clicks(*points))
    assert raised.value.code == code and raised.value.hint


def test_a_second_click_on_a_frame_asks_no_network(world):
    finder, networks = finder_of(world)
    finder.everybody(world, 0)
    looked = [network.count for network in networks]
    finder.meant(world, 0, clicks((150, 120, True)))
    assert networks[0].count == looked[0] and networks[1].count <= looked[1] + 2  # the landmarker looks where the hint says
    looked = [network.count for network in networks]
    finder.meant(world, 0, clicks((150, 120, True)))
    assert [network.count for network in networks] == looked
    for frame in range(1, KEEP + 1):
        finder.everybody(world, frame)
    looked = networks[0].count
    finder.everybody(world, 0)  # long ago
    assert networks[0].count > looked
    finder.forget()
    finder.everybody(world, 0)
    assert networks[0].count > looked + 1


def test_thorough_looks_at_parts_of_a_large_picture_too():
    world = World([Actor(lambda frame: (150, 120))], size=(1500, 700))
    finder, networks = finder_of(world)
    finder.everybody(world, 0)
    looked = networks[0].count
    finder.everybody(world, 0, thorough=True)
    assert networks[0].count > looked + 3


def test_a_cancel_ends_it_before_the_next_network(world):
    left = [2]

    def check():
        left[0] -= 1
        if left[0] < 0:
            raise Cancelled

    finder, networks = finder_of(world, check)
    with pytest.raises(Cancelled):
        finder.everybody(world, 0)
    assert sum(network.count for network in networks) == 2
    left[0] = 4
    with pytest.raises(Cancelled):
        finder.meant(world, 1, clicks((150, 120, True), frame=1))


@pytest.fixture
def client(tmp_path, demo_clip):
    client = Threaded(tmp_path)
    clip = identify(demo_clip)
    assert client.result("offer", clip) == {"have": True}
    client.about = client.result("open", {"sha256": clip["sha256"]})["clip"]
    yield client
    client.close()


def test_the_real_networks_answer_over_the_pipe(client):
    message, arrays = client.ask("detect", {"frame": 100})
    people = message["result"]["people"]
    assert len(people) == 2 and client.about["frames"] > 100
    for person in people:
        mask = wire.unpack_mask(arrays[person["mask"]["array"]], person["mask"]["size"])
        assert mask.shape == (client.about["height"], client.about["width"]) and person["score"] > 0.5
        x0, y0, x1, y1 = person["box"]
        rows, columns = np.nonzero(mask)
        assert x0 - 4 <= columns.min() and columns.max() <= x1 + 4 and y0 - 4 <= rows.min() and rows.max() <= y1 + 4
        prompts = {"clicks": [[100, *person["click"], True]]}
        message, other = client.ask("mask", {"frame": 100, "person": {"id": 2, "prompts": prompts}})
        answer = message["result"]
        again = wire.unpack_mask(other["mask_0"], answer["mask"]["size"])
        assert answer["hit"] and answer["message"] == "" and answer["confidence"] > 0.5 and len(answer["box"]) == 4
        assert (mask & again).sum() > 0.9 * (mask | again).sum()
    message, arrays = client.ask("mask", {"frame": 100, "person": {"id": 2, "prompts": {"clicks": [[100, 2, 2, True]]}}})
    assert message["result"] == {"box": None, "confidence": None, "hit": False, "mask": None, "message": message["result"]["message"]}
    assert "hits nobody" in message["result"]["message"] and not arrays
    assert client.code("mask", {"frame": 100, "person": {"id": 0}}) == "bad_people"


def test_a_cancelled_detect_says_so(client):
    client.result("detect", {"frame": 0})
    check = client.server.requests._finder._detector.check
    client.server.requests._finder._detector.check = lambda: (client.tell("cancel"), wait(client), check())
    assert client.code("detect", {"frame": 30}) == "cancelled"
    client.server.requests._finder._detector.check = check
    assert client.result("detect", {"frame": 30})["people"]


def wait(client):
    while client.server._cancelled < client.server._current:
        pass


@pytest.mark.parametrize("shape", [(1, 1), (7, 13), (48, 64), (3, 5000), (0, 4)])
def test_masks_are_packed_and_unpacked(shape):
    mask = np.random.default_rng(1).random(shape) > 0.7
    stream = io.BytesIO()
    wire.send(stream, {}, {"mask_0": wire.pack_mask(mask)})
    stream.seek(0)
    unpacked = wire.unpack_mask(wire.receive(stream)[1]["mask_0"], list(shape))
    assert unpacked.dtype == bool
    np.testing.assert_array_equal(unpacked, mask)


@pytest.mark.parametrize("data, size", [
    (b"", [2, 2]), (b"nonsense", [2, 2]), (zlib.compress(bytes(1)), [9, 9]), (zlib.compress(bytes(1 << 20)), [4, 4]), (zlib.compress(bytes(1)), [1 << 30, 4]),
    (zlib.compress(bytes(1)), [-1, 4]), (zlib.compress(bytes(1)), "ab"), (zlib.compress(bytes(1)), [4]), (zlib.compress(bytes(1)), None)])
def test_masks_that_are_none_are_refused(data, size):
    with pytest.raises(wire.WireError, match="mask"):
        wire.unpack_mask(np.frombuffer(data, np.uint8), size)
