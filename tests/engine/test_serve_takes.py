# SPDX-License-Identifier: Apache-2.0
"""The engine's own copy of a take: called by the take's id, made good from the client's copy where it is gone."""

import uuid

import pytest

from body4d_engine.errors import Body4DError
from body4d_engine.pipeline import run
from body4d_engine.serve.requests import Requests
from body4d_engine.take import Take

from .fakes import FakeBackend, FakeClip, assert_same, contents


@pytest.fixture
def requests(tmp_path):
    return Requests(tmp_path / "cache", None)


def take_at(path):
    list(run(FakeClip(), path, FakeBackend(), [], {}))
    return Take.open(path).id


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


@pytest.mark.parametrize("copy", ["mine.take", "gone.take", "relative"])
def test_another_take_or_one_out_of_sight_is_not_taken_for_it(requests, tmp_path, copy):
    take_at(tmp_path / "mine.take")
    folder = requests._take_folder(uuid.uuid4().hex)
    with pytest.raises(Body4DError, match="does not have this take any more. Start over") as error:
        requests._adopt(folder, "mine.take" if copy == "relative" else str(tmp_path / copy))
    assert error.value.code == "take_unknown" and not folder.exists()
    requests._adopt(folder, None)
