# SPDX-License-Identifier: Apache-2.0
"""Two people whom SAM 3D Body found in a real photograph, seen through Blender's camera."""

import bmesh
import bpy
import numpy as np
import pytest
from bpy_extras.object_utils import world_to_camera_view
from mathutils import Vector

from body4d_blender.scene import build_take
from body4d_engine.take import Take

from .make_take import make_take
from .test_scene import body_of, camera_of, shown, upright

MHR_ROOT_M = np.array([0.0, -0.924, 0.0])


@pytest.fixture(scope="module")
def photograph(shared):
    """Per person the camera-space vertices and keypoints, the pixels of the keypoints; faces; focal and principal point that fit them."""
    folder = shared / "data" / "sam_3d_body"
    people, rows, values = [], [], []
    for name in ("img_subj00", "img_subj01"):
        data = np.load(folder / f"{name}.npz")
        x, y, z = (data["pred_keypoints_3d"] + data["pred_cam_t"]).astype(float).T
        u, v = data["pred_keypoints_2d"].T
        one, none = np.ones_like(x), np.zeros_like(x)
        rows += [np.stack([x / z, one, none], 1), np.stack([y / z, none, one], 1)]
        values += [u, v]
        people.append((data["pred_vertices"], data["pred_cam_t"] + MHR_ROOT_M, np.stack([x, y, z], 1), data["pred_keypoints_2d"]))
    focal, cx, cy = np.linalg.lstsq(np.concatenate(rows), np.concatenate(values), rcond=None)[0]
    return people, np.load(folder / "mhr_topology.npz")["faces"], focal, (cx, cy)


def test_the_photograph_in_blender(scene, tmp_path, photograph):
    people, faces, focal, principal = photograph
    size = (1920, 890)
    path = make_take(tmp_path / "photo.take", people={1: None}, end=1, size=size, focal=focal, principal=principal, method="estimated",
                     mesh=((people[0][0] - MHR_ROOT_M).astype(np.float32), faces))
    with Take.open(path, writable=True) as take:  # both as SAM 3D Body gave them, instead of a walk
        take.set_people([{**take.people[0], "id": i, "name": f"Person {i}"} for i in (1, 2)])
        take.begin("refine", "s" * 16)
        for i, (vertices, root, *_) in enumerate(people, 1):
            for name, records in (("vertices", vertices - MHR_ROOT_M), ("root", root), ("state", np.ones(()))):
                take.create_array(f"people/{i}", name, "u1" if name == "state" else "f4", records.shape, pc2=name == "vertices")
                take.append(f"people/{i}", name, records[None])
            take.write_npz(f"people/{i}/body.refine.npz", faces=faces)
        take.commit({})
        take.finish()
    collection = build_take(path)
    worst = 0.0
    for i, (vertices, root, keypoints, pixels) in enumerate(people, 1):
        body = body_of(collection, i)
        assert np.array_equal(shown(body), upright((vertices - MHR_ROOT_M).astype(np.float32)))
        seen = np.array([world_to_camera_view(scene, camera_of(collection), Vector(p)) for p in upright(keypoints)])
        worst = max(worst, np.abs(np.stack([seen[:, 0], 1 - seen[:, 1]], 1) * size - pixels).max())
        placed = np.array([body.matrix_world @ v.co for v in body.data.vertices])
        assert np.abs(placed - upright((vertices + (root - MHR_ROOT_M)).astype(np.float32))).max() < 2e-6
        mesh = bmesh.new()
        mesh.from_mesh(body.data)
        assert all(e.is_manifold and e.is_contiguous for e in mesh.edges)
        assert 0.03 < mesh.calc_volume(signed=True) < 0.15  # cubic metres; negative where faces look inward
        mesh.free()
    print(f"max reprojection error {worst:.1e} px")
    assert worst < 1e-2
    assert bpy.context.scene.camera == camera_of(collection)
