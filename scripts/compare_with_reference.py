# SPDX-License-Identifier: Apache-2.0
"""Compares our SAM 3D Body with the published code, in float32, on one random checkpoint and the same crops.

    python scripts/compare_with_reference.py --reference SAM_3D_BODY_CHECKOUT [--dinov3 DINOV3_CHECKOUT] [--network dinov3|vith] [--json FILE]

The published code needs its own packages (roma, einops, yacs, omegaconf, pytorch-lightning, opencv, torchvision; timm for vith). No weights are needed: the
network is small and random, MHR a stand-in of full size, both scaled until bodies differ as people do; the published loader reads the checkpoint that our key
map writes, so a name that is wrong on either side shows. Without --dinov3 both sides share our image encoder.

Prints the largest difference per output, then how far twelve deliberate mistakes move the result. Ends with status 1 if a difference is above its tolerance, a
mistake moves the result by less than ten times the tolerance, or the bodies differ by less than 5 cm."""

import argparse
import contextlib
import dataclasses
import io
import json
import os
import sys
import tempfile
import types
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from body4d_engine.models.mhr import stand_in  # noqa: E402
from body4d_engine.models.sam_3d_body import crops as crops_module  # noqa: E402
from body4d_engine.models.sam_3d_body import inference as inference_module  # noqa: E402
from body4d_engine.models.sam_3d_body import keys  # noqa: E402
from body4d_engine.models.sam_3d_body.config import CONFIGS, BackboneConfig  # noqa: E402
from body4d_engine.models.sam_3d_body.crops import CropInput  # noqa: E402
from body4d_engine.models.sam_3d_body.inference import Sam3dBody  # noqa: E402
from body4d_engine.models.sam_3d_body.prompts import DUMMY_POINT  # noqa: E402
from body4d_engine.models.sam_3d_body.rotations import matrix_from_xyz  # noqa: E402

VERTEX_TOLERANCE, PIXEL_TOLERANCE = 1e-4, 0.01            # metres, pixels
SMALLEST_SPREAD = 0.05                                    # metres between the bodies of the test crops
NETWORKS = {
    "dinov3": dataclasses.replace(CONFIGS["dinov3"], backbone=BackboneConfig("dinov3", dim=64, layers=2, heads=2, hidden=48), dim=64, layers=3,
                                  heads=2, head_dim=32, hidden=64),
    "vith": dataclasses.replace(CONFIGS["vith"], backbone=BackboneConfig("vit", dim=64, layers=2, heads=2, hidden=256), dim=64, layers=3, heads=2, head_dim=32,
                                hidden=64),
}
SEEDS = {"dinov3": 1, "vith": 4}              # with these some hands are used and some refused
GAIN = {"dinov3": 0.5, "vith": 0.5}           # of the last layer of the pose: bodies differ by some 10 cm


def random_network(name: str, seed: int) -> Sam3dBody:
    """Random weights with bodies that differ, cameras in front, and hands that are sometimes accepted."""
    torch.manual_seed(seed)
    config = NETWORKS[name]
    model = Sam3dBody.build(config, stand_in.mhr(seed=seed))
    for parameter in (*model.backbone.parameters(), *model.prompts.parameters(), *model.body.parameters(), *model.hand.parameters(), model.hand_tokens):
        if parameter.dim() > 1 or parameter is model.prompts.no_mask:
            parameter.data = torch.randn_like(parameter) * (parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.3)
        else:
            parameter.data += 0.1 * torch.randn_like(parameter)
    for branch in (model.body, model.hand):
        head, vertices = branch.pose_head, config.vertices
        branch.initial_pose.data = straight() + 0.3 * torch.randn_like(branch.initial_pose)
        branch.initial_camera.data = torch.tensor([[-0.9, 0.0, 0.1]]) if branch is model.body else torch.tensor([[-0.06, 0.0, 0.05]])
        branch.camera_head.proj[2].weight.data *= 0.15
        head.proj[2].weight.data *= GAIN[name]
        head.scale_mean.normal_(std=0.05)
        head.scale_comps.normal_(std=0.1)
        head.scale_comps[8, 8], head.scale_comps[9, 9] = 0.2, 0.25
        head.hand_mean.normal_(std=0.1)
        head.left_hand.copy_(torch.arange(68, 95))
        head.right_hand.copy_(torch.arange(95, 122))
        for row in head.keypoint_mapping:
            row[torch.randint(vertices, (6,))] = torch.rand(6) / 8
            row[vertices + torch.randint(127, (1,))] = 0.5
    body, hand = model.body.pose_head, model.hand.pose_head
    for table in ("scale_mean", "scale_comps", "hand_mean", "keypoint_mapping"):
        getattr(hand, table).copy_(getattr(body, table))
    hand.not_hand.copy_(torch.tensor([i for i in range(204) if i > 2 and not 6 + 95 <= i < 6 + 122 and not 136 + 40 <= i][:145]))
    hand.right_wrist.copy_(torch.tensor([0.2, 1.1, 0.05]))
    hand.root.copy_(torch.tensor([0.0, 0.9, 0.0]))
    hand.local_to_world_wrist.copy_(matrix_from_xyz(torch.tensor([0.4, -1.1, 0.7])))
    body.joint_rotation.copy_(matrix_from_xyz(torch.randn(127, 3)))
    return model.prepare()


