# SPDX-License-Identifier: Apache-2.0
"""The full backend over the pipe: a run with its settings arrives, whole, as a take of our own."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("cv2")
pytest.importorskip("av")

from body4d_engine import backends, wire  # noqa: E402
from body4d_engine.clip_files import identify  # noqa: E402
from body4d_engine.settings import checked  # noqa: E402
from body4d_engine.take import Take  # noqa: E402
from tests.engine.serving import Threaded  # noqa: E402

from .sam_3d_body_nets import network  # noqa: E402
from .test_full_pipeline import FRAMES, Tiny  # noqa: E402
from .test_full_pipeline import two_people  # noqa: E402

SETTINGS = {"hands": False, "memory_limit": 8_000_000_000}


def test_a_run_arrives_as_a_take(tmp_path, monkeypatch):
    monkeypatch.setitem(backends.BACKENDS, "full", Tiny(network()))
    two_people().write(tmp_path / "clip")
    client = Threaded(tmp_path / "cache")
    hello = client.result("hello", {"protocol": wire.PROTOCOL})
    assert hello["backends"]["full"]["lacks"] == [] and set(hello["backends"]["full"]["models"]) == {"ours", "official"}
    offer = identify(tmp_path / "clip")
    client.result("offer", {name: offer[name] for name in ("name", "files", "sha256", "path", "stamp")})
    request = {"sha256": offer["sha256"], "take": "a", "backend": "full", "settings": SETTINGS, "image_fps": 30}
    client.result("run", request, copy=tmp_path / "copy.take")
    client.close()
    assert [event["stage"] for event in client.events if event["event"] == "StageFinished"] == ["prepare", "camera", "track", "recover", "refine"]
    assert torch.cuda.is_available() or "no_gpu" in {event["code"] for event in client.events if event["event"] == "Notice"}
    with Take.open(tmp_path / "copy.take") as copy, Take.open(tmp_path / "cache" / "takes" / "a.take") as own:
        assert copy.backend == "full" and copy.settings == own.settings == checked(SETTINGS) and len(copy.people) == 2
        for person in (1, 2):
            for name in ("vertices", "root", "params", "joints", "rotations", "keypoints_m", "keypoints_px", "shape", "scale", "hands", "state"):
                ours, theirs = (np.asarray(take.by_sample(f"people/{person}", name)) for take in (own, copy))
                assert len(ours) == FRAMES and np.array_equal(ours, theirs), name
