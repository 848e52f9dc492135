# SPDX-License-Identifier: Apache-2.0
"""The program of `mhr_model.pt` written anew as TorchScript, for a stand-in file that other programs load with `torch.jit.load`.

Same modules, names, inputs, outputs and steps as the published one: quaternions, the tree by prefix products in float64, influences one by one.
"""
import torch
from torch import Tensor, nn


def multiply(a: Tensor, b: Tensor) -> Tensor:
    """Product of quaternions x y z w."""
    ax, ay, az, aw = a[..., 0], a[..., 1], a[..., 2], a[..., 3]
    bx, by, bz, bw = b[..., 0], b[..., 1], b[..., 2], b[..., 3]
    return torch.stack([aw * bx + ax * bw + ay * bz - az * by, aw * by - ax * bz + ay * bw + az * bx, aw * bz + ax * by - ay * bx + az * bw,
                        aw * bw - ax * bx - ay * by - az * bz], -1)


def rotate(q: Tensor, v: Tensor) -> Tensor:
    """Vectors turned by unit quaternions."""
    axis = q[..., :3].expand_as(v)
    once = torch.linalg.cross(axis, v)
    return v + 2 * (q[..., 3:] * once + torch.linalg.cross(axis, once))


def compose(a: Tensor, b: Tensor) -> Tensor:
    """Skeleton states (..., 8) after one another: b first."""
    qa, qb = nn.functional.normalize(a[..., 3:7], dim=-1), nn.functional.normalize(b[..., 3:7], dim=-1)
    return torch.cat([a[..., :3] + rotate(qa, a[..., 7:] * b[..., :3]), multiply(qa, qb), a[..., 7:] * b[..., 7:]], -1)


def apply(state: Tensor, points: Tensor) -> Tensor:
    return state[..., :3] + rotate(nn.functional.normalize(state[..., 3:7], dim=-1), state[..., 7:] * points)


def euler_quaternion(angles: Tensor) -> Tensor:
    """Quaternions of Rz(z) Ry(y) Rx(x)."""
    half = angles * 0.5
    zero = torch.zeros_like(half[..., 0])
    c, s = half.cos(), half.sin()
    about_x = torch.stack([s[..., 0], zero, zero, c[..., 0]], -1)
    about_y = torch.stack([zero, s[..., 1], zero, c[..., 1]], -1)
    about_z = torch.stack([zero, zero, s[..., 2], c[..., 2]], -1)
    return multiply(about_z, multiply(about_y, about_x))


def prefix_pairs(parents: list[int]) -> tuple[Tensor, list[int]]:
    """((2, N): joints and the ancestors that multiply them, level after level; how many at each level).

    After level k a joint's state spans its path's last joints down to the last multiple of 2^(k+1) of their number.
    """
    paths: list[list[int]] = []
    for joint, parent in enumerate(parents):
        paths.append([*paths[parent], joint] if parent >= 0 else [joint])
    joints, ancestors, sizes = [], [], []
    for level in range(max(len(path) - 1 for path in paths).bit_length()):
        multiplied = [path for path in paths if (len(path) - 1) >> level & 1]
        joints += [path[-1] for path in multiplied]
        ancestors += [path[(len(path) - 1 >> level << level) - 1] for path in multiplied]
        sizes.append(len(multiplied))
    return torch.tensor([joints, ancestors]), sizes


class _Holder(nn.Module):
    def __init__(self, tensors: dict[str, Tensor]):
        super().__init__()
        for name, value in tensors.items():
            self.register_buffer(name, value)


class _Shapes(_Holder):
    def forward(self, coefficients: Tensor) -> Tensor:
        return torch.einsum("nvd,bn->bvd", self.shape_vectors, coefficients)