def test_crops(centred: bool, image_size: int = 420) -> list[CropInput]:
    """Two frames of 520 x 420 with three people each, one cut by the border. `centred`: the principal point in the exact middle of the pixels."""
    random = np.random.default_rng(7)
    width, height = 520, image_size
    items = []
    for frame in range(2):
        y, x = np.mgrid[:height, :width]
        waves = [np.sin(x * random.uniform(0.01, 0.2) + y * random.uniform(0.01, 0.2) + random.uniform(0, 6)) for _ in range(9)]
        image = np.stack([127 + 40 * sum(waves[3 * c:3 * c + 3]) for c in range(3)], axis=-1) + random.normal(0, 6, (height, width, 3))
        image = image.clip(0, 255).astype(np.uint8)
        middle = ((width - 1) / 2, (height - 1) / 2) if centred else (width / 2 + 60 - 100 * frame, height / 2 - 35)
        focal = 500.0 + 120 * frame
        K = np.array([[focal, 0, middle[0]], [0, focal, middle[1]], [0, 0, 1]])
        for box in ([40, 30, 190, 390], [230, 60, 420, 400], [400, 100, 540, 300]):
            box = np.array(box, dtype=np.float32) + random.uniform(-12, 12, 4).astype(np.float32)
            mask = ((x - box[[0, 2]].mean()) / (box[2] - box[0]) * 2) ** 2 + ((y - box[[1, 3]].mean()) / (box[3] - box[1]) * 2) ** 2 < 0.8
            items.append(CropInput(image, box, K, mask))
    return items


test_crops.__test__ = False                               # not a test: pytest may import this file


def straight() -> Tensor:
    """(519,) all angles zero, as the network writes them: far from numbers so small that their angle is noise."""
    joint, angle = [1.0, 0, 0, 0, 1, 0], [0.0, 1]
    hand = [number for count in (3, 1, 1, 3, 1, 1, 3, 1, 1, 3, 1, 1, 2, 3, 1, 1) for number in (joint if count == 3 else angle * count)]
    return torch.tensor([*joint, *joint * 23, *angle * 58, *[0.0] * (6 + 45 + 28), *hand * 2, *[0.0] * 72])


def settle_hands(model: Sam3dBody, items: list[CropInput]) -> None:
    """Puts the hands' boxes where the wrists are and the wrists' rest where the hands want it, for the first crop: then some hands are accepted, some not."""
    with torch.inference_mode():
        packed = crops_module.pack(items, "cpu")
        view = crops_module.View(packed.centre, packed.side, packed.K, model.config.image_size)
        masks = crops_module.cut(packed.masks, torch.arange(len(items)), packed.centre, packed.side, view.size)
        image = model.encode(crops_module.cut(packed.frames, packed.frame_of, packed.centre, packed.side, view.size), masks, packed.has_mask)
        first = model._body(image, view, "keypoints")
        wrists = first.projection.in_crop[0, [62, 41]] + 0.5
        # One layer makes both boxes: a separate place for each hand comes from the difference of their tokens.
        wanted = torch.cat([wrists.clamp(0.05, 0.95), torch.full((2, 2), 0.55)], dim=1)
        wanted = torch.log(wanted / (1 - wanted))
        hidden = model.hand_box[:4](first.hands[0])
        layer = model.hand_box[4]
        layer.weight.mul_(0.02)
        now = layer(hidden)
        step = hidden[0] - hidden[1]
        layer.weight.add_((((wanted - now)[0] - (wanted - now)[1])[:, None] * step[None]) / step.square().sum())
        layer.bias.add_((wanted - layer(hidden)).mean(dim=0))
        _, hands = model._hands(packed, first, view)
        lower = first.body.rotations[0, [76, 40]]
        before = model.fusion.wrists_before(first.pose)[0]
        model.body.pose_head.joint_rotation[[77, 41]] = lower.mT @ hands.rotation[0] @ before.mT


