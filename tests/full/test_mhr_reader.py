# SPDX-License-Identifier: Apache-2.0
"""mhr_model.pt is read without running it: the same tensors as torch.jit would load, and a refusal of everything else."""
import io
import os
import pickle
import zipfile

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from body4d_engine.errors import Body4DError  # noqa: E402
from body4d_engine.models.mhr import Mhr, keys, reader, stand_in  # noqa: E402
from body4d_engine.weights import verifying  # noqa: E402


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    torch.set_num_threads(1)
    file = tmp_path_factory.mktemp("mhr") / "mhr_model.pt"
    stand_in.save_torchscript(file, 40)
    return file


def rewritten(source, target, change):
    """A copy of an archive whose entries went through `change(name, bytes) -> bytes or None`."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = change(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
    return target


def with_pickle(tmp_path, content, storages=(), order=b"little"):
    file = tmp_path / "crafted.pt"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/data.pkl", content)
        archive.writestr("a/byteorder", order)
        for key, value in storages:
            archive.writestr(f"a/data/{key}", value)
    return file


def tensor_pickle(numel=4, size=(2, 2), stride=(2, 1), offset=0, key="0", storage="FloatStorage"):
    """data.pkl of one object with one tensor, written opcode by opcode as TorchScript does."""
    def integers(values):
        return b"(" + b"".join(b"J" + int(value).to_bytes(4, "little", signed=True) for value in values) + b"t"
    return (b"\x80\x02c__torch__\nM\n)\x81}(X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\n" + storage.encode() + b"\n"
            + b"X" + len(key).to_bytes(4, "little") + key.encode() + b"X\x03\x00\x00\x00cpuJ" + numel.to_bytes(4, "little", signed=True) + b"tQJ"
            + offset.to_bytes(4, "little", signed=True) + integers(size) + integers(stride) + b"\x89ccollections\nOrderedDict\n)RtRub.")


def test_the_same_tensors_as_torch_jit(published):
    """Catches a lost name, a wrong type, an offset or stride left out."""
    ours, theirs = reader.read_archive(published), torch.jit.load(str(published)).state_dict()
    assert set(ours) == set(theirs) and len(ours) >= len(keys.ARCHIVE_NAMES)
    assert all(torch.equal(ours[name], theirs[name]) and ours[name].dtype == theirs[name].dtype for name in theirs)


def test_views_of_shared_numbers_are_read_as_torch_jit_reads_them(tmp_path):
    """Catches strides taken as those of a whole tensor: one storage, a transposed and a shifted view of it."""
    class Views(torch.nn.Module):
        def __init__(self):
            super().__init__()
            numbers = torch.arange(12.0)
            self.register_buffer("turned", numbers.view(3, 4).T)
            self.register_buffer("later", numbers[5:9])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.turned @ x

    torch.jit.script(Views()).save(str(tmp_path / "views.pt"))
    ours = reader.read_archive(tmp_path / "views.pt")
    assert torch.equal(ours["turned"], torch.arange(12.0).view(3, 4).T) and torch.equal(ours["later"], torch.arange(5.0, 9.0))


def test_code_in_the_archive_is_never_opened(published, tmp_path):
    """Catches a reader that hands the file to torch.jit: with its programs replaced by nonsense that one fails."""
    spoilt = rewritten(published, tmp_path / "spoilt.pt", lambda name, content: b"import os; os.abort()" if "/code/" in name else content)
    with pytest.raises(RuntimeError):
        torch.jit.load(str(spoilt))
    assert set(reader.read_archive(spoilt)) == set(reader.read_archive(published))


def test_a_well_formed_small_archive_is_read(tmp_path):
    """The crafted refusals below differ from this one in one thing each; catches a reader that refuses for another reason."""
    numbers = torch.arange(4.0).numpy().tobytes()
    assert torch.equal(reader.read_archive(with_pickle(tmp_path, tensor_pickle(), [("0", numbers)]))["w"], torch.arange(4.0).view(2, 2))


@pytest.mark.parametrize("change, numbers", [
    (dict(storage="_C"), 16), (dict(size=(2, 3)), 16), (dict(offset=1), 16), (dict(offset=-1), 16), (dict(stride=(-2, 1)), 16), (dict(stride=(2,)), 16),
    (dict(size=(1 << 30, 2), stride=(0, 1)), 16), (dict(numel=5), 16), (dict(numel=3), 16), (dict(numel=-4), 16), (dict(key="../secret"), 16),
    ({}, 12), ({}, 20),
])
def test_impossible_tensors_are_refused(tmp_path, change, numbers):
    """Catches a bound that is not checked: reading past the numbers would give another program's memory."""
    with pytest.raises(reader.ArchiveRefused):
        reader.read_archive(with_pickle(tmp_path, tensor_pickle(**change), [("0", bytes(numbers))]))


