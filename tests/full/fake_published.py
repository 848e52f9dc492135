# SPDX-License-Identifier: Apache-2.0
"""A `sam3` package with the signatures of the published one, whose predictor follows grey values. It insists on what the real one insists on."""

import sys
import types
from importlib.machinery import ModuleSpec
from typing import NamedTuple

import torch
from torch import Tensor

SIZE, STRIDE, WIDE = 112, 14, 8
GRID = SIZE // STRIDE


def grey(picture: Tensor) -> Tensor:
    """The levels of a picture (1, 3, S, S) in -1..1, at the size of masks."""
    return torch.nn.functional.interpolate((picture[:, :1] + 1) * 127.5, (4 * GRID, 4 * GRID), mode="nearest-exact")[0, 0].round()


class FindStage(NamedTuple):
    img_ids: Tensor
    text_ids: Tensor
    input_boxes: object
    input_boxes_mask: object
    input_boxes_label: object
    input_points: object
    input_points_mask: object


def nms_masks(pred_probs, pred_masks, prob_threshold, iou_threshold):
    """No two masks here overlap."""
    assert 0 < iou_threshold < 1 and pred_masks.ndim == 3
    return pred_probs > prob_threshold


class Decoder:
    def conv_s0(self, features):
        return features + 100

    conv_s1 = conv_s0


class Backbone:
    looked = 0

    def forward_image(self, picture):
        self.looked += 1
        assert picture.shape == (1, 3, SIZE, SIZE)
        maps = [picture.mean() + torch.zeros(1, WIDE, side * GRID, side * GRID) for side in (4, 2, 1)]
        shared = {"vision_features": maps[2], "vision_pos_enc": maps, "backbone_fpn": maps}
        return {"vision_features": maps[2], "vision_pos_enc": maps, "backbone_fpn": maps, "sam2_backbone_out": shared, "picture": picture}

    def forward_text(self, captions, input_boxes=None, additional_text=None, device="cuda"):
        assert captions == ["person"] and str(device) == "cpu"
        return {"language_features": torch.zeros(1), "language_mask": torch.zeros(1)}


class Detector:
    def __init__(self):
        self.backbone = Backbone()

    def _get_dummy_prompt(self, num_prompts=1):
        return "nobody drew a box"

    def forward_grounding(self, backbone_out, find_input, find_target, geometric_prompt, **kwargs):
        assert isinstance(find_input, FindStage) and find_input.img_ids.tolist() == [0] and find_target is None and geometric_prompt == "nobody drew a box"
        assert "language_features" in backbone_out
        levels = grey(backbone_out["picture"])
        values = [value for value in levels.unique() if value > 0] or [torch.tensor(-5.0)]
        logits = torch.stack([torch.where(levels == value, 5.0, -5.0) for value in values])[None]
        boxes = torch.stack([torch.tensor([0.1, 0.2, 0.3, 0.4]) for _ in values])[None]
        sure = torch.tensor([2.0 + place if value > 0 else -9.0 for place, value in enumerate(values)])
        backbone_out["left_behind"] = True                  # what it is given it writes into
        return {"pred_logits": sure[None, :, None], "pred_masks": logits, "pred_boxes_xyxy": boxes}