class _Character(nn.Module):
    def __init__(self, parts: dict[str, dict[str, Tensor]]):
        super().__init__()
        self.skeleton = _Skeleton(parts["skeleton"])
        self.mesh = _Holder(parts["mesh"])
        self.parameter_transform = _Holder(parts["parameter_transform"])
        self.linear_blend_skinning = _Holder(parts["linear_blend_skinning"])
        self.blend_shape = _Shapes(parts["blend_shape"])

    def forward(self, identity: Tensor, model_parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(vertices at rest, joint parameters, skeleton)"""
        transform, people = self.parameter_transform.parameter_transform, model_parameters.shape[0]
        padded = torch.cat([model_parameters, torch.zeros([people, transform.shape[1] - model_parameters.shape[1]]).to(model_parameters)], 1)
        joint_parameters = torch.einsum("dn,bn->bd", transform, padded)
        rest = self.blend_shape(identity.expand(people, -1)) + self.blend_shape.base_shape
        return rest, joint_parameters, self.skeleton(joint_parameters)

    @torch.jit.export
    def skin_points(self, skeleton: Tensor, rest: Tensor) -> Tensor:
        skin = self.linear_blend_skinning
        moves = compose(skeleton, skin.inverse_bind_pose[None]).index_select(1, skin.skin_indices_flattened)
        moved = apply(moves, rest.index_select(1, skin.vert_indices_flattened)) * skin.skin_weights_flattened[None, :, None]
        return torch.zeros_like(rest).index_add(1, skin.vert_indices_flattened, moved)


class _Skeleton(nn.Module):
    def __init__(self, tensors: dict[str, Tensor]):
        super().__init__()
        pairs, sizes = prefix_pairs(tensors["joint_parents"].tolist())
        for name, value in (tensors | {"pmi": pairs}).items():
            self.register_buffer(name, value)
        self._pmi_buffer_sizes: list[int] = sizes
        self.joint_names: list[str] = [f"joint_{number}" for number in range(len(tensors["joint_parents"]))]

    def forward(self, joint_parameters: Tensor) -> Tensor:
        each = joint_parameters.view(joint_parameters.shape[0], -1, 7)
        turn = multiply(self.joint_prerotations[None], euler_quaternion(each[..., 3:6]))
        state = torch.cat([each[..., :3] + self.joint_translation_offsets[None], turn, torch.exp(0.6931471824645996 * each[..., 6:])], -1).double()
        for pairs in self.pmi.split(self._pmi_buffer_sizes, dim=1):
            product = compose(state.index_select(1, pairs[1]), state.index_select(1, pairs[0]))
            state = state.index_copy(1, pairs[0], product)
        return state.to(joint_parameters.dtype)


class _SparseLinear(nn.Module):
    def __init__(self, indices: Tensor, weights: Tensor, shape: tuple[int, int]):
        super().__init__()
        self.sparse_indices = nn.Parameter(indices, requires_grad=False)
        self.sparse_weight = nn.Parameter(weights, requires_grad=False)
        self.sparse_shape = shape

    def forward(self, x: Tensor) -> Tensor:
        return torch.mm(torch.sparse_coo_tensor(self.sparse_indices, self.sparse_weight, self.sparse_shape), x.T).T


class _Correctives(nn.Module):
    def __init__(self, indices: Tensor, weights: Tensor, directions: Tensor):
        super().__init__()
        second = nn.Linear(directions.shape[1], directions.shape[0], bias=False, device="meta")
        second.weight = nn.Parameter(directions, requires_grad=False)
        self.pose_dirs_predictor = nn.Sequential(_SparseLinear(indices, weights, (directions.shape[1], 750)), nn.ReLU(), second)

    def forward(self, joint_parameters: Tensor) -> Tensor:
        angles = joint_parameters.view(joint_parameters.shape[0], -1, 7)[:, 2:, 3:6]
        c, s = angles.cos(), angles.sin()
        cx, cy, cz, sx, sy, sz = c[..., 0], c[..., 1], c[..., 2], s[..., 0], s[..., 1], s[..., 2]
        features = torch.stack([cy * cz - 1, cy * sz, -sy, sx * sy * cz - cx * sz, sx * sy * sz + cx * cz - 1, sx * cy], -1).flatten(1, 2)
        return self.pose_dirs_predictor(features).view(features.shape[0], -1, 3)


class Program(nn.Module):
    """`forward` has the published signature and units: centimetres, y up, skeleton states of translation, quaternion x y z w, scale."""

    def __init__(self, archive: dict[str, Tensor]):
        super().__init__()
        parts: dict[str, dict[str, Tensor]] = {}
        for name, value in archive.items():
            path = name.split(".")
            if path[0] == "character_torch":
                parts.setdefault(path[1], {})[path[2]] = value
        self.character_torch = _Character(parts)
        self.face_expressions_model = _Shapes({"shape_vectors": archive["face_expressions_model.shape_vectors"]})
        first = "pose_correctives_model.pose_dirs_predictor."
        self.pose_correctives_model = _Correctives(archive[f"{first}0.sparse_indices"], archive[f"{first}0.sparse_weight"], archive[f"{first}2.weight"])

    def forward(self, identity_coeffs: Tensor, model_parameters: Tensor, face_expr_coeffs: Tensor | None,
                apply_correctives: bool = True) -> tuple[Tensor, Tensor]:
        rest, joint_parameters, skeleton = self.character_torch(identity_coeffs, model_parameters)
        if face_expr_coeffs is not None:
            rest = rest + self.face_expressions_model(face_expr_coeffs)
        if apply_correctives:
            rest = rest + self.pose_correctives_model(joint_parameters)
        return self.character_torch.skin_points(skeleton, rest), skeleton

    @torch.jit.export
    def get_joint_names(self) -> list[str]:
        return self.character_torch.skeleton.joint_names
