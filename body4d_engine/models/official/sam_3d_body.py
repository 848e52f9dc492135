# SPDX-License-Identifier: Apache-2.0
"""The published SAM 3D Body (facebookresearch/sam-3d-body) behind the interface of `models.sam_3d_body`.

Put right on the way out: 2D keypoints are projected by the camera that was given (the published ones of `full` have the principal point in the picture's
middle), and joint rotations are those of the final parameters (the published ones of `full` are from before the hands were put on).

What stays as published: in `full`, hands are looked at as if the principal point were in the picture's middle, each wrist's distance is measured by the other
hand's box, and a person who is alone in a frame gets no dummy prompts, nor a second look where no hand is accepted, so that a result depends on who else is
there. `mhr_model.pt` is run as TorchScript, held twice; the code of DINOv3 is fetched from GitHub by torch.hub the first time."""

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from ...errors import Body4DError
from ...memory import Batches
from ..sam_3d_body.crops import CropInput, checked
from ..sam_3d_body.figure import Figure
from ..sam_3d_body.heads import project
from ..sam_3d_body.inference import MODES
from ..sam_3d_body.stream import record
from . import INSTEAD, OPTIONS, on_cuda, published, running

_NAMES = ("bbox", "focal_length", "pred_keypoints_3d", "pred_vertices", "pred_cam_t", "pred_joint_coords", "global_rot", "body_pose_params", "hand_pose_params",
          "scale_params", "shape_params", "expr_params", "mhr_model_params")
_OF_MODE = {"body": ("pred_pose_raw",), "full": ("lhand_bbox", "rhand_bbox")}
AT_ONCE = 64  # people of a frame


class Sam3dBody:
    """estimator: the published `SAM3DBodyEstimator`. ours: a `models.sam_3d_body.inference.Sam3dBody` of the same weights, of which only MHR and its tables are
    used, on whose device results are."""

    def __init__(self, estimator, ours):
        self.estimator = estimator
        self.mhr, self.body = ours.mhr, SimpleNamespace(pose_head=ours.body.pose_head)  # what a `Figure` reads

    @classmethod
    def load(cls, checkpoint: Path, mhr: Path, ours, device: str) -> "Sam3dBody":
        """From `model.ckpt`, with `model_config.yaml` beside it or in the folder above, and `mhr_model.pt`.

        The published loader runs whatever the checkpoint is pickled with: read ours from the same file first, which takes nothing but tensors and options.
        Raises Body4DError: `needs_cuda`, those of `official.published`, `weights_missing`, `official_failed`."""
        os.environ.setdefault("MOMENTUM_ENABLED", "0")  # any value at all: MHR is read from the file that is given, not by a package `mhr` from its own
        load, estimator = (published("sam_3d_body", name) for name in ("load_sam_3d_body", "SAM3DBodyEstimator"))
        on_cuda("sam_3d_body", device)
        if not any((folder / OPTIONS).is_file() for folder in checkpoint.parents[:2]):
            raise Body4DError(f"The published SAM 3D Body needs {OPTIONS} beside {checkpoint}.", f"Get it from where model.ckpt is from. {INSTEAD}",
                              "weights_missing")
        with running("sam_3d_body"):
            return cls(estimator(*load(str(checkpoint), device=device, mhr_path=str(mhr))), ours)

    def infer(self, crops: list[CropInput], mode: str = "full") -> dict[str, Tensor]:
        """As `models.sam_3d_body.inference.Sam3dBody.infer`, without `hands_used`: the crops of a frame in one call, one frame after another."""
        if mode not in MODES:
            raise Body4DError(f"{mode!r} is not a way to run SAM 3D Body.", f"Choose one of: {', '.join(MODES)}.", "mode")
        boxes, cameras = checked(crops)
        boxes, cameras, calls, people = boxes.astype(np.float32), cameras.astype(np.float32), {}, {}
        for row, crop in enumerate(crops):
            calls.setdefault((id(crop.image), cameras[row].tobytes(), crop.mask is None), []).append(row)
        for rows in calls.values():
            masks = None if crops[rows[0]].mask is None else [crops[row].mask for row in rows]
            people |= zip(rows, self._frame(crops[rows[0]].image, boxes[rows], masks, cameras[rows[0]], mode))
        people, device = [people[row] for row in range(len(crops))], self.mhr.base.device
        found = {name: torch.from_numpy(np.stack([np.asarray(person[name], np.float32) for person in people])).to(device) for name in _NAMES + _OF_MODE[mode]}
        found["pred_keypoints_2d"] = project(found["pred_keypoints_3d"] + found["pred_cam_t"][:, None], torch.from_numpy(cameras).to(device))[0]
        found["pred_global_rots"] = self.mhr.camera * self.mhr.camera_rotations(found["mhr_model_params"])
        return found

    def _frame(self, image: np.ndarray, boxes: np.ndarray, masks: list[np.ndarray] | None, K: np.ndarray, mode: str) -> list[dict]:
        """People of one frame under one camera, all of them with a mask or none."""
        if masks is not None:
            masks = np.stack([np.asarray(mask).reshape(image.shape[:2]) != 0 for mask in masks]).astype(np.uint8)
        with running("sam_3d_body"):
            people = self.estimator.process_one_image(np.ascontiguousarray(image), bboxes=boxes, masks=masks, cam_int=torch.from_numpy(K)[None],
                                                      inference_type=mode)
        lacking = [name for name in _NAMES + _OF_MODE[mode] if any(name not in person for person in people)]
        if lacking or len(people) != len(boxes):
            raise Body4DError(f"The installed sam_3d_body is of another version: of {len(boxes)} people it gives {len(people)}"
                              + (f", without {', '.join(lacking)}." if lacking else "."), INSTEAD, "official_version")
        return people


class Stream:
    """As `models.sam_3d_body.stream.Stream`, one frame at a time, with all its people."""

    def __init__(self, network: Sam3dBody, figure: Figure, mode: str):
        self.network, self.figure, self.mode = network, figure, mode
        self._batches = Batches(AT_ONCE, "the people of one frame")

    def feed(self, crops: list[CropInput], labels: list) -> Iterator[tuple[list, dict[str, np.ndarray]]]:
        """See there. Where memory does not suffice for the people of a frame together, they are taken in parts."""
        parts = [{name: value.cpu().numpy() for name, value in record(found, self.figure).items()}
                 for found in self._batches.run(lambda part: self.network.infer(part, self.mode), crops)]
        yield labels, {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def rest(self) -> Iterator[tuple[list, dict[str, np.ndarray]]]:
        """Nothing waits."""
        yield from ()
