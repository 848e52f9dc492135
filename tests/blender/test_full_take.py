# SPDX-License-Identifier: GPL-3.0-or-later
"""A take as the full backend leaves it, with MHR's 18,439 vertices, 127 joints and 204 parameters, becomes the same scene as any other."""

import bpy
import numpy as np
import pytest
from mathutils import Matrix, Quaternion, Vector

from body4d_blender.scene import build_take, imported, tags
from body4d_engine.events import Notice
from body4d_engine.take import State, Take, span_of

from .make_take import SIZE, write_frames
from .test_scene import body_of, camera_of, shown, upright

SAMPLES, JOINTS, COLUMNS = 6, 127, 141
VERTICES = 18439
STATES = {1: [State.VISIBLE] * SAMPLES, 2: [State.ABSENT, State.VISIBLE, State.OCCLUDED, State.VISIBLE, State.ABSENT, State.ABSENT]}
SIZES = {"params": 204, "shape": 45, "scale": 28, "hands": 108, "joints": (JOINTS, 3), "rotations": (JOINTS, 4),
         "keypoints_m": (70, 3), "keypoints_px": (70, 3)}
NOTICES = [Notice("camera", "focal_estimated", "The focal length is estimated: 700 px (MoGe-2). Give --focal-px or --focal-mm if you know it."),
           Notice("recover", "no_gpu", "There is no GPU here."), Notice("recover", "person_never_seen", "Bo was never seen well enough.", person=2),
           Notice("track", "person_lost", "Person 2 is not seen from frame 2 to 2.", 2, 2, 2)]


def body() -> dict:
    """A curtain of 18,439 vertices that hangs on a chain of 127 joints, each vertex on the one above it or half on the next."""
    y, x = np.divmod(np.arange(VERTICES), COLUMNS)
    vertices = np.stack([x / COLUMNS - 0.5, y / 80 - 0.8, 0.1 * np.sin(x / 9)], 1).astype(np.float32)
    corners = np.arange(VERTICES - COLUMNS - 1)
    corners = corners[corners % COLUMNS < COLUMNS - 1]
    faces = np.concatenate([np.stack([corners, corners + 1, corners + COLUMNS], 1), np.stack([corners + 1, corners + COLUMNS + 1, corners + COLUMNS], 1)])
    joints = np.stack([np.zeros(JOINTS), np.linspace(0, 0.8, JOINTS), np.linspace(0, 0.05, JOINTS)], 1).astype(np.float32)
    first = np.clip(y, 0, JOINTS - 2)
    binds = np.tile(np.eye(4, dtype=np.float32), (JOINTS, 1, 1))
    binds[:, :3, 3] = -joints
    return {"model": np.array("MHR"), "faces": faces.astype(np.int32), "rest_vertices_m": vertices, "rest_joints_m": joints, "inverse_binds": binds,
            "joint_names": np.array(["root"] + [f"joint {i}" for i in range(1, JOINTS)]), "parents": np.arange(-1, JOINTS - 1, dtype=np.int32),
            "skin_indptr": np.arange(0, 2 * VERTICES + 1, 2, dtype=np.int32), "skin_indices": np.stack([first, first + 1], 1).reshape(-1).astype(np.int32),
            "skin_weights": np.tile(np.float32([0.75, 0.25]), VERTICES), "keypoint_names": np.array([f"point {i}" for i in range(70)])}


