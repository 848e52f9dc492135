# SPDX-License-Identifier: Apache-2.0
"""SAM-Body4D's own functions, from a checkout, beside what the engine has in their place.

The same: its batched inference over padded frames (`process_frames`, `run_inference_batch`) with smoothing and the lock of the shape taken out, fed with RGB
and masks of 0 and 1, against our packed crops; and the box round a mask. Different on purpose, so told and not judged: what those parts that were taken out do,
what it feeds its networks, whom it loses, and its smoothing against ours on motion that is known."""

import contextlib
import importlib
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import cv2
import numpy as np
import torch

from body4d_engine.models.official import silent
from body4d_engine.models.sam_3d_body.crops import CropInput
from body4d_engine.models.sam_3d_body.figure import Figure
from body4d_engine.stages.full.claims import Claims

from . import published
from .bodies import PIXEL_TOLERANCE, VERTEX_TOLERANCE, furthest, numbers, within
from .networks import SEEDS, crops, random_network, settle_hands
from .published import replaced
from .smoothing import smoothing

SEEN = ([1, 2, 3], [1, 3], [1, 2, 3], [2])                # who is in which frame
DRAWING, WRITING = ("matplotlib", "matplotlib.pyplot", "pyrender", "trimesh"), ("imageio", "imageio.v2")  # it imports them, and nothing here needs them


def compare(checkout: Path) -> dict:
    model, (first, second) = random_network("dinov3", SEEDS["dinov3"]), _by_frame(crops(True))
    settle_hands(model, [*first, *second])
    report: dict = {"network": "SAM-Body4D", "same": {}, "different": {}, "faults": []}
    clip = _clip(first, second)
    ours = numbers(model, [crop for frame in clip for crop in frame], "full")
    inner = checkout / "models" / "sam_3d_body"
    with tempfile.TemporaryDirectory() as folder, _importable(checkout), published.on_cpu(inner, model, inner / "dinov3"):
        published.save(model, Path(folder), SEEDS["dinov3"])
        theirs = Theirs(published.load(Path(folder), model).estimator)
        with published.our_crops():
            _batches(theirs, clip, ours, Path(folder), report)
        _boxes(Path(folder), report)
        report["smoothing"] = smoothing(Figure(model), importlib.import_module("utils.kalman"))
    return report


def show(report: dict) -> None:
    print(f"\nSAM-Body4D's own functions against the engine's (tolerances {VERTEX_TOLERANCE:g} m, {PIXEL_TOLERANCE:g} px)")
    for kind, title in (("same", "The same"), ("different", "Different on purpose")):
        print(f"  {title}:")
        for name, said in report[kind].items():
            print(f"    {name}: " + (said if isinstance(said, str) else "vertices {:.2e} m, keypoints {:.2e} px apart".format(*said)))
    print("  Smoothing, of joints in degrees RMS from the true motion; the largest turn from one frame to the next:")
    for name, found in report["smoothing"].items():
        print(f"    {name:45s} " + "; ".join(f"{who} {error:.3f}, {turn:.1f}" for who, (error, turn) in found.items()))


class Theirs:
    """Its estimator, with or without what it does to the sequence."""

    def __init__(self, estimator):
        self.estimator = estimator
        self.meta = sys.modules["sam_3d_body.models.meta_arch.sam3d_body"]

    def run(self, images: list, clip: list[list[CropInput]], seen=SEEN, smoothed: bool = False, locked: bool = False, mask: int = 1) -> dict[str, np.ndarray]:
        """All people of all frames, frame after frame."""
        own = {}

        def passed(mhr_dict, num_frames, **_):
            own.update({name: mhr_dict[name].clone().unflatten(0, (num_frames, -1)) for name in ("scale", "shape")})
            return mhr_dict

        class EachItsOwn(dict):
            def __contains__(self, person):
                return True

            def __getitem__(self, person):
                return own["scale"][:, person], own["shape"][:, person]

        with contextlib.ExitStack() as stack:
            plain = self.meta.kalman_smooth_mhr_params_per_obj_id_adaptive
            keep = (lambda mhr_dict, num_frames, **more: plain(passed(mhr_dict, num_frames), num_frames, **more)) if smoothed else passed
            stack.enter_context(replaced(self.meta, "kalman_smooth_mhr_params_per_obj_id_adaptive", keep))
            stack.enter_context(silent())
            people = self.estimator.process_frames(
                images, bboxes=[np.stack([crop.box for crop in frame]) for frame in clip], id_batch=[list(ids) for ids in seen], idx_path={}, idx_dict={},
                masks=[np.stack([crop.mask for crop in frame]).astype(np.uint8) * mask for frame in clip],
                cam_int=torch.from_numpy(clip[0][0].K)[None].float(), mhr_shape_scale_dict={} if locked else EachItsOwn(), occ_dict=None)
        flat = [person for frame in people for person in frame]
        found = {name: np.stack([np.asarray(person[name]) for person in flat]) for name in flat[0] if name != "mask"}
        points = found["pred_keypoints_3d"] + found["pred_cam_t"][:, None]          # it projects with the middle of the picture, half a pixel off
        found["pred_keypoints_2d"] = (points / points[..., 2:] @ clip[0][0].K.T)[..., :2]
        return found