class Predictor:
    """One session is a dictionary, as published. Scores tell how many frames were looked back at, so that a wrong memory shows."""

    image_size, backbone_stride, mem_dim = SIZE, STRIDE, 4
    mf_threshold = 0.01

    def __init__(self):
        self.bf16_context = torch.autocast("cpu", torch.bfloat16)
        self.bf16_context.__enter__()                       # never left, as published
        self.sam_mask_decoder, self.sessions = Decoder(), []
        self.maskmem_backbone = types.SimpleNamespace(position_encoding=lambda x: torch.full_like(x, 0.5))
        self.fails = None

    def init_state(self, video_height=None, video_width=None, num_frames=None, video_path=None, cached_features=None, offload_video_to_cpu=False,
                   offload_state_to_cpu=False, async_loading_frames=False):
        assert video_path is None and num_frames > max(cached_features) >= 0 and len(cached_features) == 1
        state = {"video_height": video_height, "video_width": video_width, "num_frames": num_frames, "cached_features": cached_features, "obj_id_to_idx": {},
                 "output_dict": {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}, "output_dict_per_obj": {}, "shown": {}}
        self.sessions.append(state)
        return state

    def _obj_id_to_idx(self, inference_state, obj_id):
        place = inference_state["obj_id_to_idx"].setdefault(obj_id, len(inference_state["obj_id_to_idx"]))
        inference_state["output_dict_per_obj"].setdefault(place, {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}})
        return place

    def add_new_points_or_box(self, inference_state, frame_idx, obj_id, points=None, labels=None, clear_old_points=True, rel_coordinates=True,
                              use_prev_mem_frame=False, normalize_coords=True, box=None):
        levels = self._levels(inference_state, frame_idx)
        if box is not None:
            assert box.shape == (2, 2)
            (x0, y0), (x1, y1) = (box * len(levels)).long().tolist()
            within = levels[y0:y1, x0:x1]
        else:
            on = (points[labels == 1] * len(levels)).long().clamp(max=len(levels) - 1)
            within = levels[on[:, 1], on[:, 0]]
        seen = within[within > 0]
        known = inference_state["output_dict_per_obj"][self._obj_id_to_idx(inference_state, obj_id)]["cond_frame_outputs"].get(frame_idx)
        value = float(seen.mode().values) if len(seen) else float(known["obj_ptr"][0, 0]) if known else 0.0
        self._shown(inference_state, frame_idx, obj_id, levels, value, 100.0 * (known is not None))

    def add_new_mask(self, inference_state, frame_idx, obj_id, mask, add_mask_to_memory=False):
        assert mask.ndim == 2 and mask.dtype == torch.bool and mask.shape == (inference_state["video_height"], inference_state["video_width"])
        levels = self._levels(inference_state, frame_idx)
        inside = torch.nn.functional.interpolate(mask[None, None].float(), levels.shape, mode="nearest-exact")[0, 0] > 0.5
        seen = levels[inside & (levels > 0)]
        self._shown(inference_state, frame_idx, obj_id, levels, float(seen.mode().values) if len(seen) else 0.0, 0.0)

    def propagate_in_video_preflight(self, inference_state, run_mem_encoder=True):
        for person, place in inference_state["obj_id_to_idx"].items():
            outputs = inference_state["output_dict_per_obj"][place]["cond_frame_outputs"]
            outputs[0] = inference_state["shown"].get(person) or outputs[0] | {"maskmem_features": torch.full((1, 4, GRID, GRID), 7.0).bfloat16()}

    def propagate_in_video(self, inference_state, start_frame_idx, max_frame_num_to_track, reverse, tqdm_disable=False, obj_ids=None, run_mem_encoder=True,
                           propagate_preflight=False):
        assert max_frame_num_to_track == 0 and tqdm_disable and len(inference_state["obj_id_to_idx"]) == 1
        if self.fails:
            raise self.fails
        told, followed = (inference_state["output_dict"][kind] for kind in ("cond_frame_outputs", "non_cond_frame_outputs"))
        assert told and start_frame_idx not in {**told, **followed} and all(0 <= frame < inference_state["num_frames"] for frame in {**told, **followed})
        assert all((frame > start_frame_idx) == reverse for frame in followed)
        back = start_frame_idx + (1 if reverse else -1)
        nearest = followed.get(back) or told[min(told, key=lambda frame: abs(frame - start_frame_idx))]
        assert nearest["maskmem_features"] is not None and nearest["maskmem_pos_enc"][-1].shape == (1, 4, GRID, GRID)
        good = [frame for frame, out in followed.items() if float(out["eff_iou_score"]) > self.mf_threshold]
        age = float(nearest["maskmem_features"].float().mean()) + 1
        out = self._out(self._levels(inference_state, start_frame_idx), float(nearest["obj_ptr"][0, 0]), age, len(good))
        followed[start_frame_idx] = out
        yield start_frame_idx, list(inference_state["obj_id_to_idx"]), None, out["pred_masks"], out["object_score_logits"]

    def cal_mem_score(self, object_score_logits, iou_score):
        return (object_score_logits.sigmoid() * 2 - 1).clamp(min=0).mean() * iou_score.mean()

    def _levels(self, state, frame):
        picture, found = state["cached_features"][frame]
        assert set(found) == {"tracker_backbone_out"} and len(found["tracker_backbone_out"]["backbone_fpn"]) == 3
        assert float(found["tracker_backbone_out"]["backbone_fpn"][0].mean() - found["tracker_backbone_out"]["backbone_fpn"][2].mean()) > 50
        return grey(picture)

    def _shown(self, state, frame, person, levels, value, age):
        self._obj_id_to_idx(state, person)
        state["shown"][person] = self._out(levels, value, age, 0)

    @staticmethod
    def _out(levels, value, age, good):
        inside = levels == value if value else torch.zeros_like(levels, dtype=torch.bool)
        score = 4.0 - 0.01 * age - 0.001 * good if inside.any() else -4.0
        return {"maskmem_features": torch.full((1, 4, GRID, GRID), age).bfloat16(), "maskmem_pos_enc": [torch.full((1, 4, GRID, GRID), 0.5)],
                "pred_masks": torch.where(inside, 6.0, -6.0)[None, None], "obj_ptr": torch.full((1, WIDE), value),
                "object_score_logits": torch.tensor([[score]]), "iou_score": torch.tensor([[0.9]]), "eff_iou_score": torch.tensor(max(0.0, score / 5))}


class Model:
    """`weights`: what a checkpoint must hold."""

    def __init__(self, weights=None):
        self.detector, self.tracker, self.weights, self.trains = Detector(), Predictor(), weights or {}, True

    def eval(self):
        self.trains = False
        return self

    def requires_grad_(self, wanted):
        assert not wanted
        return self

    def state_dict(self):
        return {name: torch.zeros_like(tensor) for name, tensor in self.weights.items()}

    def load_state_dict(self, weights, strict=True):
        self.loaded = weights


def install(monkeypatch, folder, weights=None, vocabulary=True):
    """Puts it where packages are looked for. Returns what its builder made, a list."""
    made = []

    def build_sam3_video_model(checkpoint_path=None, load_from_HF=True, bpe_path=None, has_presence_token=True, geo_encoder_use_img_cross_attn=True,
                               strict_state_dict_loading=True, apply_temporal_disambiguation=True, device="cuda", compile=False):
        assert checkpoint_path is None and not load_from_HF and bpe_path and apply_temporal_disambiguation
        print("a line that nobody wants")
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        made.append(Model(weights))
        return made[-1]

    for name, content in (("sam3", {}), ("sam3.model_builder", {"build_sam3_video_model": build_sam3_video_model}), ("sam3.model", {}), ("sam3.perflib", {}),
                          ("sam3.model.data_misc", {"FindStage": FindStage}), ("sam3.perflib.nms", {"nms_masks": nms_masks})):
        module = types.ModuleType(name)
        module.__spec__ = ModuleSpec(name, None, origin=str(folder), is_package=True)
        module.__spec__.submodule_search_locations = module.__path__ = [str(folder)]
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    if vocabulary:
        (folder / "assets").mkdir()
        (folder / "assets" / "bpe_simple_vocab_16e6.txt.gz").touch()
    return made