class _Runs:
    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.mark.parametrize("call, arguments", [
    (eval, ("1/0",)), (getattr, ("", "join")), (io.FileIO, ("/dev/null",)), (torch.jit.load, ("x",)), (pickle.loads, (b"N.",)),
])
def test_whatever_calls_something_is_refused(tmp_path, call, arguments):
    """Catches a hole in the list of names that a pickle may call."""
    with pytest.raises(reader.ArchiveRefused, match="it asks for"):
        reader.read_archive(with_pickle(tmp_path, pickle.dumps(_Runs(call, *arguments), protocol=2)))


@pytest.mark.parametrize("content", [
    b"", b"N.", b"not a pickle", b"\x80\x02c__torch__\nM\n)\x81K\x01b.", b"\x80\x02c__torch__\nM\n)R.", b"X\x01\x00\x00\x00wQ.",
])
def test_other_pickles_hold_no_tensors_or_are_refused(tmp_path, content):
    """Catches an exception of the library that escapes to the user as a traceback."""
    try:
        assert reader.read_archive(with_pickle(tmp_path, content)) == {}
    except reader.ArchiveRefused:
        pass


def test_broken_files_are_refused(published, tmp_path):
    """Catches half a download, a flipped bit among the numbers, another byte order, a text file."""
    whole = published.read_bytes()
    broken = {"half.pt": whole[: len(whole) // 2], "text.pt": b"<html>denied</html>", "empty.pt": b""}
    with zipfile.ZipFile(published) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
    flipped = bytearray(whole)
    flipped[largest.header_offset + largest.file_size // 2] ^= 1
    broken["flipped.pt"] = bytes(flipped)
    for name, content in broken.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(reader.ArchiveRefused):
            reader.read_archive(tmp_path / name)
        with pytest.raises(Body4DError) as error:
            reader.extracted(tmp_path / name, tmp_path / "out")
        assert error.value.code == "mhr_unreadable" and not list((tmp_path / "out").glob("mhr*"))
    with pytest.raises(reader.ArchiveRefused, match="byte order"):
        reader.read_archive(with_pickle(tmp_path, tensor_pickle(), [("0", bytes(16))], order=b"big"))


def test_extracted_once_and_again_when_the_source_changes(published, tmp_path, monkeypatch):
    """Catches work done at every start, and an extract of a file that is no longer there, also where the new one has its size."""
    folder, source = tmp_path / "cache", tmp_path / "mhr_model.pt"
    rewritten(published, source, lambda name, content: content)
    extract, size = reader.extracted(source, folder), source.stat().st_size
    direct = Mhr(keys.from_archive(reader.read_archive(published)))
    with torch.no_grad():
        assert torch.equal(Mhr.load(extract)(*stand_in.parameters(2))[0], direct(*stand_in.parameters(2))[0])
    assert [file.name for file in folder.glob("mhr*")] == ["mhr.safetensors"]
    written, read = extract.stat().st_mtime_ns, []
    monkeypatch.setattr(reader, "read_archive", lambda file: pytest.fail("extracted again"))
    monkeypatch.setattr(verifying, "sha256", lambda file: read.append(file) or verifying.digest(file, "0" * 64))
    assert reader.extracted(source, folder).stat().st_mtime_ns == written and not read
    os.utime(source)
    assert reader.extracted(source, folder).stat().st_mtime_ns == written and read
    monkeypatch.undo()
    base = direct.base.numpy().tobytes()
    rewritten(published, source, lambda name, content: content.replace(base, (2 * direct.base).numpy().tobytes()))
    assert source.stat().st_size == size
    assert torch.equal(Mhr.load(reader.extracted(source, folder)).base, 2 * direct.base)
    stand_in.save_torchscript(source, 44)
    assert Mhr.load(reader.extracted(source, folder)).vertex_count == 44
    extract.write_bytes(b"spoilt")
    assert Mhr.load(reader.extracted(source, folder)).vertex_count == 44


def test_only_the_known_file_may_be_run_where_it_cannot_be_read(published, tmp_path, monkeypatch):
    """Catches torch.jit as a fallback for any file."""
    monkeypatch.setattr(reader, "read_archive", lambda file: (_ for _ in ()).throw(reader.ArchiveRefused("for the test")))
    with pytest.raises(Body4DError, match="for the test"):
        reader.extract(published, tmp_path / "a.safetensors")
    monkeypatch.setattr(keys, "PUBLISHED_SHA256", verifying.sha256(published))
    reader.extract(published, tmp_path / "a.safetensors")
    assert Mhr.load(tmp_path / "a.safetensors").vertex_count == 40


def test_a_missing_file_and_a_spoilt_extract_say_what_to_do(tmp_path):
    with pytest.raises(Body4DError) as missing:
        reader.extracted(tmp_path / "mhr_model.pt", tmp_path)
    (tmp_path / "mhr.safetensors").write_bytes(b"spoilt")
    with pytest.raises(Body4DError) as spoilt:
        Mhr.load(tmp_path / "mhr.safetensors")
    assert missing.value.code == "mhr_missing" and spoilt.value.code == "mhr_unreadable" and spoilt.value.hint


@pytest.mark.parametrize("name, change", [
    ("character_torch.skeleton.joint_parents", lambda value: None),
    ("character_torch.skeleton.joint_parents", lambda value: value.flip(0)),
    ("character_torch.skeleton.joint_parents", lambda value: value.index_fill(0, torch.tensor([9]), 11)),
    ("character_torch.skeleton.joint_prerotations", lambda value: value[:, :3]),
    ("character_torch.blend_shape.shape_vectors", lambda value: value[:44]),
    ("character_torch.blend_shape.base_shape", lambda value: value * float("nan")),
    ("character_torch.linear_blend_skinning.skin_indices_flattened", lambda value: value + 100),
    ("character_torch.linear_blend_skinning.vert_indices_flattened", lambda value: value - 1),
    ("character_torch.parameter_transform.parameter_transform", lambda value: value[:, :200]),
    ("pose_correctives_model.pose_dirs_predictor.0.sparse_indices", lambda value: value + 10),
    ("pose_correctives_model.pose_dirs_predictor.0.sparse_weight", lambda value: value[1:]),
    ("pose_correctives_model.pose_dirs_predictor.2.weight", lambda value: value[3:]),
    ("pose_correctives_model.pose_dirs_predictor.2.weight", lambda value: value[0]),
])
def test_another_model_is_named_as_such(name, change):
    """Catches a tensor that is used without being checked: it would fail late, or silently give another body."""
    archive = stand_in.archive(20)
    changed = change(archive.pop(name))
    with pytest.raises(Body4DError) as error:
        keys.from_archive(archive | ({name: changed} if changed is not None else {}))
    assert error.value.code == "mhr_other_model"


def test_an_extract_of_the_published_names_keeps_what_the_archive_holds():
    """Catches entries of the corrective layer that get lost or move between rows on the way to the sparse form."""
    archive = stand_in.archive(50)
    dense = archive["pose_correctives_model.pose_dirs_predictor.2.weight"]
    tensors = keys.from_archive(archive)
    rebuilt = torch.zeros_like(dense)
    rows = torch.arange(len(dense)).repeat_interleave(tensors["corrective_rows"].diff())
    rebuilt[rows, tensors["corrective_columns"].long()] = tensors["corrective_values"]
    assert torch.equal(rebuilt, dense) and keys.density(tensors) == int((dense != 0).sum()) / dense.numel()