def _batches(theirs: Theirs, clip: list[list[CropInput]], ours: dict, folder: Path, report: dict) -> None:
    images = [frame[0].image for frame in clip]
    alone = theirs.run(images, clip)
    report["same"]["batched inference, 4 frames padded to 3 people, 9 crops"] = found = furthest(alone, ours)
    if not within(*found):
        report["faults"].append("batched inference: vertices {:.2e} m, keypoints {:.2e} px apart".format(*found))
    different = report["different"]
    different["shape and scale of the first frame for all (ours: the median over the clip, in refine)"] = furthest(theirs.run(images, clip, locked=True), alone)
    different["its smoothing of 4 frames (ours: in refine, on SO(3))"] = furthest(theirs.run(images, clip, smoothed=True), alone)
    different["masks of 0 and 255, as it makes them (ours: 0 and 1)"] = furthest(theirs.run(images, clip, mask=255), alone)
    files = [str(folder / f"{number}.png") for number in range(len(images))]
    for file, image in zip(files, images):
        cv2.imwrite(file, image[..., ::-1])
    different["frames from files: hands are looked at in BGR (ours: RGB)"] = furthest(theirs.run(files, clip), alone)
    frames = [[frame[0], frame[-1]] for frame in (clip[0], clip[2])]
    people = theirs.run([images[0], images[2]], frames, ([1, 3], [1, 3]))
    different["people 1 and 3, and nobody 2"] = f"it returns {len(people['pred_cam_t'])} of 4 bodies (ours: 4)"
    try:
        theirs.run(images[:1], clip[:1], SEEN[:1])
        said = "works"
    except Exception as error:
        said = f"it fails, {type(error).__name__}: {error}"
    different["one frame with three people"] = f"{said} (ours: 3 bodies)"


def _boxes(folder: Path, report: dict) -> None:
    """The box round each mask of a picture of labels, as it is given to each network."""
    from PIL import Image

    y, x = np.mgrid[:200, :320]
    labels = np.zeros((200, 320), np.uint8)
    labels[((x - 100) / 40) ** 2 + ((y - 90) / 70) ** 2 < 1] = 1
    labels[((x - 200) / 25) ** 2 + ((y - 120) / 60) ** 2 < 1] = 2
    labels[(x > 120) & (x < 135) & (y == 190)] = 2        # a piece by itself
    labels[x > 312] = 3                                   # all of it within a twentieth of the border
    Image.fromarray(labels).save(folder / "labels.png")
    heard: dict = {}
    with silent(), _stand_ins(DRAWING):
        notebook = importlib.import_module("notebook.utils")
        notebook.process_image_with_mask(SimpleNamespace(process_frames=lambda images, **given: heard.update(given)), [str(folder / "labels.png")],
                                         [str(folder / "labels.png")], {}, {}, {}, None)
    claims = Claims()
    claims.add({person: torch.from_numpy(np.where(labels == person, 1.0, -1.0)) for person in (1, 2, 3)}, dict.fromkeys((1, 2, 3), 1.0))
    ours = claims.settled(*labels.shape).box
    theirs = {person: heard["bboxes"][0].reshape(-1, 4)[person - 1].astype(int).tolist() for person in (1, 2, 3)}
    equal = [list(ours[person]) for person in (1, 2)] == [theirs[1], theirs[2]]
    report["same"]["boxes round masks"] = f"{theirs[1]} and {theirs[2]}, " + ("equal to ours" if equal else f"ours {ours}")
    report["faults"] += [] if equal else ["boxes round masks differ"]
    report["different"]["somebody within a twentieth of the border"] = (
        f"its box is {theirs[3]} and people {heard['id_batch'][0]} are kept (ours: {list(ours[3])}, and all are)")


def _by_frame(items: list[CropInput]) -> list[list[CropInput]]:
    frames: dict[int, list[CropInput]] = {}
    for item in items:
        frames.setdefault(id(item.image), []).append(item)
    return list(frames.values())


def _clip(first: list[CropInput], second: list[CropInput]) -> list[list[CropInput]]:
    """Four frames under the camera of the first."""
    frames = [first, second, second, first]
    return [[CropInput(frame[number - 1].image, frame[number - 1].box, first[0].K, frame[number - 1].mask) for number in ids]
            for frame, ids in zip(frames, SEEN)]


@contextlib.contextmanager
def _importable(checkout: Path):
    """Its own folder `utils`."""
    sys.path.insert(0, str(checkout))
    try:
        with _stand_ins(WRITING):
            yield
    finally:
        sys.path.remove(str(checkout))
        for package in ("utils", "notebook"):
            published.forget(package)


@contextlib.contextmanager
def _stand_ins(names: tuple[str, ...]):
    """Inside, those of the packages that are not installed seem to be."""
    absent = [name for name in names if find_spec(name.split(".")[0]) is None]
    sys.modules.update({name: MagicMock() for name in absent})
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]
