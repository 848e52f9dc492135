# SPDX-License-Identifier: Apache-2.0
"""The take on disk: what is committed survives, what is not is not seen."""

import json
import struct

import numpy as np
import pytest

from body4d_engine.errors import TakeError
from body4d_engine.masks import decode_mask, encode_mask
from body4d_engine.people import Person
from body4d_engine.take import State, Take, delete_take

CLIP = {"name": "clip.mp4", "path": None, "fingerprint": "abc", "width": 64, "height": 48, "fps": [30000, 1001], "frame_count": 20,
        "start": 0, "end": 20, "step": 1}


@pytest.fixture
def take(tmp_path):
    with Take.create(tmp_path / "a.take", CLIP, "lite") as take:
        yield take


def write(take, stage="recover", key="k" * 16, samples=5, people=(1,), value=0.0):
    take.begin(stage, key)
    for person in people:
        take.create_array(f"people/{person}", "vertices", "f4", (3, 3), pc2=True)
        take.create_array(f"people/{person}", "state", "u1", ())
        take.append(f"people/{person}", "vertices", value + np.arange(samples * 9, dtype=np.float32).reshape(samples, 3, 3))
        take.append(f"people/{person}", "state", np.full(samples, State.VISIBLE))


def said(code):
    return {"stage": "import", "code": code, "message": "It happened."}


def test_reader_sees_only_what_is_committed(take):
    write(take)
    reader = Take.open(take.path)
    assert not reader.has("people/1", "vertices")
    take.commit({"next": 5})
    reader.refresh()
    np.testing.assert_array_equal(reader.read("people/1", "vertices")[4, 2], [42, 43, 44])
    take.append("people/1", "vertices", np.zeros((2, 3, 3)))
    assert take.count("people/1", "vertices") == 7
    reader.refresh()
    assert len(reader.read("people/1", "vertices")) == 5


def test_pc2_header_counts_committed_samples(take):
    write(take)
    take.commit()
    header = take.file_of("people/1", "vertices").read_bytes()[:32]
    assert struct.unpack("<12siiffi", header) == (b"POINTCACHE2\0", 1, 3, 0.0, 1.0, 5)


def test_resume_goes_on_at_the_last_commit(take):
    write(take)
    take.commit({"next": 5, "x": 0.1})
    take.append("people/1", "state", np.zeros(3))
    take.close()
    with Take.open(take.path, writable=True) as again:
        assert again.begin("recover", "k" * 16) == {"next": 5, "x": 0.1}
        assert again.count("people/1", "state") == 5
        again.append("people/1", "state", np.full(1, State.ABSENT))
        again.finish()
        assert again.read("people/1", "state").tolist() == [1] * 5 + [0]


def test_another_key_starts_from_nothing_and_keeps_the_old_result_readable_until_it_is_done(take):
    write(take, key="a" * 16)
    take.finish()
    old = take.file_of("people/1", "vertices")
    write(take, key="b" * 16, value=100)
    take.commit({})
    assert take.read("people/1", "vertices")[0, 0, 0] == 0
    take.finish()
    assert take.read("people/1", "vertices")[0, 0, 0] == 100
    assert not old.exists()


def test_refine_is_read_before_recover_once_it_is_complete(take):
    write(take)
    take.finish()
    write(take, stage="refine", value=7)
    take.commit({})
    assert take.result_stage(1) == "recover" and take.read("people/1", "vertices")[0, 0, 0] == 0
    take.finish()
    assert take.result_stage(1) == "refine" and take.read("people/1", "vertices")[0, 0, 0] == 7


@pytest.mark.parametrize("damage", ["array", "npz"])
def test_a_damaged_stage_is_not_complete(take, damage):
    write(take)
    take.write_npz("people/1/body.recover.npz", faces=np.arange(12))
    take.finish()
    assert take.is_complete("recover", "k" * 16)
    victim = take.file_of("people/1", "vertices") if damage == "array" else take.path / "people/1/body.recover.npz"
    victim.write_bytes(victim.read_bytes()[:-1])
    assert not take.is_complete("recover", "k" * 16)
    if damage == "array":
        assert len(take.read("people/1", "vertices")) == 4
    else:
        with pytest.raises(TakeError, match="body.recover.npz.*damaged"):
            take.body(1)


@pytest.mark.parametrize("length", [0, 1, 57, -1])
def test_a_truncated_take_json_falls_back_to_the_one_before(take, length):
    write(take)
    take.commit({"next": 5})
    take.commit({"next": 6})
    path = take.path / "take.json"
    path.write_bytes(path.read_bytes()[:length])
    take.close()
    with Take.open(take.path, writable=True) as again:
        assert again.begin("recover", "k" * 16) == {"next": 5}