def make_torchvision_importable() -> None:
    """A torchvision that was built for another torch fails over its operators; only its transforms are needed here."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        sys.modules["torchvision._meta_registrations"] = types.ModuleType("torchvision._meta_registrations")


def load_reference(checkout: Path, dinov3: Path | None, model: Sam3dBody, folder: Path, network: str, seed: int):
    """The published model with our random weights, through its own loader, on the CPU."""
    os.environ["MOMENTUM_ENABLED"] = "0"                  # any value at all makes the published head use the TorchScript file
    sys.path.insert(0, str(checkout))
    torch.Tensor.cuda = lambda self, *_, **__: self
    from sam_3d_body import sam_3d_body_estimator
    from sam_3d_body.build_models import load_sam_3d_body
    from sam_3d_body.models.meta_arch import sam3d_body as meta
    for module in (sam_3d_body_estimator, meta):
        plain = module.recursive_to
        module.recursive_to = lambda x, target, plain=plain: plain(x, "cpu" if target == "cuda" else target)
    meta.create_backbone = lambda name, cfg: reference_backbone(model, dinov3, name, cfg)
    config = model.config
    decoder = {"TYPE": "sam", "DIM": config.dim, "DEPTH": config.layers, "HEADS": config.heads, "DIM_HEAD": config.head_dim, "MLP_DIM": config.hidden,
               "LAYER_SCALE_INIT": 0.0, "DROP_RATE": 0.0, "ATTN_DROP_RATE": 0.0, "DROP_PATH_RATE": 0.0, "FFN_TYPE": "origin", "ENABLE_TWOWAY": False,
               "REPEAT_PE": True, "FROZEN": False, "DO_INTERM_PREDS": True, "DO_KEYPOINT_TOKENS": True, "KEYPOINT_TOKEN_UPDATE": True,
               "DO_HAND_DETECT_TOKENS": True, "DO_KEYPOINT3D_TOKENS": True, "CONDITION_TYPE": "cliff", "USE_INTRIN_CENTER": True}
    options = {"MODEL": {"IMAGE_MEAN": [0.485, 0.456, 0.406], "IMAGE_STD": [0.229, 0.224, 0.225], "IMAGE_SIZE": [config.image_size] * 2,
                         "BACKBONE": {"TYPE": "dinov3_vith16plus" if network == "dinov3" else "vit_hmr_512_384", "DROP_PATH_RATE": 0.0},
                         "PERSON_HEAD": {"POSE_TYPE": "mhr", "CAMERA_TYPE": "perspective"}, "DECODER": decoder,
                         "MHR_HEAD": {"MLP_DEPTH": 2, "MLP_CHANNEL_DIV_FACTOR": 1, "MHR_MODEL_PATH": ""},
                         "CAMERA_HEAD": {"MLP_DEPTH": 2, "MLP_CHANNEL_DIV_FACTOR": 1, "DEFAULT_SCALE_FACTOR_HAND": config.hand_camera_scale},
                         "PROMPT_ENCODER": {"ENABLE": True, "MAX_NUM_CLICKS": 2, "PROMPT_KEYPOINTS": "mhr70", "MASK_EMBED_TYPE": "v2", "MASK_PROMPT": "v1",
                                            "KEYPOINT_SAMPLER": {"TYPE": "v1", "KEYBODY_RATIO": 0.8, "WORST_RATIO": 0.8, "NEGATIVE_RATIO": 0.0,
                                                                 "DUMMY_RATIO": 0.1, "DISTANCE_THRESH": 0.0}}},
               "TRAIN": {"USE_FP16": False}}
    (folder / "model_config.yaml").write_text(json.dumps(options))        # JSON is YAML
    torch.save({"state_dict": keys.to_published(model.state_dict(), config)}, folder / "model.ckpt")
    stand_in.save_torchscript(folder / "mhr_model.pt", seed=seed)
    heard = io.StringIO()
    with contextlib.redirect_stdout(heard), contextlib.redirect_stderr(heard):
        reference, cfg = load_sam_3d_body(str(folder / "model.ckpt"), device="cpu", mhr_path=str(folder / "mhr_model.pt"))
    theirs = {name for name in reference.state_dict() if ".mhr." not in name}
    written = set(torch.load(folder / "model.ckpt", weights_only=True)["state_dict"])
    shared = not dinov3 and network == "dinov3"
    return sam_3d_body_estimator.SAM3DBodyEstimator(reference, cfg), sorted(
        name for name in theirs ^ written if not (shared and name.startswith("backbone.")))


def reference_backbone(model: Sam3dBody, dinov3: Path | None, name: str, cfg) -> nn.Module:
    config = model.config.backbone
    if config.kind == "vit":
        from sam_3d_body.models.backbones.vit import ViT
        from sam_3d_body.models.modules.transformer import LayerNorm32
        return ViT(img_size=(512, 384), patch_size=16, embed_dim=config.dim, depth=config.layers, num_heads=config.heads, ratio=1, norm_layer=LayerNorm32,
                   mlp_ratio=config.hidden / config.dim, qkv_bias=True)
    if dinov3 is not None:
        sys.path.insert(0, str(dinov3))
        from dinov3.models.vision_transformer import DinoVisionTransformer
        from sam_3d_body.models.backbones.dinov3 import Dinov3Backbone
        small = DinoVisionTransformer(patch_size=16, pos_embed_rope_base=100, pos_embed_rope_normalize_coords="separate", pos_embed_rope_rescale_coords=2,
                                      pos_embed_rope_dtype="fp32", embed_dim=config.dim, depth=config.layers, num_heads=config.heads,
                                      ffn_ratio=config.hidden * 1.5 / config.dim, layerscale_init=1e-5, norm_layer="layernormbf16", ffn_layer="swiglu",
                                      n_storage_tokens=config.registers, mask_k_bias=True)
        torch.hub.load = lambda *_, **__: small
        return Dinov3Backbone(name, cfg=cfg)
    return SharedBackbone(model)


class SharedBackbone(nn.Module):
    patch_size = 16

    def __init__(self, model: Sam3dBody):
        super().__init__()
        self.inner = [model]                              # in a list: not a part of the published model's names
        self.embed_dim = self.embed_dims = model.config.backbone.dim

    def forward(self, x: Tensor, extra_embed=None) -> Tensor:
        return self.inner[0].backbone(x).transpose(1, 2).unflatten(2, self.inner[0].config.grid)


def our_warp(image: np.ndarray, matrix: np.ndarray, size: tuple[int, int], flags: int = 0) -> np.ndarray:
    """Our cutting behind OpenCV's name, so that both sides see the same pixels: OpenCV's own differ by one level in a few of a hundred thousand."""
    side = torch.tensor([size[0] / matrix[0, 0]])
    centre = torch.tensor([[(size[0] / 2 - matrix[axis, 2]) / matrix[0, 0] for axis in (0, 1)]])
    picture = torch.from_numpy(np.ascontiguousarray(image)).reshape(1, *image.shape[:2], -1)
    crop = crops_module.cut(picture, torch.zeros(1, dtype=torch.long), centre, side, size[0])[0].permute(1, 2, 0).numpy().astype(np.uint8)
    return crop if crop.shape[2] == 3 else crop[..., 0]


def run_reference(estimator, items: list[CropInput], mode: str, same_crops: bool = True) -> dict[str, np.ndarray]:
    """The published code, one frame after the other, all people of a frame together."""
    from sam_3d_body.data.transforms import common
    if same_crops:
        with replaced(common.cv2, "warpAffine", our_warp):
            return run_reference(estimator, items, mode, same_crops=False)
    found = []
    frames = {id(item.image): item.image for item in items}
    for key, image in frames.items():
        here = [item for item in items if id(item.image) == key]
        with contextlib.redirect_stdout(io.StringIO()):
            found += estimator.process_one_image(
                image, bboxes=np.stack([item.box for item in here]), masks=np.stack([item.mask for item in here]).astype(np.uint8),
                cam_int=torch.from_numpy(here[0].K)[None].float(), inference_type=mode)
    result = {name: np.stack([np.asarray(person[name]) for person in found]) for name in found[0] if name != "mask"}
    if mode == "full":                                    # published faults: the principal point ignored, rotations from before the hands, an emptied pose
        points = result["pred_keypoints_3d"] + result["pred_cam_t"][:, None]
        result["pred_keypoints_2d"] = np.stack([(point / point[:, 2:] @ item.K.T)[:, :2] for point, item in zip(points, items)])
        del result["pred_global_rots"], result["pred_pose_raw"]
    return result


def run_ours(model: Sam3dBody, items: list[CropInput], mode: str) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in model.infer(items, mode).items()}


@contextlib.contextmanager
def replaced(owner, name: str, value):
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def mutations(model: Sam3dBody, items: list[CropInput]):
    """name, mode, a context in which the mistake is made, the crops to run."""
    def changed(**what):
        return [dataclasses.replace(item, **{name: make(item) for name, make in what.items()}) for item in items]

    def weights(layer: nn.Module):
        return replaced(layer, "weight", nn.Parameter(layer.weight * 1.05))

    none = contextlib.nullcontext()
    body, fusion, hands = model.body, model.fusion, model.hand
    bare = types.MethodType(lambda self, tokens, view: self.norm(self.mix(torch.nn.functional.pad(tokens, (0, 99)))), body.rays)
    cut = crops_module.cut
    yield "rays off", "body", replaced(body.rays, "forward", bare), items
    yield "mask off", "body", none, changed(mask=lambda item: None)
    yield "principal point ignored", "body", none, changed(K=centre_camera)
    middle = torch.tensor(items[0].image.shape[1::-1]) / 2
    yield "CLIFF centre", "body", replaced(body, "_condition", lambda view: torch.cat([view.centre - middle, view.side[:, None]], 1) / view.K[:, 0, :1]), items
    yield "box a pixel off", "body", none, changed(box=lambda item: item.box + np.float32(1))
    yield "box padding 1.2", "body", replaced(crops_module, "BODY_PADDING", 1.2), items
    yield "BGR", "body", none, bgr(items)
    yield "mask 0/255", "body", replaced(inference_module, "cut", lambda images, *rest: cut(images, *rest) * (255 if images.shape[-1] == 1 else 1)), items
    yield "weights of decoder layer 2 up 5 %", "body", weights(body.layers[1].mlp[0]), items
    yield "weights of encoder layer 1 up 5 %", "body", weights(next(m for n, m in model.backbone.named_modules() if n.endswith(("gate_proj", "up")))), items
    yield "keypoint tokens not updated", "body", replaced(body, "_look", lambda _, image: (torch.zeros(len(image), *body.tokens_2d.shape), 0.0)), items
    yield "left hand not mirrored", "full", replaced(inference_module, "cut", lambda *given: cut(*given[:5])), items
    nothing = torch.zeros(len(items), 4, 2), torch.full((len(items), 4), DUMMY_POINT)
    yield "wrist prompts dropped", "full", replaced(fusion, "prompts", lambda *_: nothing), items
    yield "hand camera scale 1", "full", replaced(hands.camera_head, "scale", 1.0), items
    yield "left and right hands exchanged", "full", replaced(fusion, "mirror", fusion.mirror.flip(0)), items


def centre_camera(item: CropInput) -> np.ndarray:
    K = item.K.copy()
    K[:2, 2] = item.image.shape[1] / 2, item.image.shape[0] / 2
    return K


def bgr(items: list[CropInput]) -> list[CropInput]:
    swapped = {id(item.image): np.ascontiguousarray(item.image[..., ::-1]) for item in items}
    return [dataclasses.replace(item, image=swapped[id(item.image)]) for item in items]


def furthest(first: dict, second: dict) -> tuple[float, float]:
    """Metres between vertices in camera space, pixels between keypoints, the largest."""
    def placed(result):
        return result["pred_vertices"] + result["pred_cam_t"][:, None]
    return (float(np.linalg.norm(placed(first) - placed(second), axis=-1).max()),
            float(np.linalg.norm(first["pred_keypoints_2d"] - second["pred_keypoints_2d"], axis=-1).max()))


def compare(network: str, arguments: argparse.Namespace) -> dict:
    seed = SEEDS[network] if arguments.seed is None else arguments.seed
    model = random_network(network, seed)
    off_centre, centred = test_crops(False), test_crops(True)
    settle_hands(model, centred)
    report: dict = {"network": network, "outputs": {}, "mistakes": {}, "faults": []}
    with tempfile.TemporaryDirectory() as folder:
        estimator, names = load_reference(arguments.reference, arguments.dinov3, model, Path(folder), network, seed)
        if names:
            report["faults"].append(f"names on one side only: {names}")
        for mode, items in (("body", off_centre), ("full", centred)):
            theirs, ours = run_reference(estimator, items, mode), run_ours(model, items, mode)
            vertices = ours["pred_vertices"]
            spread = float(np.linalg.norm(vertices[:, None] - vertices[None], axis=-1).mean(axis=-1).max())
            metres, pixels = furthest(theirs, ours)
            outputs = {name: float(np.abs(theirs[name] - ours[name]).max()) for name in theirs if name in ours}
            own = furthest(run_reference(estimator, items, mode, same_crops=False), ours)
            report["outputs"][mode] = {"vertices_m": metres, "keypoints_px": pixels, "spread_m": spread, "each": outputs, "crops_by_opencv": own}
            if mode == "full":
                report["outputs"][mode]["hands_used"] = ours["hands_used"].tolist()
            if not (metres <= VERTEX_TOLERANCE and pixels <= PIXEL_TOLERANCE):
                report["faults"].append(f"{mode}: vertices {metres:.2e} m, keypoints {pixels:.2e} px apart")
            if spread < SMALLEST_SPREAD:
                report["faults"].append(f"{mode}: the bodies differ by {spread:.3f} m only")
    right = {("body", id(off_centre)): run_ours(model, off_centre, "body"), ("full", id(centred)): run_ours(model, centred, "full")}
    for items, modes in ((off_centre, "body"), (centred, "full")):
        for name, mode, mistake, given in mutations(model, items):
            if mode != modes:
                continue
            with mistake:
                metres, pixels = furthest(right[mode, id(items)], run_ours(model, given, mode))
            report["mistakes"][name] = {"vertices_m": metres, "keypoints_px": pixels}
            if not (metres > 10 * VERTEX_TOLERANCE or pixels > 10 * PIXEL_TOLERANCE):
                report["faults"].append(f"the mistake {name!r} moves the result by {metres:.2e} m, {pixels:.2e} px only")
    return report


def show(report: dict) -> None:
    print(f"\n{report['network']}")
    for mode, found in report["outputs"].items():
        print(f"  {mode}: vertices {found['vertices_m']:.2e} m (tolerance {VERTEX_TOLERANCE:g}), keypoints {found['keypoints_px']:.2e} px "
              f"({PIXEL_TOLERANCE:g}), bodies up to {found['spread_m']:.2f} m apart" + (f", hands used {found['hands_used']}" if "hands_used" in found else ""))
        print("    with the published code's crops cut by OpenCV: vertices {:.2e} m, keypoints {:.2e} px".format(*found["crops_by_opencv"]))
        for name, value in found["each"].items():
            print(f"    {name:24s} {value:.2e}")
    print("  mistake                             vertices m  keypoints px  times the tolerance")
    for name, found in report["mistakes"].items():
        times = max(found["vertices_m"] / VERTEX_TOLERANCE, found["keypoints_px"] / PIXEL_TOLERANCE)
        print(f"    {name:34s} {found['vertices_m']:9.2e}  {found['keypoints_px']:12.2e}  {times:10.0f}")
    for fault in report["faults"]:
        print(f"  FAULT: {fault}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, required=True, help="a checkout of facebookresearch/sam-3d-body")
    parser.add_argument("--dinov3", type=Path, help="a checkout of facebookresearch/dinov3")
    parser.add_argument("--network", choices=NETWORKS, action="append", help="one only; both by default")
    parser.add_argument("--seed", type=int, help="of the random weights; by default one with which some hands are used and some refused")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    make_torchvision_importable()
    reports = [compare(network, arguments) for network in arguments.network or NETWORKS]
    for report in reports:
        show(report)
    if arguments.json:
        arguments.json.write_text(json.dumps(reports, indent=1))
    return int(any(report["faults"] for report in reports))


if __name__ == "__main__":
    sys.exit(main())
