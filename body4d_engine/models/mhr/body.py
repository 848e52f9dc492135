# SPDX-License-Identifier: Apache-2.0
"""The MHR body: identity, pose and expression to vertices and joints, in few launches, all people of a batch at once.

What is computed is what the TorchScript program of `mhr_model.pt` computes (arXiv:2511.15586; Momentum's joint convention):

    joint parameters  = parameter transform * model parameters           per joint: translation t, Euler angles x y z, log2 scale s
    local transform   = translation(offset + t) * prerotation * Rz(z) Ry(y) Rx(x) * 2^s
    skeleton          = product of the local transforms from the root to the joint
    surface at rest   = base + identity shapes + expression shapes + second layer * relu(first layer * features)
                        features: the first two columns of each joint's Rz Ry Rx, less the identity's
    vertices          = sum over joints of weight * skeleton * inverse bind transform * surface at rest

It is arranged differently: a rotation is linear in the products of (1, cos, sin) of its three angles, so that one batched matrix product makes all
local transforms and all features; the product along the tree takes 4 doublings of the path (16 joints is its longest); people are the last axis of
every array, so that no product needs a transposed copy; the second corrective layer is sparse. Everything is float32, inside autocast too.
"""
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil, log2
from pathlib import Path

import torch
from torch import Tensor, nn

from . import keys, reader

# Up to this many entries (64 MB) the corrective layer of a few vertices is a dense block: an ordinary product, with no workspace of a sparse library.
_DENSE_ENTRIES = 1 << 24
_HELD_PARTS = 4  # the whole and subsets of vertices whose tables are held


@dataclass(frozen=True)
class _Part:
    """Tables for the vertices that are asked for."""

    base: Tensor  # (3V, 1)
    identity: Tensor  # (3V, 45)
    expression: Tensor  # (3V, 72)
    correctives: Tensor  # (3V, hidden), dense or sparse
    weights: Tensor  # (V, 127)

    @property
    def size(self) -> int:
        return self.weights.shape[0]