def test_records_of_the_wrong_shape_are_refused(take):
    write(take)
    with pytest.raises(ValueError, match=r"\[3, 3\]"):
        take.append("people/1", "vertices", np.zeros((1, 4, 3)))


def test_large_appends_spill_to_disk_and_count_only_when_committed(take, monkeypatch):
    monkeypatch.setattr("body4d_engine.take.SPILL_BYTES", 100)
    write(take, samples=50)
    assert take.file_of("people/1", "vertices").stat().st_size > 100
    take.append("people/1", "vertices", np.full((1, 3, 3), 5))
    assert take.count("people/1", "vertices") == 51
    assert len(Take.open(take.path).read("people/1", "state", "recover") if Take.open(take.path).has("people/1", "state") else []) == 0
    take.commit()
    data = take.read("people/1", "vertices")
    assert len(data) == 51 and data[49, 2, 2] == 449 and data[50, 0, 0] == 5


@pytest.mark.parametrize("case", ["empty", "full", "one pixel", "random"])
def test_masks_round_trip(take, case):
    mask = {"empty": np.zeros((48, 64), bool), "full": np.ones((48, 64), bool), "one pixel": np.eye(48, 64, 63, dtype=bool),
            "random": np.random.default_rng(0).random((48, 64)) > 0.7}[case]
    data, box = encode_mask(mask)
    np.testing.assert_array_equal(decode_mask(data, box, 48, 64), mask)
    take.begin("track", "t" * 16)
    take.append_mask("people/1", None)
    take.append_mask("people/1", mask)
    take.commit()
    take.append_mask("people/1", ~mask)
    take.finish()
    np.testing.assert_array_equal(take.mask(1, 0), False)
    np.testing.assert_array_equal(take.mask(1, 1), mask)
    np.testing.assert_array_equal(take.mask(1, 2), ~mask)


def test_dropped_groups_leave_no_files(take):
    take.begin("track", "t" * 16)
    take.create_array("tracklets/1", "box", "f4", (4,))
    take.append("tracklets/1", "box", np.zeros((3, 4)))
    take.commit({})
    file = take.file_of("tracklets/1", "box")
    take.drop_group("tracklets/1")
    take.finish()
    assert not file.exists() and not take.has("tracklets/1", "box")


def test_messages_name_the_folder_and_the_way_out(tmp_path, take):
    with pytest.raises(TakeError, match="no take at .*nothing.take"):
        Take.open(tmp_path / "nothing.take")
    with pytest.raises(TakeError, match="Another Body4D process is writing .*a.take"):
        Take.open(take.path, writable=True)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "x.jpg").touch()
    with pytest.raises(TakeError, match=r"photos exists and holds other files \(x.jpg\)"):
        Take.create(tmp_path / "photos", CLIP, "lite")
    (tmp_path / "photos" / "take.json").write_text("{}")
    with pytest.raises(TakeError, match="not a readable take"):
        Take.open(tmp_path / "photos")
    meta = json.loads((take.path / "take.json").read_text())
    (take.path / "take.json").write_text(json.dumps({**meta, "schema": 99}))
    with pytest.raises(TakeError, match="made by a newer Body4D"):
        Take.open(take.path)


def test_a_full_disk_is_named_and_loses_nothing(take, monkeypatch):
    write(take)
    take.commit({"next": 5})
    take.append("people/1", "state", np.zeros(3))

    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(TakeError, match="disk is full.*nothing is lost") as error:
            take.commit({"next": 8})
    assert error.value.code == "disk_full"
    take.close()
    with Take.open(take.path, writable=True) as again:
        assert again.begin("recover", "k" * 16) == {"next": 5}
        assert again.read("people/1", "vertices", "recover").shape == (5, 3, 3)


def test_a_reader_keeps_the_old_result_whole_while_a_new_one_is_written(take):
    """Faces, people and notices go with the meshes they belong to, also where the new run is killed."""
    write(take, stage="import")
    take.write_npz("people/1/body.import.npz", faces=np.zeros((1, 3)))
    take.set_people([Person(1).to_json()])
    take.notice(said("old"))
    take.finish()
    write(take, stage="import", key="z" * 16, value=9)
    take.write_npz("people/1/body.import.npz", faces=np.zeros((7, 3)))
    take.set_people([Person(1).to_json(), Person(2).to_json()])
    take.notice(said("new"))
    take.commit({})
    assert len(take.read_npz("people/1/body.import.npz")["faces"]) == 7  # the writer sees its own
    with Take.open(take.path) as reader:
        assert len(reader.body(1)["faces"]) == 1 and reader.read("people/1", "vertices")[0, 0, 0] == 0
        assert reader.people == [Person(1).to_json()] and reader.notices() == [said("old")]
        take.finish()
        reader.refresh()
        assert len(reader.body(1)["faces"]) == 7 and len(reader.people) == 2 and reader.notices() == [said("new")]
    assert len(list(take.path.rglob("*.npz"))) == 1


