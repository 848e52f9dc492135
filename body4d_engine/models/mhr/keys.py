# SPDX-License-Identifier: Apache-2.0
"""What `mhr_model.pt` holds, under which names, and what we keep of it.

MHR: the Momentum Human Rig (arXiv:2511.15586) at level of detail 1, as published with facebookresearch/MHR 1.0.1 and beside the SAM 3D Body
checkpoints. Lengths are centimetres, x to the person's left, y up, z to the front.
"""
import torch

from ...errors import Body4DError

JOINTS, PARAMETERS, IDENTITY, EXPRESSION = 127, 204, 45, 72
PER_JOINT = 7  # three translations, three Euler angles, the logarithm of the scale to base 2
STILL = 2  # the world and the root, the first two joints, drive no corrective
VERTICES, FACES = 18439, 36874  # of the published mesh

PUBLISHED_SHA256 = "352e271a6c42729c68554ceaea0c955e866970160c31e35506d782dc0f7377bc"
PUBLISHED_BYTES = 696110248

_CHARACTER, _CORRECTIVES = "character_torch.", "pose_correctives_model.pose_dirs_predictor."
ARCHIVE_NAMES = {  # ours -> the archive's, whose other tensors (limits, texture coordinates, ...) nothing here needs
    "parameter_transform": _CHARACTER + "parameter_transform.parameter_transform",
    "joint_offsets": _CHARACTER + "skeleton.joint_translation_offsets",
    "joint_prerotations": _CHARACTER + "skeleton.joint_prerotations",
    "joint_parents": _CHARACTER + "skeleton.joint_parents",
    "inverse_bind": _CHARACTER + "linear_blend_skinning.inverse_bind_pose",
    "skin_vertices": _CHARACTER + "linear_blend_skinning.vert_indices_flattened",
    "skin_joints": _CHARACTER + "linear_blend_skinning.skin_indices_flattened",
    "skin_weights": _CHARACTER + "linear_blend_skinning.skin_weights_flattened",
    "base": _CHARACTER + "blend_shape.base_shape",
    "identity": _CHARACTER + "blend_shape.shape_vectors",
    "expression": "face_expressions_model.shape_vectors",
    "faces": _CHARACTER + "mesh.faces",
    "activation_indices": _CORRECTIVES + "0.sparse_indices",
    "activation_weights": _CORRECTIVES + "0.sparse_weight",
    "correctives": _CORRECTIVES + "2.weight",
}
_MADE_SPARSE = {"activation_indices", "activation_weights", "correctives"}  # kept in another form
_INTEGERS = {"joint_parents", "skin_vertices", "skin_joints", "faces", "corrective_rows", "corrective_columns"}


