# SPDX-License-Identifier: Apache-2.0
"""Triangle meshes in .ply (ASCII and binary) and .obj files: positions and faces, nothing else."""

from pathlib import Path

import numpy as np

from ..errors import Body4DError

PLY_TYPES = {"char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2", "uint16": "u2", "int": "i4",
             "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4", "double": "f8", "float64": "f8"}
PLY_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": ""}
AGAIN = "Export or copy the file again."


def read_mesh(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (V, 3) float64 as the file gives them and faces (F, 3) int32, polygons cut into triangles. Raises Body4DError naming the file."""
    try:
        data = Path(path).read_bytes()
        vertices, faces = _read_ply(data) if Path(path).suffix.lower() == ".ply" else _read_obj(data)
    except OSError as error:
        raise Body4DError(f"{path} cannot be read: {error.strerror or error}.", AGAIN, "bad_mesh") from error
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        raise Body4DError(f"{path} is not a readable mesh: {error}.", AGAIN, "bad_mesh") from error
    if len(faces) and (faces.min() < 0 or faces.max() >= len(vertices)):
        raise Body4DError(f"{path} has faces that point beyond its {len(vertices)} vertices.", AGAIN, "bad_mesh")
    return vertices, faces


def write_ply(path: Path, vertices: np.ndarray, faces: np.ndarray, color: tuple[int, int, int]) -> None:
    """Binary little-endian PLY: float32 x y z, uchar red green blue alpha, int faces. vertices (V, 3), faces (F, 3), colour 0..255."""
    points = np.empty(len(vertices), [("xyz", "<f4", 3), ("rgba", "u1", 4)])
    points["xyz"], points["rgba"] = vertices, (*color, 255)
    triangles = np.empty(len(faces), [("count", "u1"), ("index", "<i4", 3)])
    triangles["count"], triangles["index"] = 3, faces
    header = ("ply\nformat binary_little_endian 1.0\n" f"element vertex {len(vertices)}\n" + "".join(f"property float {n}\n" for n in "xyz")
              + "".join(f"property uchar {n}\n" for n in ("red", "green", "blue", "alpha"))
              + f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n")
    path.write_bytes(header.encode() + points.tobytes() + triangles.tobytes())


def obj_faces(faces: np.ndarray) -> bytes:
    """The face lines of an OBJ file, which are the same in every frame."""
    return (("f %d %d %d\n" * len(faces)) % tuple((np.asarray(faces, np.int64) + 1).ravel().tolist())).encode()


def write_obj(path: Path, vertices: np.ndarray, face_lines: bytes) -> None:
    """OBJ with vertices (V, 3) in metres to a tenth of a micrometre, and the lines from `obj_faces`."""
    path.write_bytes((("v %.7f %.7f %.7f\n" * len(vertices)) % tuple(np.asarray(vertices, np.float64).ravel().tolist())).encode() + face_lines)


def _read_ply(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    end = data.find(b"end_header")
    if data[:3] != b"ply" or end < 0:
        raise ValueError("it has no PLY header")
    start = data.index(b"\n", end) + 1
    order, elements = None, []
    for words in (line.split() for line in data[:end].decode("ascii", "replace").splitlines()):
        if words[:1] == ["format"]:
            order = PLY_ORDERS[words[1]]
        elif words[:1] == ["element"]:
            elements.append((words[1], int(words[2]), []))
        elif words[:1] == ["property"]:
            elements[-1][2].append((words[-1], words[1:-1]))
    if order is None:
        raise ValueError("its header names no format")
    if any(count < 0 for _, count, _ in elements):
        raise ValueError("its header counts below zero")
    read = _Ascii(data[start:]) if order == "" else _Binary(data[start:], order)
    found = {name: read.element(count, properties) for name, count, properties in elements}
    if not {"x", "y", "z"} <= found.get("vertex", {}).keys():
        raise ValueError("it has no vertices")
    vertices = np.stack([np.asarray(found["vertex"][axis], np.float64) for axis in "xyz"], 1)
    polygons = next((value for name, value in found.get("face", {}).items() if name in ("vertex_indices", "vertex_index")), None)
    if polygons is None:
        raise ValueError("it has no faces")
    return vertices, _triangles(polygons)


class _Binary:
    def __init__(self, data: bytes, order: str):
        self.data, self.order, self.at = data, order, 0

    def element(self, count: int, properties: list) -> dict:
        """Each property's values: an array, or for a list (count, n) where all are of one length and else a list of arrays."""
        lists = [name for name, kind in properties if kind[0] == "list"]
        lengths = {}
        if lists and count:
            lengths = {name: len(value) for name, value in self._row(properties, self.at)[0].items() if name in lists}
        fields = []
        for name, kind in properties:
            if kind[0] == "list":
                fields += [(f"{name} length", self._type(kind[1])), (name, self._type(kind[2]), (lengths.get(name, 0),))]
            else:
                fields.append((name, self._type(kind[0])))
        row = np.dtype(fields)
        if self.at + count * row.itemsize <= len(self.data):
            rows = np.frombuffer(self.data, row, count, self.at)
            if all((rows[f"{name} length"] == lengths.get(name, 0)).all() for name in lists):
                self.at += count * row.itemsize
                return {name: rows[name] for name, _ in properties}
        elif not lists:
            raise ValueError("it ends early")
        rows = []
        for _ in range(count):
            values, self.at = self._row(properties, self.at)
            rows.append(values)
        return {name: [values[name] for values in rows] for name, _ in properties}

    def _type(self, word: str) -> str:
        return self.order + PLY_TYPES[word]

    def _row(self, properties: list, at: int) -> tuple[dict, int]:
        values = {}
        for name, kind in properties:
            count = None
            if kind[0] == "list":
                count = int(self._take(kind[1], 1, at)[0])
                at += np.dtype(self._type(kind[1])).itemsize
            array = self._take(kind[-1], 1 if count is None else count, at)
            at += array.nbytes
            values[name] = array[0] if count is None else array
        return values, at

    def _take(self, word: str, count: int, at: int) -> np.ndarray:
        kind = np.dtype(self._type(word))
        if at + count * kind.itemsize > len(self.data):
            raise ValueError("it ends early")
        return np.frombuffer(self.data, kind, count, at)


class _Ascii:
    def __init__(self, data: bytes):
        self.lines, self.at = [line for line in data.decode("ascii", "replace").splitlines() if line.strip()], 0

    def element(self, count: int, properties: list) -> dict:
        """As _Binary.element, one line per row."""
        lines = self.lines[self.at : self.at + count]
        if len(lines) < count:
            raise ValueError("it ends early")
        self.at += count
        found = {name: [] for name, _ in properties}
        for line in lines:
            words, at = line.split(), 0
            for name, kind in properties:
                if kind[0] == "list":
                    count = int(words[at])
                    found[name].append(np.array([int(word) for word in words[at + 1 : at + 1 + count]]))
                    if len(found[name][-1]) < count:
                        raise ValueError("it ends early")
                    at += 1 + count
                else:
                    found[name].append(float(words[at]))
                    at += 1
        return found


def _triangles(polygons) -> np.ndarray:
    """Polygons, (F, n) or a list of index arrays, as fans of triangles (F', 3)."""
    if isinstance(polygons, list):
        if any(len(polygon) != 3 for polygon in polygons):
            fans = [(polygon[0], polygon[k], polygon[k + 1]) for polygon in polygons for k in range(1, len(polygon) - 1)]
            return np.array(fans, np.int32).reshape(-1, 3)
        return np.array(polygons, np.int32).reshape(-1, 3)
    corners = [np.stack([polygons[:, 0], polygons[:, k], polygons[:, k + 1]], 1) for k in range(1, polygons.shape[1] - 1)]
    return np.stack(corners, 1).reshape(-1, 3).astype(np.int32) if corners else np.zeros((0, 3), np.int32)


def _read_obj(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    points, polygons = [], []
    for line in data.decode("utf-8", "replace").splitlines():
        words = line.split()
        if words[:1] == ["v"]:
            points.append((float(words[1]), float(words[2]), float(words[3])))
        elif words[:1] == ["f"]:
            corners = [int(word.partition("/")[0]) for word in words[1:]]
            polygons.append([corner - 1 if corner > 0 else len(points) + corner for corner in corners])
    if not points:
        raise ValueError("it has no vertices")
    return np.array(points, np.float64), _triangles(polygons)