def posed(rest: dict, sample: int, person: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(vertices, joints, rotations wxyz) where every joint is turned a little against the one before it."""
    angle = 0.01 * person * (sample + 1)
    turns = [Quaternion((1.0, 0.3 * person, 0.5), angle * i) for i in range(JOINTS)]
    joints = [Vector((0, 0, 0))]
    for i in range(1, JOINTS):
        joints.append(joints[-1] + turns[i - 1] @ Vector((rest["rest_joints_m"][i] - rest["rest_joints_m"][i - 1]).tolist()))
    matrices, joints = np.array([turn.to_matrix() for turn in turns]), np.array(joints)
    weights = rest["skin_weights"].reshape(-1, 2, 1)
    which = rest["skin_indices"].reshape(-1, 2)
    moved = np.einsum("vkab,vkb->vka", matrices[which], rest["rest_vertices_m"][:, None] - rest["rest_joints_m"][which]) + joints[which]
    return (weights * moved).sum(1).astype(np.float32), joints.astype(np.float32), np.array(turns, np.float32)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """By the format alone: no engine, no torch."""
    folder = tmp_path_factory.mktemp("full")
    write_frames(folder / "frames", SAMPLES)
    clip = {"name": "frames", "path": str(folder / "frames"), "fingerprint": "f", "width": SIZE[0], "height": SIZE[1], "fps": [30, 1],
            "frame_count": SAMPLES, "start": 0, "end": SAMPLES, "step": 1, "has_audio": False, "proxy": None}
    rest, random = body(), np.random.default_rng(5)
    with Take.create(folder / "a.take", clip, "full", {"hands": True, "models": "ours"}) as take:
        take.set_people([{"id": i, "name": name, "color": [0.2, 0.6, 0.9], "prompts": {}, "height_m": None} for i, name in ((1, "Ana"), (2, "Bo"))])
        take.begin("camera", "c" * 16)
        take.write_npz("camera.npz", focal_px=np.full(SAMPLES, 700, np.float32), principal_px=np.tile(np.float32([320, 180]), (SAMPLES, 1)),
                       method=np.array("estimated"), note=np.array("MoGe-2 on up to 8 frames, spread 2.0%"))
        take.finish()
        take.begin("refine", "r" * 16)
        for person, states in STATES.items():
            group, span = f"people/{person}", span_of(np.array(states))
            take.create_array(group, "vertices", "f4", (VERTICES, 3), pc2=True, span=span)
            for name, size in SIZES.items():
                take.create_array(group, name, "f4", size if isinstance(size, tuple) else (size,), span=span)
            for name, kind, shape in (("root", "f4", (3,)), ("confidence", "f4", ()), ("state", "u1", ())):
                take.create_array(group, name, kind, shape, span=span)
            for sample in range(*span):
                vertices, joints, rotations = posed(rest, sample, person)
                record = {"vertices": vertices, "joints": joints, "rotations": rotations, "root": [person - 1.5, 0.1, 4 + 0.1 * sample], "confidence": 0.9,
                          "state": states[sample]}
                for name, size in SIZES.items():
                    record.setdefault(name, random.normal(size=size))
                for name, values in record.items():
                    take.append(group, name, np.asarray(values)[None])
            take.write_npz(f"{group}/body.refine.npz", **rest)
        for notice in NOTICES:
            take.notice(notice)
        take.commit({})
        take.finish()
    return folder / "a.take"


@pytest.mark.parametrize("mesh_cache", [False, True], ids=["keys", "cache"])
def test_the_scene_is_that_of_any_take(scene, path, mesh_cache):
    collection = build_take(path, mesh_cache=mesh_cache)
    with Take.open(path) as take:
        for person, states in STATES.items():
            block, vertices = body_of(collection, person), take.by_sample(f"people/{person}", "vertices")
            assert len(block.data.vertices) == VERTICES and (block.data.shape_keys is None) == mesh_cache
            for sample, state in enumerate(states):
                scene.frame_set(1 + sample)
                assert block.hide_render == (state == State.ABSENT)
                if state != State.ABSENT:
                    assert np.array_equal(shown(block), upright(np.asarray(vertices[sample])))
    camera = camera_of(collection)
    assert camera.data.lens == pytest.approx(700 * 36 / 640) and "assumed" not in camera.name
    assert collection[tags.BACKEND] == "full" and collection[tags.FOCAL] == "700.0 px, estimated (MoGe-2 on up to 8 frames, spread 2.0%)"


def test_what_its_stages_said_is_shown_in_the_words_of_the_interface(scene, path):
    collection = build_take(path)
    said = [*collection[tags.NOTICES]]
    assert said[-3:] == ["The focal length is estimated: 700 px (MoGe-2). Set it in Refine Again if you know it.", "There is no GPU here.",
                         "Bo was never seen well enough."]
    assert "Person 2 is not seen from frame 3 to 3." in [doubt.reason for doubt in imported.doubts_of(body_of(collection, 2))]


def test_all_of_mhr_is_in_the_take(path):
    with Take.open(path) as take:
        for person in STATES:
            for name, size in SIZES.items():
                values = take.by_sample(f"people/{person}", name)
                assert values.shape == (SAMPLES, *(size if isinstance(size, tuple) else (size,)))


def test_its_joints_move_its_skin_in_blender(scene, path):
    """An armature made of the take's 127 joints alone moves the mesh at rest as the shape keys do."""
    collection = build_take(path)
    with Take.open(path) as take:
        rest, joints, rotations = take.body(1), *(np.asarray(take.by_sample("people/1", name)) for name in ("joints", "rotations"))
    armature = bpy.data.objects.new("MHR", bpy.data.armatures.new("MHR"))
    scene.collection.objects.link(armature)
    bpy.context.view_layer.objects.active = armature
    bpy.ops.object.mode_set(mode="EDIT")
    for name, parent, place in zip(rest["joint_names"], rest["parents"], upright(rest["rest_joints_m"])):
        bone = armature.data.edit_bones.new(str(name))
        bone.head, bone.tail = place, place + np.float32([0, 0, 0.02])
        bone.parent = armature.data.edit_bones[int(parent)] if parent >= 0 else None
    bpy.ops.object.mode_set(mode="OBJECT")
    mesh = bpy.data.meshes.new("skin")
    mesh.from_pydata(upright(rest["rest_vertices_m"]).tolist(), [], rest["faces"].tolist())
    skin = bpy.data.objects.new("skin", mesh)
    scene.collection.objects.link(skin)
    for joint, name in enumerate(rest["joint_names"]):
        group = skin.vertex_groups.new(name=str(name))
        for weight in (0.75, 0.25):
            at = np.flatnonzero((rest["skin_indices"] == joint) & (rest["skin_weights"] == np.float32(weight)))
            group.add((np.searchsorted(rest["skin_indptr"], at, "right") - 1).tolist(), weight, "REPLACE")
    skin.modifiers.new("armature", "ARMATURE").object = armature
    turned = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], float)  # `upright` as a matrix
    for sample in (0, SAMPLES - 1):
        matrices = []
        for bone, joint, rotation in zip(armature.data.bones, joints[sample], rotations[sample]):
            turn = turned @ np.array(Quaternion(rotation.tolist()).to_matrix()) @ turned.T
            matrices.append(Matrix.Translation(upright(joint)) @ Matrix(turn).to_4x4() @ bone.matrix_local.to_3x3().to_4x4())
        for number, bone in enumerate(armature.pose.bones):
            above = int(rest["parents"][number])
            local = matrices[number] if above < 0 else matrices[above].inverted() @ matrices[number]
            at_rest = bone.bone.matrix_local if above < 0 else armature.data.bones[above].matrix_local.inverted() @ bone.bone.matrix_local
            bone.matrix_basis = at_rest.inverted() @ local
        scene.frame_set(1 + sample)
        assert np.abs(shown(skin) - shown(body_of(collection, 1))).max() < 1e-4