def from_archive(archive: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Our tensors from the archive's: without padding, integers in 32 bits, correctives without their zeros (CSR); checked.

    Raises Body4DError where tensors are absent or do not fit each other.
    """
    absent = [name for name in ARCHIVE_NAMES.values() if name not in archive]
    if absent:
        raise other_model(f"it has no tensor {absent[0]}" + (f" (and lacks {len(absent) - 1} more)" if absent[1:] else ""))
    tensors = {ours: archive[name] for ours, name in ARCHIVE_NAMES.items()}
    transform, correctives, indices = tensors["parameter_transform"], tensors.pop("correctives"), tensors.pop("activation_indices").long()
    if transform.dim() != 2 or correctives.dim() != 2 or indices.dim() != 2:
        raise other_model("its matrices are not matrices")
    tensors["parameter_transform"] = transform[:, :PARAMETERS]  # the columns after these only ever meet zeros
    activation = torch.zeros(correctives.shape[1], 6 * (JOINTS - STILL))
    weights = tensors.pop("activation_weights").float()
    if not _within(indices[0], activation.shape[0]) or not _within(indices[1], activation.shape[1]) or weights.shape != indices[0].shape:
        raise other_model("the first corrective layer does not fit the second")
    activation[indices[0], indices[1]] = weights
    tensors["activation"] = activation
    tensors |= sparse_rows(correctives)
    tensors = {name: value.to(torch.int32 if name in _INTEGERS else torch.float32).contiguous() for name, value in tensors.items()}
    check(tensors)
    return tensors


def sparse_rows(matrix: torch.Tensor) -> dict[str, torch.Tensor]:
    """The corrective layer as compressed rows: `corrective_rows` (rows + 1), `corrective_columns` and `corrective_values` (entries)."""
    counts, columns, values = [], [], []
    for rows in matrix.split(2048):  # a mask of the whole would be another 166 MB
        filled = rows != 0
        counts.append(filled.sum(1))
        columns.append(filled.nonzero()[:, 1])
        values.append(rows[filled])
    first = torch.zeros(1, dtype=torch.int64)
    ends = torch.cat(counts).cumsum(0)
    return {"corrective_rows": torch.cat([first, ends]), "corrective_columns": torch.cat(columns), "corrective_values": torch.cat(values)}


def density(tensors: dict[str, torch.Tensor]) -> float:
    """Share of the corrective layer's entries that are not zero."""
    return tensors["corrective_values"].numel() / (tensors["base"].numel() * tensors["activation"].shape[0])


def check(tensors: dict[str, torch.Tensor]) -> None:
    """Raises Body4DError unless all our tensors are there, fit each other, point at what exists and are finite."""
    expected = set(ARCHIVE_NAMES) - _MADE_SPARSE | {"activation", "corrective_rows", "corrective_columns", "corrective_values"}
    if set(tensors) != expected:
        raise other_model(f"tensors are absent or unknown: {', '.join(sorted(set(tensors) ^ expected))}")
    vertices, hidden, influences = tensors["base"].shape[0], tensors["activation"].shape[0], tensors["skin_weights"].shape[0]
    entries = tensors["corrective_values"].shape[0]
    shapes = {
        "parameter_transform": (JOINTS * PER_JOINT, PARAMETERS), "joint_offsets": (JOINTS, 3), "joint_prerotations": (JOINTS, 4),
        "joint_parents": (JOINTS,), "inverse_bind": (JOINTS, 8), "base": (vertices, 3), "identity": (IDENTITY, vertices, 3),
        "expression": (EXPRESSION, vertices, 3), "skin_vertices": (influences,), "skin_joints": (influences,), "skin_weights": (influences,),
        "activation": (hidden, 6 * (JOINTS - STILL)), "corrective_rows": (3 * vertices + 1,), "corrective_columns": (entries,), "corrective_values": (entries,),
        "faces": (tensors["faces"].shape[0], 3),
    }
    for name, shape in shapes.items():
        if tuple(tensors[name].shape) != shape:
            raise other_model(f"{name} is {tuple(tensors[name].shape)}, not {shape}")
        if tensors[name].is_floating_point() and not torch.isfinite(tensors[name]).all():
            raise other_model(f"{name} has values that are not finite")
    parents, rows = tensors["joint_parents"], tensors["corrective_rows"]
    within = {"skin_vertices": vertices, "skin_joints": JOINTS, "corrective_columns": hidden, "faces": vertices}
    for name, limit in within.items():
        if not _within(tensors[name], limit):
            raise other_model(f"{name} points outside 0 to {limit - 1}")
    if parents[0] != -1 or not _within(parents[1:], JOINTS) or not (parents[1:] < torch.arange(1, JOINTS)).all():
        raise other_model("its joints do not form one tree with parents before their children")
    if rows[0] != 0 or rows[-1] != entries or (rows.diff() < 0).any():
        raise other_model("the rows of the corrective layer are out of order")


def other_model(why: str) -> Body4DError:
    return Body4DError(f"This is not the MHR body model that is needed: {why}.",
                       "Take the mhr_model.pt that comes with SAM 3D Body or with facebookresearch/MHR.", "mhr_other_model")


def _within(indices: torch.Tensor, limit: int) -> bool:
    return not indices.numel() or (int(indices.min()) >= 0 and int(indices.max()) < limit)
