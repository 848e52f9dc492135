# SPDX-License-Identifier: Apache-2.0
"""PLY and OBJ as others write them."""

import struct

import numpy as np
import pytest

from body4d_engine.errors import Body4DError
from body4d_engine.imports.meshes import obj_faces, read_mesh, write_obj, write_ply

from .bodies import ball

POINTS = np.array([[0, 0, 1], [1.5, 0, 1], [1, 1, -2.25], [0, 1, 1]], np.float64)
SQUARE = [[0, 1, 2], [0, 2, 3]]


def ply(order="", kinds="float", lists="uchar int", faces=((3, 0, 1, 2), (3, 0, 2, 3)), extra=True, name="vertex_indices", before=False) -> bytes:
    """A PLY by hand: ASCII, or binary in the byte order."""
    form = {"": "ascii", "<": "binary_little_endian", ">": "binary_big_endian"}[order]
    head = f"ply\nformat {form} 1.0\ncomment by hand\n" + ("element camera 1\nproperty uchar id\n" if before else "")
    head += "element vertex 4\n" + "".join(f"property {kinds} {n}\n" for n in "xyz") + ("property uchar red\n" if extra else "")
    head += f"element face {len(faces)}\nproperty list {lists} {name}\nend_header\n"
    length, index = ({"uchar": "B", "int": "i", "uint": "I", "ushort": "H", "short": "h"}[w] for w in lists.split())
    if not order:
        body = ("7\n" if before else "") + "".join(" ".join(map(repr, map(float, p))) + (" 9" if extra else "") + "\n" for p in POINTS)
        return (head + body + "".join(" ".join(map(str, f)) + "\n" for f in faces)).encode()
    body = b"\x07" if before else b""
    for p in POINTS:
        body += struct.pack(order + {"float": "fff", "double": "ddd"}[kinds], *p) + (b"\x09" if extra else b"")
    for count, *corners in faces:
        body += struct.pack(order + length, count) + struct.pack(f"{order}{count}{index}", *corners)
    return head.encode() + body


@pytest.mark.parametrize("order", ["", "<", ">"])
@pytest.mark.parametrize("options", [{}, {"kinds": "double", "lists": "int uint"}, {"extra": False, "name": "vertex_index"}, {"lists": "ushort short"},
                                     {"faces": ((4, 0, 1, 2, 3),)}, {"before": True}])
def test_ply(tmp_path, order, options):
    (tmp_path / "a.ply").write_bytes(ply(order, **options))
    vertices, faces = read_mesh(tmp_path / "a.ply")
    np.testing.assert_array_equal(vertices, POINTS)
    assert faces.tolist() == SQUARE


@pytest.mark.parametrize("order", ["", "<", ">"])
def test_ply_with_triangles_and_larger_polygons_mixed(tmp_path, order):
    (tmp_path / "a.ply").write_bytes(ply(order, faces=((3, 0, 1, 3), (4, 0, 1, 2, 3))))
    assert read_mesh(tmp_path / "a.ply")[1].tolist() == [[0, 1, 3], *SQUARE]


@pytest.mark.parametrize("lines", ["f 1 2 3 4", "f 1/1/1 2/2/2 3/3/3 4/4/4", "f 1//1 2//2 3//3\nf 1//1 3//3 4//4", "f -4 -3 -2 -1"])
def test_obj(tmp_path, lines):
    points = "".join(f"v {x} {y} {z} 0.5 0.5 0.5\nvn 0 0 1\n" for x, y, z in POINTS)
    (tmp_path / "a.obj").write_text(f"# by hand\nmtllib a.mtl\no body\n{points}usemtl skin\n{lines}\n")
    vertices, faces = read_mesh(tmp_path / "a.obj")
    np.testing.assert_array_equal(vertices, POINTS)
    assert faces.tolist() == SQUARE


def test_what_we_write_we_read(tmp_path):
    vertices, faces = ball()
    vertices = vertices.astype(np.float32) + np.float32(7)
    write_ply(tmp_path / "a.ply", vertices, faces, (1, 2, 3))
    write_obj(tmp_path / "a.obj", vertices, obj_faces(faces))
    for name, tolerance in (("a.ply", 0), ("a.obj", 1e-7)):
        points, triangles = read_mesh(tmp_path / name)
        np.testing.assert_allclose(points, vertices, rtol=0, atol=tolerance)
        np.testing.assert_array_equal(triangles, faces)


@pytest.mark.parametrize("name, content, message", [
    ("a.ply", b"", "it has no PLY header"), ("a.ply", ply("<")[:-30], "it ends early"), ("a.ply", ply("")[:-8], "it ends early"),
    ("a.ply", ply("<")[:200], "it ends early|no PLY header"), ("a.ply", ply("<").replace(b"property list uchar int vertex_indices", b"property uchar q"), "it has no faces"),
    ("a.ply", ply("<").replace(b"float x", b"float u"), "it has no vertices"), ("a.ply", ply("<").replace(b"float x", b"quad x"), "is not a readable mesh"),
    ("a.ply", ply("<").replace(b"format binary_little_endian 1.0", b""), "its header names no format"),
    ("a.ply", ply("", faces=((3, 0, 1, 9),)), "has faces that point beyond its 4 vertices"),
    ("a.obj", b"", "it has no vertices"), ("a.obj", b"v 1 2\n", "is not a readable mesh"), ("a.obj", b"v 1 2 3\nf 1 2 x\n", "is not a readable mesh"),
    ("a.obj", b"v 1 2 3\nf 1 2 3\n", "has faces that point beyond its 1 vertices"), ("a.obj", b"v 1 2 3\nf -1 -2 -3\n", "has faces that point beyond"),
])
def test_broken_files_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Body4DError, match=message) as caught:
        read_mesh(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value) and caught.value.hint


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(Body4DError, match="gone.ply cannot be read: No such file"):
        read_mesh(tmp_path / "gone.ply")


def test_random_damage_gives_a_mesh_or_an_error_that_is_explained(tmp_path):
    rng = np.random.default_rng(4)
    for source in (ply("<"), ply(">"), ply("")):
        for _ in range(150):
            data = bytearray(source)
            for at in rng.integers(0, len(data), 3):
                data[at] = rng.integers(0, 256)
            (tmp_path / "a.ply").write_bytes(bytes(data[: rng.integers(1, len(data) + 1)]))
            try:
                read_mesh(tmp_path / "a.ply")
            except Body4DError:
                pass
