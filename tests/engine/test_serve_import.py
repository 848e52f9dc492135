# SPDX-License-Identifier: Apache-2.0
"""Meshes of other tools become takes at the client's side of the pipe."""

import uuid

import pytest

from body4d_engine.take import Take

from .fakes import assert_same, contents
from .serving import Threaded
from .test_import_sam_3d_body import bring, saved, sequence


@pytest.fixture
def talker(tmp_path):
    talker = Threaded(tmp_path / "engine")
    yield talker
    talker.close()


def test_the_take_is_the_same_as_without_a_pipe(talker, tmp_path):
    files = [saved(tmp_path / "ana.npz", **sequence(4)), saved(tmp_path / "bo.npz", **sequence(3))]
    bring(files, tmp_path / "a.take", fps=25)
    request = {"sources": [str(file) for file in files], "take": uuid.uuid4().hex, "fps": 25}
    (tmp_path / "b.take").mkdir()
    assert talker.result("import_meshes", request, copy=tmp_path / "b.take")["summary"]
    assert [event["code"] for event in talker.events if event["event"] == "Notice"] == ["size_deduced"]
    assert_same(contents(tmp_path / "a.take"), contents(tmp_path / "b.take"))
    assert Take.open(tmp_path / "b.take").id == request["take"]


def test_what_cannot_be_imported_is_said(talker, tmp_path):
    (tmp_path / "a.npz").write_bytes(b"no arrays")
    assert talker.code("import_meshes", {"sources": [str(tmp_path / "a.npz")], "take": "a"})
    assert talker.code("import_meshes", {"sources": [str(tmp_path / "gone.npz")], "take": "a"}) == "no_such_file"
    assert talker.code("import_meshes", {"sources": [3], "take": "a"}) == "bad_request"
    assert talker.code("import_meshes", {"sources": ["a\0b"], "take": "a"}) == "bad_request"
    assert talker.code("import_meshes", {"sources": [], "take": "../a"}) == "bad_request"