class Mhr(nn.Module):
    """The body model, on one device, always in float32: moving it moves it, casting it does not cast it. No parameters, only buffers.

    `tensors`: as `reader.load` gives them. Share one instance: body and hand heads use the same body.
    """

    def __init__(self, tensors: dict[str, Tensor]):
        super().__init__()
        keys.check(tensors)
        tables = {name: value.float() if value.is_floating_point() else value.long() for name, value in tensors.items()}
        transform, bias = _joint_parameters(tables)
        weights = torch.zeros(tables["base"].shape[0], keys.JOINTS)
        weights.index_put_((tables["skin_vertices"], tables["skin_joints"]), tables["skin_weights"], accumulate=True)
        buffers = {
            "parameter_transform": transform, "parameter_bias": bias, "local_table": _local_table(tables["joint_prerotations"]),
            "ancestors": _ancestors(tables["joint_parents"]), "inverse_bind": _affine(tables["inverse_bind"]), "quaternion_table": _quaternion_table(),
            "activation": tables["activation"], "corrective_rows": tables["corrective_rows"], "corrective_columns": tables["corrective_columns"].int(),
            "corrective_values": tables["corrective_values"], "base": tables["base"].reshape(-1, 1), "faces": tables["faces"], "weights": weights,
            "identity": tables["identity"].reshape(keys.IDENTITY, -1).T.contiguous(),
            "expression": tables["expression"].reshape(keys.EXPRESSION, -1).T.contiguous(), "camera": torch.tensor([[1.0], [-1.0], [-1.0]]),
        }
        for name, value in buffers.items():
            self.register_buffer(name, value, persistent=False)
        self._parts: list[tuple[Tensor | None, _Part]] = []

    @classmethod
    def load(cls, extract: Path) -> "Mhr":
        """The body of an extract, `reader.extracted(mhr_model.pt, folder)`. Raises Body4DError."""
        return cls(reader.load(extract))

    @property
    def vertex_count(self) -> int:
        return self.weights.shape[0]

    def forward(self, identity: Tensor, model_params: Tensor, expression: Tensor | None = None, vertices: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(vertices (B, V, 3), skeleton (B, 127, 8)): as the published program returns them, but for the sign of the quaternions.

        identity (B or 1, 45); model_params (B, 204): 3 translations in dm, 3 angles of the root, 130 of the pose, 68 of the proportions;
        expression (B or 1, 72). Centimetres, x to the person's left, y up, z to the front; skeleton: translation, unit quaternion x y z w, scale.
        `vertices`: indices of those wanted, in that order. Their tables are held for as long as the same tensor is given: keep it, unchanged.
        """
        surface, transforms = self.posed(identity, model_params, expression, vertices)
        return surface, self.skeleton(transforms)

    def posed(self, identity: Tensor, model_params: Tensor, expression: Tensor | None = None, vertices: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(vertices (B, V, 3), transforms (B, 127, 4, 4) of the joints), without the quaternions, which inner iterations do without.

        Arguments, units and axes as for `forward`; a joint's place is its transform's last column.
        """
        people = model_params.shape[0]
        given = {"identity": (identity, keys.IDENTITY), "model_params": (model_params, keys.PARAMETERS)}
        given |= {"expression": (expression, keys.EXPRESSION)} if expression is not None else {}
        for name, (value, width) in given.items():
            if value.dim() != 2 or value.shape[1] != width or value.shape[0] not in (1, people):
                raise ValueError(f"{name} is {tuple(value.shape)} and should be ({people}, {width})")
        with _exact(model_params.device):
            part = self._part(vertices)
            places, features = self._places(model_params.float())
            rest = torch.addmm(part.base, part.identity, identity.float().T)
            if expression is not None:
                rest = rest + part.expression @ expression.float().T
            hidden = torch.relu(self.activation @ features)
            rest = self._corrected(rest, part.correctives, hidden)
            return self._skinned(rest, part, places), places.transpose(0, 1)

    def transforms(self, model_params: Tensor) -> Tensor:
        """Joint transforms (B, 127, 4, 4) alone: rotation times scale, and place in cm, y up. (B, 204) as for `forward`."""
        with _exact(model_params.device):
            return self._places(model_params.float())[0].transpose(0, 1)

    def camera_rotations(self, model_params: Tensor) -> Tensor:
        """(B, 127, 3, 3): where each joint's own axes point in the camera (x right, y down, z forward) that sees the person as `to_camera` places it."""
        with _exact(model_params.device):
            turns = self.transforms(model_params)[..., :3, :3]
            return self.camera * turns / torch.linalg.vector_norm(turns, dim=-2, keepdim=True)

    def to_camera(self, points: Tensor) -> Tensor:
        """Points (..., 3) of this model in the camera's axes and metres, before the person's translation is added."""
        return points * (self.camera[:, 0] / 100)

    def skeleton(self, transforms: Tensor) -> Tensor:
        """Transforms (B, 127, 4, 4) as translation in cm, unit quaternion x y z w of either sign, scale: (B, 127, 8)."""
        with _exact(transforms.device):
            turns = transforms[..., :3, :3]
            scale = torch.linalg.vector_norm(turns[..., 0], dim=-1, keepdim=True)
            # Four times the quaternion times itself transposed is linear in the rotation; its row of largest diagonal is the quaternion, longer.
            squares = (turns / scale[..., None]).flatten(-2) @ self.quaternion_table[:9] + self.quaternion_table[9]
            squares = squares.unflatten(-1, (4, 4))
            largest = squares.diagonal(dim1=-2, dim2=-1).argmax(-1)[..., None, None].expand(*squares.shape[:-2], 1, 4)
            return torch.cat([transforms[..., :3, 3], nn.functional.normalize(squares.gather(-2, largest).squeeze(-2), dim=-1), scale], -1)

    def _places(self, model_params: Tensor) -> tuple[Tensor, Tensor]:
        """(transforms of the joints (127, B, 4, 4), features of their rotations (750, B))."""
        people = model_params.shape[0]
        parameters = torch.addmm(self.parameter_bias, self.parameter_transform, model_params.T).view(keys.JOINTS + 1, keys.PER_JOINT, people)
        angles = parameters[:, 3:6]
        x, y, z = torch.stack([torch.ones_like(angles), angles.cos(), angles.sin()], 2).unbind(1)  # each (128, 3, B)
        products = (x[:, :, None] * y[:, None])[:, :, :, None] * z[:, None, None]
        local = torch.bmm(self.local_table, products.view(keys.JOINTS + 1, 27, people))  # (128, 22, B)
        features = local[keys.STILL : keys.JOINTS, 16:].reshape(6 * (keys.JOINTS - keys.STILL), people)
        steps = local[:, :16].view(keys.JOINTS + 1, 4, 4, people)
        steps[:, :3, :3] *= parameters[:, 6, None, None].exp2()
        steps[:, :3, 3] = parameters[:, :3]
        steps = steps.permute(0, 3, 1, 2).contiguous()
        for above in self.ancestors:
            steps = steps.index_select(0, above) @ steps
        return steps[: keys.JOINTS], features

    def _corrected(self, rest: Tensor, correctives: Tensor, hidden: Tensor) -> Tensor:
        if correctives.layout == torch.strided:
            return torch.addmm(rest, correctives, hidden)
        return rest + (correctives @ hidden.to(correctives.device)).to(rest.device)

    def _skinned(self, rest: Tensor, part: _Part, places: Tensor) -> Tensor:
        people = places.shape[1]
        moves = torch.bmm(places.reshape(keys.JOINTS, people * 4, 4), self.inverse_bind).view(keys.JOINTS, people, 4, 4)
        moves = moves[:, :, :3].permute(0, 2, 3, 1).reshape(keys.JOINTS, 12 * people)
        blended = (part.weights @ moves).view(part.size, 3, 4, people)
        points = rest.view(part.size, 3, 1, rest.shape[1])
        moved = blended[:, :, 3]
        for axis in range(3):
            moved = torch.addcmul(moved, blended[:, :, axis], points[:, axis])
        return moved.permute(2, 0, 1).contiguous()

    def hold(self, vertices: Tensor | None) -> None:
        """Makes the tables for these vertices (None: for all), if they are not held already, so that no evaluation has to."""
        self._part(vertices)

    def _part(self, vertices: Tensor | None) -> _Part:
        for known, part in self._parts:
            if known is vertices:
                return part
        with torch.inference_mode(False), torch.no_grad():
            part = self._whole() if vertices is None else self._cut(vertices)
        self._parts = [*self._parts[1 - _HELD_PARTS :], (vertices, part)]
        return part

    def _whole(self) -> _Part:
        correctives = _csr(self.corrective_rows, self.corrective_columns, self.corrective_values, self.activation.shape[0])
        return _Part(self.base, self.identity, self.expression, correctives, self.weights)

    def _cut(self, vertices: Tensor) -> _Part:
        if vertices.dim() != 1 or vertices.numel() and (int(vertices.min()) < 0 or int(vertices.max()) >= self.vertex_count):
            raise ValueError(f"vertices are indices from 0 to {self.vertex_count - 1}")
        chosen = vertices.to(self.base.device, torch.int64)
        rows = (3 * chosen[:, None] + torch.arange(3, device=chosen.device)).flatten()
        first = self.corrective_rows[rows]
        counts = self.corrective_rows[rows + 1] - first
        starts = nn.functional.pad(counts.cumsum(0), (1, 0))
        entries = torch.arange(int(starts[-1]), device=chosen.device) + (first - starts[:-1]).repeat_interleave(counts)
        columns, values, hidden = self.corrective_columns[entries], self.corrective_values[entries], self.activation.shape[0]
        if len(rows) * hidden <= _DENSE_ENTRIES:
            correctives = torch.zeros(len(rows), hidden, device=chosen.device)
            correctives[torch.arange(len(rows), device=chosen.device).repeat_interleave(counts), columns.long()] = values
        else:
            correctives = _csr(starts, columns, values, hidden)
        return _Part(self.base[rows], self.identity[rows], self.expression[rows], correctives, self.weights[chosen])

    def _apply(self, fn, recurse=True):
        """Moves without casting: half the precision would move vertices by millimetres."""
        device = fn(torch.zeros(0, device=self.base.device)).device
        self._parts = []
        return super()._apply(lambda value: value.to(device), recurse)

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_parts": []}


def _joint_parameters(tables: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The parameter transform with a row of joints more, the identity that stands above the root, and the joints' offsets as its bias."""
    shape = (keys.JOINTS + 1, keys.PER_JOINT)
    transform, bias = torch.zeros(*shape, keys.PARAMETERS), torch.zeros(shape)
    transform[: keys.JOINTS] = tables["parameter_transform"].view(keys.JOINTS, keys.PER_JOINT, keys.PARAMETERS)
    bias[: keys.JOINTS, :3] = tables["joint_offsets"]
    return transform.flatten(0, 1), bias.flatten()[:, None]


def _local_table(prerotations: Tensor) -> Tensor:
    """(128, 22, 27): from the products of (1, cos, sin) of a joint's three angles to its local transform (16, no scale, no translation) and features (6)."""
    axes = []
    for axis in range(3):
        still, plane = torch.zeros(3, 3, dtype=torch.float64), [(axis + 1) % 3, (axis + 2) % 3]
        still[axis, axis] = 1
        cosine, sine = torch.eye(3, dtype=torch.float64) - still, torch.zeros(3, 3, dtype=torch.float64)
        sine[plane[0], plane[1]], sine[plane[1], plane[0]] = -1, 1
        axes.append(torch.stack([still, cosine, sine]))
    turn = torch.einsum("cij,bjk,akl->ilabc", axes[2], axes[1], axes[0])  # Rz Ry Rx
    identity = torch.zeros_like(turn)
    identity[range(3), range(3), 0, 0, 0] = 1
    table = torch.zeros(keys.JOINTS + 1, 22, 27, dtype=torch.float64)
    before = torch.cat([prerotations.double(), torch.tensor([[0.0, 0.0, 0.0, 1.0]], dtype=torch.float64)])
    local = torch.zeros(keys.JOINTS + 1, 4, 4, 27, dtype=torch.float64)
    local[:, :3, :3] = torch.einsum("nij,jlm->nilm", _matrix(before), turn.flatten(2))
    local[:, 3, 3, 0] = 1
    table[:, :16] = local.flatten(1, 2)
    table[:, 16:] = (turn - identity)[:, :2].transpose(0, 1).flatten(2).flatten(0, 1)  # column by column
    return table.float()


def _matrix(quaternions: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) of unit quaternions (..., 4), x y z w."""
    x, y, z, w = quaternions.unbind(-1)
    rows = [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w), 2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w),
            2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)]
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def _affine(states: Tensor) -> Tensor:
    """Transforms (N, 4, 4) of skeleton states (N, 8)."""
    states = states.double()
    affine = torch.zeros(len(states), 4, 4, dtype=torch.float64)
    affine[:, :3, :3] = _matrix(nn.functional.normalize(states[:, 3:7], dim=-1)) * states[:, 7, None, None]
    affine[:, :3, 3], affine[:, 3, 3] = states[:, :3], 1
    return affine.float()


def _ancestors(parents: Tensor) -> Tensor:
    """(doublings, 128): of each joint the ancestor 1, 2, 4, ... joints above, the identity's index where there is none."""
    none = keys.JOINTS
    above = torch.cat([torch.where(parents < 0, none, parents), torch.tensor([none])])
    depth, joints = 0, torch.arange(none)
    while (joints < none).any():
        depth, joints = depth + 1, above[joints]
    levels = []
    for _ in range(ceil(log2(depth))):
        levels.append(above)
        above = above[above]
    return torch.stack(levels)


def _quaternion_table() -> Tensor:
    """(10, 16): from a rotation's nine entries, and 1, to four times its quaternion's outer square."""
    table = torch.zeros(10, 4, 4)
    for axis in range(3):
        for other in range(4):
            table[4 * axis, other, other] = 1 if other in (axis, 3) else -1
        one, two = (axis + 1) % 3, (axis + 2) % 3
        for entry, sign in ((3 * two + one, 1), (3 * one + two, -1)):
            table[entry, one, two] = table[entry, two, one] = 1
            table[entry, axis, 3] = table[entry, 3, axis] = sign
    table[9] = torch.eye(4)
    return table.flatten(1)


def _csr(rows: Tensor, columns: Tensor, values: Tensor, width: int) -> Tensor:
    """A sparse matrix by rows. MPS has none: there it stays on the CPU."""
    place = "cpu" if values.device.type == "mps" else values.device
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(rows.int().to(place), columns.int().to(place), values.to(place), (len(rows) - 1, width), check_invariants=False)


@contextmanager
def _exact(device: torch.device):
    """No autocast and no TF32 inside: both would round positions of two metres to a millimetre. Who compiles what is inside sees to that himself: a graph
    cannot."""
    if torch.compiler.is_compiling():
        yield
        return
    precision = torch.get_float32_matmul_precision()
    if precision != "highest":
        torch.set_float32_matmul_precision("highest")
    try:
        if torch.is_autocast_enabled(device.type):
            with torch.autocast(device.type, enabled=False):
                yield
        else:
            yield
    finally:
        if precision != "highest":
            torch.set_float32_matmul_precision(precision)
