# SPDX-License-Identifier: Apache-2.0
"""The engine's own copy of a take: called by the take's id, made good from the client's copy where it is gone."""

import hashlib
import uuid
from types import SimpleNamespace

import numpy as np
import pytest

from body4d_engine.errors import Body4DError
from body4d_engine.pipeline import run
from body4d_engine.serve.requests import Requests
from body4d_engine.take import Take

from .fakes import FakeBackend, FakeClip, assert_same, contents


@pytest.fixture
def requests(tmp_path):
    return Requests(tmp_path / "cache", SimpleNamespace(check=None))


def take_at(path):
    list(run(FakeClip(), path, FakeBackend(), [], {}))
    return Take.open(path).id


def test_a_clip_that_another_engine_receives_is_not_cleared_away(requests, tmp_path):
    clip = {"name": "a.mp4", "files": [{"name": "a.mp4", "bytes": 4}], "sha256": hashlib.sha256(b"abcd").hexdigest(), "path": None, "stamp": None}
    assert not requests.offer(clip, {})[0]["have"]
    requests.send({"sha256": clip["sha256"], "file": "a.mp4", "offset": 0}, {"bytes": np.frombuffer(b"ab", np.uint8)})
    Requests(tmp_path / "cache", SimpleNamespace(check=None)).clear({}, {})
    requests.send({"sha256": clip["sha256"], "file": "a.mp4", "offset": 2}, {"bytes": np.frombuffer(b"cd", np.uint8)})
    assert requests.offer(clip, {})[0]["have"] and [path.name for path in (tmp_path / "cache" / "clips").iterdir()] == [clip["sha256"]]


def test_a_take_is_called_by_its_id(requests):
    name = uuid.uuid4().hex
    assert take_at(requests._take_folder(name)) == name


def test_the_clients_copy_is_gone_on_with_where_ours_is_gone(requests, tmp_path):
    name = take_at(tmp_path / "mine.take")
    (tmp_path / "mine.take" / "lock").touch()
    folder = requests._take_folder(name)
    requests._adopt(folder, str(tmp_path / "mine.take"))
    assert_same(contents(folder), contents(tmp_path / "mine.take"))
    assert not (folder / "lock").exists() and [path.name for path in folder.parent.iterdir()] == [folder.name]
    before = (folder / "take.json").stat().st_mtime_ns
    requests._adopt(folder, str(tmp_path / "gone.take"))  # ours is here: theirs is not looked at
    assert (folder / "take.json").stat().st_mtime_ns == before


def test_a_whole_copy_of_the_client_takes_the_place_of_ours(requests, tmp_path):
    name = take_at(tmp_path / "mine.take")
    ours, mine = requests._take_folder(name), tmp_path / "mine.take"
    requests._adopt(ours, str(mine))
    shared = [path for path in ours.rglob("*") if path.is_file() and path.samefile(mine / path.relative_to(ours))]
    assert len(shared) > 5 and not {path.name for path in shared} & {"take.json", "take.json.bak", "lock"}
    body = shared[0].relative_to(ours)
    whole, damaged = (mine / body).read_bytes(), tmp_path / "damaged"
    damaged.write_bytes(whole[:-1])
    for copy in (tmp_path / "gone.take", mine):
        damaged.replace(mine / body) if copy == mine else None
        requests.close({"take": name, "copy": str(copy)}, {})
        assert Take.exists(ours)
    (mine / body).write_bytes(whole)
    requests.close({"take": name, "copy": str(mine)}, {})
    assert not ours.exists() and (mine / body).read_bytes() == whole
    requests.close({"take": name, "copy": str(mine)}, {})
    requests._adopt(ours, str(mine))
    assert_same(contents(ours), contents(mine))


@pytest.mark.parametrize("copy", ["mine.take", "gone.take", "relative"])
def test_another_take_or_one_out_of_sight_is_not_taken_for_it(requests, tmp_path, copy):
    take_at(tmp_path / "mine.take")
    folder = requests._take_folder(uuid.uuid4().hex)
    with pytest.raises(Body4DError, match="does not have this take any more. Start over") as error:
        requests._adopt(folder, "mine.take" if copy == "relative" else str(tmp_path / copy))
    assert error.value.code == "take_unknown" and not folder.exists()
    requests._adopt(folder, None)
