# SPDX-License-Identifier: Apache-2.0
"""SAM 3D Body (Yang et al. 2026): people in crops of photographs to MHR bodies. Our own network for the published weights."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from ...errors import Body4DError, is_device_lost, is_out_of_memory
from ..checkpoints import naming, read_tensors, without_weights
from . import keys
from .backbone import build_backbone
from .config import CONFIGS, Config
from .crops import CropInput, Packed, View, cut, hand_side, pack
from .decoder import Branch, Estimate
from .fusion import Fusion, mirror_camera, mirror_x
from .heads import Pose, project
from .prompts import DUMMY_POINT, FourierPositions, Prompts, normalise

MODES = ("body", "full")


class Sam3dBody(nn.Module):
    """`mhr`: the body model (models.mhr.body.Mhr); one copy serves both decoders.

    Everything is float32 but the backbone, which `backbone_to` may lower. Nothing in `infer` waits for the device."""

    def __init__(self, config: Config, mhr: nn.Module):
        super().__init__()
        self.config = config
        self.mhr = mhr
        self.backbone = build_backbone(config)
        self.prompts = Prompts(config)
        self.hand_positions = FourierPositions(config.backbone.dim)
        self.body, self.hand = Branch(config, hand=False), Branch(config, hand=True)
        self.hand_tokens = nn.Parameter(torch.zeros(2, config.dim))
        self.hand_box = nn.Sequential(nn.Linear(config.dim, config.dim), nn.ReLU(), nn.Linear(config.dim, config.dim), nn.ReLU(), nn.Linear(config.dim, 4))
        self.fusion = Fusion()
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225])[:, None, None], persistent=False)
        self.backbone_dtype = torch.float32
        self.unread: tuple[str, ...] = ()
        self.compiled, self.not_compiled = False, ""
        self.prepare()

    @classmethod
    def build(cls, config: str | Config, mhr: nn.Module) -> "Sam3dBody":
        """An untrained network of a named size (dinov3, vith, tiny) or of any other."""
        return cls(CONFIGS[config] if isinstance(config, str) else config, mhr).eval()

    @classmethod
    def load(cls, folder: Path, mhr: nn.Module, configs: Iterable[Config] = (CONFIGS["dinov3"], CONFIGS["vith"]), device: torch.device | str = "cpu",
             backbone: torch.dtype = torch.float32, only: str = "") -> "Sam3dBody":
        """The network of a weights folder as published (`model.ckpt` in it), on the device with the body; which one, its tensors say.

        Tensors go from the file to the device one by one, in float32, the encoder's as `backbone` says. only: how the names begin of the part that is wanted
        (`body.pose_head.`): the rest is left in the file and must not be used.
        `unread` of the result names what the checkpoint holds that this network has no use for.
        Raises Body4DError: `checkpoint_missing`, `checkpoint_unreadable`, `checkpoint_keys` (of another network, or not all there)."""
        published = read_tensors(folder / keys.CHECKPOINT, "state_dict")
        with naming(folder / keys.CHECKPOINT):
            config = keys.config_of(published, configs)
            with without_weights():
                model = cls(config, mhr)
            model.unread, model.backbone_dtype = keys.assign(model, published, device, backbone, only), backbone
        return (model if only else model.to(device)).prepare().eval()

    def prepare(self) -> "Sam3dBody":
        """Derives the tables that depend on weights; to be called after weights were set."""
        self.body.pose_head.prepare()
        self.hand.pose_head.prepare()
        self.register_buffer("body_image_position", self.prompts.positions.of_image(self.config), persistent=False)
        self.register_buffer("hand_image_position", self.hand_positions.of_image(self.config), persistent=False)
        return self

    def backbone_to(self, dtype: torch.dtype) -> "Sam3dBody":
        """Lowers (or raises) the precision of the encoder's weights; rotary frequencies stay exact."""
        for parameter in self.backbone.parameters():
            parameter.data = parameter.data.to(dtype)
        self.backbone_dtype = dtype
        return self

    def compile_parts(self, backend: str = "inductor") -> "Sam3dBody":
        """Has torch compile the encoder and both decoders, as CUDA graphs where there is CUDA; to be called on the device, after `backbone_to`.

        Each becomes one graph for each shape that it meets, so give it batches of one size (`infer_in_batches`). The work is done when the first batch comes.
        Where it cannot be done, `infer` goes on without, `compiled` is false and `not_compiled` says why."""
        options = {"mode": "reduce-overhead"} if backend == "inductor" else {}
        for part in self._compiled_parts():
            part.compile(fullgraph=True, dynamic=False, backend=backend, **options)
        self.compiled, self.not_compiled = True, ""
        return self

    def _compiled_parts(self) -> tuple[nn.Module, ...]:
        return self.backbone, self.body, self.hand

    @torch.inference_mode()
    def infer(self, crops: list[CropInput] | Packed, mode: str = "full") -> dict[str, Tensor]:
        """N crops, of any frames and people, in one batch. A crop's result does not depend on the others.

        `body` reads the body off its crop; `full` adds a crop of each hand, a second look at the body with the hands' wrists and the elbows as prompts (a
        dummy prompt for each that cannot be trusted), and puts the hands on. Everyone has all of it, hands that are not used included: so a batch has one shape
        and nothing has to be known of it on the way.

        Returns tensors of N rows on the device. Metres in the camera's axes (OpenCV) unless said otherwise; add pred_cam_t to 3D points to place them.
        bbox (N, 4), focal_length (N,) pixels, pred_keypoints_3d (N, 70, 3), pred_keypoints_2d (N, 70, 2) pixels of the frame by the given K,
        pred_vertices (N, 18439, 3), pred_cam_t (N, 3), pred_joint_coords (N, 127, 3), pred_global_rots (N, 127, 3, 3) of the final joints in MHR's y-up axes,
        global_rot (N, 3), body_pose_params (N, 133), hand_pose_params (N, 108), scale_params (N, 28), shape_params (N, 45), expr_params (N, 72),
        mhr_model_params (N, 204). `body` only: pred_pose_raw (N, 266). `full` only: lhand_bbox, rhand_bbox (N, 4) pixels, the hands' crops;
        hands_used (N, 2) bool, left and right.

        Raises Body4DError `empty_crop` for an empty box or an unusable camera."""
        if mode not in MODES:
            raise Body4DError(f"{mode!r} is not a way to run SAM 3D Body.", f"Choose one of: {', '.join(MODES)}.", "mode")
        crops = crops if isinstance(crops, Packed) else pack(crops, self.mean.device)
        with _exact(self.mean.device):
            return self._infer_compiled(crops, mode) if self.compiled else self._infer(crops, mode)

    def infer_in_batches(self, crops: Packed, mode: str, size: int) -> Iterator[dict[str, Tensor]]:
        """`infer` of `size` crops at a time, in order: for as many as there is memory for.

        With a backbone of less than float32 every batch has this very size, the last one filled up with its first crop, whose result is dropped: then a crop's
        result is the same to the last bit in whatever company it has its place. So it is with compiled parts, which are made for one size."""
        for start in range(0, len(crops), size):
            count = min(size, len(crops) - start)
            rows = slice(start, start + count)
            if self.compiled or self.backbone_dtype != torch.float32:
                rows = torch.arange(size, device=crops.side.device)
                rows = start + rows * (rows < count)
            part = crops.take(rows)
            yield {name: value[:count] for name, value in self.infer(part, mode).items()}

    def _infer_compiled(self, crops: Packed, mode: str) -> dict[str, Tensor]:
        for vertices in (None, self.body.pose_head.keypoint_vertices, self.hand.pose_head.keypoint_vertices):
            self.mhr.hold(vertices)  # cutting tables is not for graphs
        torch.compiler.cudagraph_mark_step_begin()
        try:
            return {name: value.clone() for name, value in self._infer(crops, mode).items()}  # what graphs write they write again in the next batch
        except Exception as error:
            lost = is_device_lost(error) and "captur" not in str(error)  # what a graph cannot capture is told as an error of CUDA too
            if lost or isinstance(error, Body4DError) or is_out_of_memory(error):
                raise
            self.compiled, self.not_compiled = False, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            for part in self._compiled_parts():
                part._compiled_call_impl = None  # what nn.Module.compile has set
        return self._infer(crops, mode)

    def _infer(self, crops: Packed, mode: str) -> dict[str, Tensor]:
        view = View(crops.centre, crops.side, crops.K, self.config.image_size)
        masks = None
        if crops.masks is not None:
            masks = cut(crops.masks, torch.arange(len(crops), device=crops.side.device), crops.centre, crops.side, view.size)
        image = self.encode(cut(crops.frames, crops.frame_of, crops.centre, crops.side, view.size), masks, crops.has_mask)
        if mode == "body":
            found = self._body(image, view, "nothing")
            return self._result(crops, found, found.pose) | {"pred_pose_raw": found.pose.raw}
        first = self._body(image, view, "keypoints")
        hand_view, hands = self._hands(crops, first, view)
        accepted = self.fusion.accept(first, self.body.pose_head.joint_rotation, hands)
        second = self._body(image, view, "nothing", self.fusion.prompts(first, hands, accepted, view), first.vector())
        head = self.body.pose_head
        arms = head.evaluate(self.mhr, self.fusion.tentative(second.pose, hands), "none")
        wanted = self.fusion.wrists_wanted(arms.rotations, head.joint_rotation, hands)
        pose, used = self.fusion.merge(second.pose, hands, accepted, self.fusion.wrists_before(first.pose), wanted)
        result = self._result(crops, second, pose)
        boxes = _boxes(hand_view, crops.frames.shape[2])
        return result | {"lhand_bbox": boxes[0], "rhand_bbox": boxes[1], "hands_used": used}

    def encode(self, crops: Tensor, masks: Tensor | None, has_mask: Tensor) -> Tensor:
        """(N, 3, S, S) from 0 to 255, (N, 1, S, S) of 0 and 1 or None, (N,) bool -> (N, tokens, C) float32."""
        image = self.backbone(normalise(crops, self.mean, self.std, self.config.margin).to(self.backbone_dtype)).float()
        return image + (self.prompts.no_mask if masks is None else self.prompts.mask(masks, has_mask))

    def _body(self, image: Tensor, view: View, mesh: str, points: tuple[Tensor, Tensor] | None = None, previous: Tensor | None = None) -> Estimate:
        prompts = self._dummy(image) if points is None else self.prompts.points(*points)
        return self.body(self.mhr, image, self.body_image_position, view, prompts, self.hand_tokens, mesh, previous)

    def _hands(self, crops: Packed, first: Estimate, view: View):
        """Both hands of everyone in one batch, the left ones in the mirrored frame."""
        width = crops.frames.shape[2]
        box = self.hand_box(first.hands).sigmoid()
        centre = view.to_frame(box[..., :2] - 0.5)
        side = hand_side(box[..., 2:].amax(dim=-1) * view.side[:, None])
        seen = View(torch.cat([mirror_x(centre[:, 0], width), centre[:, 1]]), torch.cat([side[:, 0], side[:, 1]]),
                    torch.cat([mirror_camera(view.K, width), view.K]), view.size)
        mirrored = torch.arange(2 * len(crops), device=side.device) < len(crops)
        image = self.encode(cut(crops.frames, crops.frame_of.repeat(2), seen.centre, seen.side, view.size, mirrored), None, crops.has_mask)
        estimate = self.hand(self.mhr, image, self.hand_image_position, seen, self._dummy(image), self.hand_tokens, "keypoints")
        head = self.body.pose_head
        return seen, self.fusion.hands(estimate, seen, width, head.scale_mean, head.scale_comps)

    def _dummy(self, image: Tensor) -> Tensor:
        return self.prompts.points(image.new_zeros(len(image), 1, 2), torch.full((len(image), 1), DUMMY_POINT, device=image.device))

    def _result(self, crops: Packed, found: Estimate, pose: Pose) -> dict[str, Tensor]:
        body = self.body.pose_head.evaluate(self.mhr, pose, "all")
        return {"bbox": crops.box, "focal_length": crops.K[:, 0, 0], "pred_keypoints_3d": body.keypoints,
                "pred_keypoints_2d": project(body.keypoints + found.translation[:, None], crops.K)[0], "pred_vertices": body.vertices,
                "pred_cam_t": found.translation, "pred_joint_coords": body.transforms[..., :3, 3] * self.body.pose_head.to_camera,
                "pred_global_rots": body.rotations, "global_rot": pose.rotation, "body_pose_params": pose.body, "hand_pose_params": pose.hand,
                "scale_params": pose.scale, "shape_params": pose.shape, "expr_params": pose.face, "mhr_model_params": body.parameters}


@contextmanager
def _exact(device: torch.device) -> Iterator[None]:
    """No autocast and no TF32 inside: either would make a result depend on the batch size."""
    convolutions, products = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.backends.cudnn.allow_tf32 = convolutions
        torch.set_float32_matmul_precision(products)


def _boxes(view: View, width: int) -> Tensor:
    """(2, N, 4): the hands' crops as boxes of the unmirrored frame."""
    left, right = view.centre.unflatten(0, (2, -1))
    centre, half = torch.stack([mirror_x(left, width), right]), view.side.unflatten(0, (2, -1))[..., None] / 2
    return torch.cat([centre - half, centre + half], dim=-1)