def test_a_stage_written_anew_reads_itself_and_not_its_older_result(take):
    write(take, stage="track", key="a" * 16)
    take.finish()
    write(take, stage="track", key="b" * 16, value=100)
    take.create_array("tracklets/0", "x", "f4", ())
    take.append("tracklets/0", "x", [5.0])
    take.commit({})
    take.close()
    with Take.open(take.path, writable=True) as again:
        again.begin("track", "b" * 16)
        assert again.read("people/1", "vertices", "track")[0, 0, 0] == 100 and again.read("tracklets/0", "x", "track").tolist() == [5]
        assert Take.open(take.path).read("people/1", "vertices", "track")[0, 0, 0] == 0


@pytest.mark.parametrize("change", [{"schema": "1"}, {"schema": None}, {"clip": []}, {"people": None}, {"stages": 3}, {"working": 3}])
def test_a_take_json_with_wrong_types_falls_back_to_the_one_before(take, change):
    take.begin("track", "t" * 16)
    take.commit()
    meta = json.loads((take.path / "take.json").read_text())
    (take.path / "take.json").write_text(json.dumps({**meta, **change}))
    assert Take.open(take.path).samples == 20
    take.close()
    Take.open(take.path, writable=True).close()
    assert not (take.path / "take.json").exists()  # or the next commit would keep it as the one before


def test_files_that_no_take_json_names_are_swept_and_those_of_others_stay(take):
    write(take)
    take.finish()
    kept = take.path / "people/1/notes.txt"
    kept.touch()
    left = [take.path / "people/1/mesh.0123456789ab.pc2", take.path / "people/9/body.refine.0123456789ab.npz.tmp", take.path / ".proxy.mp4.part",
            take.path / "camera.npz"]
    (take.path / "people/9").mkdir()
    for file in left:
        file.touch()
    take.close()
    with Take.open(take.path, writable=True) as again:
        assert not any(file.exists() for file in left) and not (take.path / "people/9").exists()
        assert kept.exists() and again.is_complete("recover", "k" * 16)


def test_a_missing_file_is_named(take):
    write(take)
    take.finish()
    file = take.file_of("people/1", "vertices")
    file.unlink()
    with pytest.raises(TakeError, match=f"{file.name} is missing"):
        take.read("people/1", "vertices")


def test_a_take_that_is_being_written_is_not_deleted(take):
    with pytest.raises(TakeError, match="Another Body4D process is writing .*a.take"):
        delete_take(take.path)
    assert Take.exists(take.path)
    take.close()
    delete_take(take.path)
    assert not take.path.exists()


def test_a_take_whose_file_is_open_elsewhere_says_so_when_it_is_deleted(take, monkeypatch):
    take.begin("track", "t" * 16)
    (take.path / "proxy.mp4").touch()
    take.close()

    def refuse(path, **_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path.unlink", refuse)
    with pytest.raises(TakeError, match="a.take could not be deleted: Permission denied .*Close what has it open"):
        delete_take(take.path)


@pytest.mark.parametrize("number, outcome", [(11, "Another Body4D process"), (5, "lock could not be written")])
def test_a_lock_that_cannot_be_had_says_why(take, monkeypatch, number, outcome):
    take.close()
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_):
        raise OSError(number, "no lock")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(TakeError, match=outcome):
        Take.open(take.path, writable=True)


