# SPDX-License-Identifier: Apache-2.0
"""What is known of a scene: per person joints, contacts and vertices; per frame the camera, who is seen where, and masks."""

import json
from pathlib import Path

import cv2
import numpy as np

from body4d_engine.models.anny.pose import KEYPOINTS
from body4d_engine.render.rasterize import rasterize

from .puppet import CONTACTS
from .scenes import Scene

MARGIN = 0.5  # of the picture's size on each side, in which a person's pixels outside the picture are counted too


def write(scene: Scene, folder: Path, vertices: bool = False) -> None:
    """Into folder: person_ID.npz (reference files), tracking.npz, masks/NNNNNN.png (ids), truth.json. Pixels are those of the clip."""
    frames = np.arange(len(scene))
    ids = np.arange(1, len(scene.actors) + 1)
    for i, actor in zip(ids, scene.actors):
        done = actor.performance
        more = {"vertices_m": done.vertices(), "faces": done.puppet.model.body.faces} if vertices else {}
        np.savez_compressed(folder / f"person_{i}.npz", joints_m=done.keypoints.astype(np.float32), joint_names=np.array(KEYPOINTS), frames=frames,
                            K=scene.K, R=scene.R, t=scene.t, contact=done.contact(), contact_names=np.array(CONTACTS), person=i, **more)
    boxes, visible_boxes, visibility = track(scene, folder / "masks")
    np.savez_compressed(folder / "tracking.npz", frames=frames, ids=ids, boxes=boxes, boxes_visible=visible_boxes, visibility=visibility, masks="masks",
                        alike=np.array([actor.alike for actor in scene.actors]))
    facts = {"scene": scene.name, "seed": scene.seed, "width": scene.width, "height": scene.height, "fps": scene.fps, "frames": len(scene),
             "focal_px": scene.K[0, 0], "camera_moves": bool(np.ptp(scene.R, axis=0).max() + np.ptp(scene.t, axis=0).max() > 1e-9),
             "people": [{"id": int(i), "height_m": round(a.performance.puppet.rest.height, 4), "alike": a.alike} for i, a in zip(ids, scene.actors)]}
    (folder / "truth.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")


def track(scene: Scene, masks: Path | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes (T, P, 4) of each person as if alone, boxes of what is seen, and the share of their pixels that is seen.

    Boxes end at the picture's edge and are NaN for who is outside or wholly hidden. Label pictures go to the folder masks.
    """
    width, height = scene.width, scene.height
    pad_x, pad_y = int(MARGIN * width), int(MARGIN * height)
    clothed = [actor.performance.vertices(actor.clothed) for actor in scene.actors]
    faces = scene.actors[0].performance.puppet.model.body.faces
    hiding = [p for p in scene.props if p["occludes"]]
    shape = (len(scene), len(scene.actors))
    boxes, visible, share = np.full((*shape, 4), np.nan), np.full((*shape, 4), np.nan), np.zeros(shape)
    if masks is not None:
        masks.mkdir(exist_ok=True)
    for frame in range(len(scene)):
        R, t = scene.R[frame], scene.t[frame]
        nearest = np.full(height * width, np.inf, np.float32)
        label = np.zeros(height * width, np.uint8)
        whole = np.zeros(len(scene.actors))
        for p in hiding:
            quads = np.array(p["faces"])
            triangles = np.concatenate([quads[:, :3], quads[:, [0, 2, 3]]])
            seen = rasterize(np.array(p["vertices"]) @ R.T + t, triangles, scene.K[0, 0], scene.K[:2, 2], width, height)
            nearest[seen.pixel] = np.minimum(nearest[seen.pixel], seen.depth)
        for i, surface in enumerate(clothed):
            seen = rasterize(surface[frame] @ R.T + t, faces, scene.K[0, 0], scene.K[:2, 2] + [pad_x, pad_y], width + 2 * pad_x, height + 2 * pad_y)
            whole[i] = len(seen.pixel)
            row, column = np.divmod(seen.pixel, width + 2 * pad_x)
            row, column = row - pad_y, column - pad_x
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            if not inside.any():
                continue
            boxes[frame, i] = _box(row[inside], column[inside])
            pixel, depth = (row * width + column)[inside], seen.depth[inside]
            front = depth < nearest[pixel]
            nearest[pixel[front]] = depth[front]
            label[pixel[front]] = i + 1
        label = label.reshape(height, width)
        for i in range(len(scene.actors)):
            row, column = np.nonzero(label == i + 1)
            if len(row):
                visible[frame, i] = _box(row, column)
                share[frame, i] = len(row) / whole[i]
        if masks is not None:
            cv2.imwrite(str(masks / f"{frame:06d}.png"), label)
    return boxes, visible, share


def _box(row: np.ndarray, column: np.ndarray) -> list[int]:
    return [column.min(), row.min(), column.max() + 1, row.max() + 1]