def test_a_result_of_a_part_is_read_by_sample(take):
    take.begin("recover", "k" * 16)
    for name, dtype, shape in (("vertices", "f4", (3, 3)), ("root", "f4", (3,)), ("state", "u1", ()), ("confidence", "f4", ())):
        take.create_array("people/1", name, dtype, shape, pc2=name == "vertices", span=(4, 9))
    arrays = {name: take.by_sample("people/1", name) for name in ("vertices", "root", "state")}
    assert all(len(array) == 0 and array.span == (4, 4) for array in arrays.values())  # what comes of it is not known yet
    take.append("people/1", "vertices", np.arange(27).reshape(3, 3, 3))
    for name in ("root", "state", "confidence"):
        take.append("people/1", name, np.ones((3, *take.by_sample("people/1", name).shape[1:])))
    take.commit({})
    vertices, state = take.by_sample("people/1", "vertices"), take.by_sample("people/1", "state")
    assert len(vertices) == 7 and vertices.shape == (7, 3, 3) and vertices.span == (4, 7) and take.count("people/1", "vertices") == 3
    assert state[:].tolist() == [0, 0, 0, 0, 1, 1, 1]
    take.append("people/1", "vertices", np.full((2, 3, 3), 50))
    for name in ("root", "state", "confidence"):
        take.append("people/1", name, np.ones((2, *take.by_sample("people/1", name).shape[1:])))
    take.finish()
    reader = Take.open(take.path)
    vertices, state, confidence = (reader.by_sample("people/1", name) for name in ("vertices", "state", "confidence"))
    assert len(vertices) == len(state) == 20 and vertices.span == (4, 9)  # everything is known of somebody of whom all is written
    whole = np.concatenate([[reader.read("people/1", "vertices")[0]] * 4, reader.read("people/1", "vertices"), [reader.read("people/1", "vertices")[-1]] * 11])
    flags = np.arange(20) % 3 == 0
    for index in (0, 5, -1, np.int64(12), slice(None), slice(2, 12), slice(5, 8), slice(8, 5), slice(0, 20, 7), np.array([3, 4, 19]), flags, slice(30, 40)):
        np.testing.assert_array_equal(vertices[index], whole[index])
        np.testing.assert_array_equal(state[index], np.r_[[0] * 4, [1] * 5, [0] * 11][index])
    np.testing.assert_array_equal(np.asarray(vertices, np.float64), whole)
    assert confidence[3] == 0 and confidence[4] == 1 and state[2].dtype == np.uint8 and confidence[:].dtype == np.float32
    assert np.shares_memory(vertices[5:9], vertices.records)  # a mesh is not copied
    with pytest.raises(IndexError):
        vertices[20]


def test_somebody_who_is_never_there_has_no_records(take):
    take.begin("recover", "k" * 16)
    take.create_array("people/1", "vertices", "f4", (3, 3), pc2=True, span=(0, 0))
    take.create_array("people/1", "state", "u1", (), span=(0, 0))
    take.finish()
    reader = Take.open(take.path)
    vertices, state = reader.by_sample("people/1", "vertices"), reader.by_sample("people/1", "state")
    assert len(vertices) == 20 and not vertices[7].any() and vertices[7].shape == (3, 3) and not state[:].any() and reader.is_complete("recover", "k" * 16)
    assert not reader.file_of("people/1", "vertices").exists()


def test_a_part_cut_short_by_the_disk_ends_where_the_bytes_end(take):
    take.begin("recover", "k" * 16)
    take.create_array("people/1", "root", "f4", (3,), span=(4, 9))
    take.append("people/1", "root", np.arange(15).reshape(5, 3))
    take.finish()
    file = take.file_of("people/1", "root")
    file.write_bytes(file.read_bytes()[:-1])
    root = Take.open(take.path).by_sample("people/1", "root")
    assert len(root) == 8 and root[7].tolist() == [9, 10, 11] and not Take.open(take.path).is_complete("recover", "k" * 16)


def test_a_take_of_the_first_schema_is_read_as_ever_and_gone_on_with(take):
    write(take, samples=20)
    take.finish()
    take.close()
    meta = json.loads((take.path / "take.json").read_text())
    assert all("span" not in array for array in meta["stages"]["recover"]["arrays"].values())
    for name in ("take.json", "take.json.bak"):
        (take.path / name).write_text(json.dumps({**meta, "schema": 1}))
    with Take.open(take.path, writable=True) as old:
        vertices = old.by_sample("people/1", "vertices")
        assert vertices.span == (0, 20) and vertices.shape == (20, 3, 3) and vertices[19].tolist() == old.read("people/1", "vertices")[19].tolist()
        old.save()
    assert json.loads((take.path / "take.json").read_text())["schema"] == 2


@pytest.mark.parametrize("span", [[3], [5, 2], [-1, 4], [0, 2.5], "04", [0, True], [0, 1 << 41]])
def test_a_span_that_makes_no_sense_is_refused(take, span):
    take.begin("recover", "k" * 16)
    take.create_array("people/1", "root", "f4", (3,), span=(4, 9))
    take.finish()
    meta = json.loads((take.path / "take.json").read_text())
    meta["stages"]["recover"]["arrays"]["people/1/root"]["span"] = span
    for name in ("take.json", "take.json.bak"):
        (take.path / name).write_text(json.dumps(meta))
    with pytest.raises(TakeError, match="people/1/root is described wrongly"):
        Take.open(take.path)
