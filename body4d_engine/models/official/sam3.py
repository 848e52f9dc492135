# SPDX-License-Identifier: Apache-2.0
"""SAM 3 as published (github.com/facebookresearch/sam3, Carion et al. 2025), from a user's own installation, behind the interface of ours.

The published predictor finds, segments, remembers and chooses its memories. Its own session holds every picture and every result of a clip and takes nobody in
once it runs; here each step makes it a session of what `Bank` has kept: one picture is held, memory is bounded, late entrants are welcome, a pass starts from
the prompted frames alone, and what was saved goes on. People go through the network one by one."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...errors import Body4DError
from ..sam3 import tracker as ours
from ..sam3.checkpoint import read_folder
from ..sam3.keys import COMPUTED, UNREAD, check, to_published
from ..sam3.memory import POINTERS, Memory
from ..sam3.model import DETECTED, SAME, Detections
from ..sam3.pictures import resize_logits, to_network
from . import INSTEAD, PACKAGES, on_cuda, published, running


class Seen:
    """One picture after the published backbone, for detector and tracker."""

    def __init__(self, sam3: "Sam3", picture: Tensor, found: dict, height: int, width: int):
        self._sam3, self._picture, self.found, self.height, self.width = sam3, picture, found, height, width

    @cached_property
    def view(self) -> tuple[Tensor, dict]:
        """The picture as the predictor keeps it: the pixels, and the tracker's maps."""
        decoder, shared = self._sam3.predictor.sam_mask_decoder, self.found["sam2_backbone_out"]
        fine, middle, low = shared["backbone_fpn"]
        with self._sam3.computing(), running("sam3"):
            maps = [decoder.conv_s0(fine), decoder.conv_s1(middle), low]
        return self._picture, {"tracker_backbone_out": {**shared, "backbone_fpn": maps}}


class Sam3:
    """The published network: `model.detector` and `model.tracker` on one backbone."""

    def __init__(self, model, device: torch.device | str):
        self.device = torch.device(device)
        leak = vars(model.tracker).pop("bf16_context", None)
        if leak is not None:                                  # entered by the predictor, never left: every later network would be less exact
            leak.__exit__(None, None, None)
        self.model, self.dtype = model.eval().requires_grad_(False), torch.bfloat16 if self.device.type == "cuda" else torch.float32
        self._words: dict[str, dict] = {}

    @classmethod
    def load(cls, folder: Path | str, device: str = "cuda") -> "Sam3":
        """The weights in a folder, in either layout, in the installed package.

        Raises Body4DError: `needs_cuda`, `official_missing`, `official_broken`, `official_version`, `official_failed`, `checkpoint_missing`,
        `checkpoint_unreadable`, `checkpoint_mismatch`."""
        device = on_cuda("sam3", device)
        with unchanged_settings():
            build, vocabulary = published("sam3.model_builder", "build_sam3_video_model"), _vocabulary()
            weights = read_folder(Path(folder), ())
            with running("sam3"):
                model = build(checkpoint_path=None, load_from_HF=False, bpe_path=vocabulary, device=device)
        sam3 = cls(model, device)  # before anything can fail: it leaves what the predictor has entered
        _fill(model, weights, folder)
        return sam3

    @property
    def predictor(self):
        return self.model.tracker

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Inference; on a GPU in bfloat16, as the published code computes."""
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            yield

    def see(self, rgb: "np.ndarray | Seen") -> Seen:
        """A picture (H, W, 3) uint8 RGB through the vision backbone; what has been through it already is returned as it is."""
        if isinstance(rgb, Seen):
            return rgb
        with self.computing(), running("sam3"):
            picture = to_network(rgb, self.predictor.image_size, self.device)
            found = self.model.detector.backbone.forward_image(picture)
        return Seen(self, picture, found, *rgb.shape[:2])

    def detect(self, rgb: "np.ndarray | Seen", text: str = "person", threshold: float = DETECTED) -> Detections:
        """Everybody on a picture whose score is above the threshold, as ours tells it."""
        seen, detector = self.see(rgb), self.model.detector
        one = torch.zeros(1, dtype=torch.long, device=self.device)
        asked = published("sam3.model.data_misc", "FindStage")(img_ids=one, text_ids=one, input_boxes=None, input_boxes_mask=None, input_boxes_label=None,
                                                                input_points=None, input_points_mask=None)
        suppress = published("sam3.perflib.nms", "nms_masks")
        with self.computing(), running("sam3"):
            out = detector.forward_grounding(backbone_out={**seen.found, **self._word(text)}, find_input=asked, find_target=None,
                                             geometric_prompt=detector._get_dummy_prompt())
            scores, logits = out["pred_logits"][0, :, 0].float().sigmoid(), out["pred_masks"][0].float()
            kept = suppress(pred_probs=scores, pred_masks=logits, prob_threshold=threshold, iou_threshold=SAME)
            order = scores.argsort(descending=True, stable=True)
            order = order[kept[order]]
            boxes = out["pred_boxes_xyxy"][0, order].float().clamp(0, 1) * torch.tensor([seen.width, seen.height] * 2, device=self.device)
            masks = [(resize_logits(logits[one][None], seen.height, seen.width)[0] > 0).cpu().numpy() for one in order]
        return Detections(boxes.cpu().numpy(), scores[order].cpu().numpy(), np.array(masks, bool).reshape(-1, seen.height, seen.width))

    @cached_property
    def memory_places(self) -> Tensor:
        """The positions that the predictor gives the tokens of every mask that it remembers, (1, 64, g, g)."""
        predictor = self.predictor
        grid = predictor.image_size // predictor.backbone_stride
        return predictor.maskmem_backbone.position_encoding(torch.zeros(1, predictor.mem_dim, grid, grid, device=self.device)).to(self.dtype)

    def _word(self, text: str) -> dict:
        if text not in self._words:
            self._words[text] = self.model.detector.backbone.forward_text([text], device=self.device)
        return self._words[text]


class Tracker(ours.Tracker):
    """Ours, with the published predictor at work: see there for `start`, `prompt`, `step`, `save` and `resume`."""

    def _take_prompts(self, frame: int, shown: dict[int, ours.Prompt], before: dict[int, Memory | None], reverse: bool) -> None:
        """One session of this frame alone, with everybody who was prompted on it, now or earlier: they are remembered without overlaps."""
        predictor = self.sam3.predictor
        others = {person: bank.prompted[frame] for person, bank in self.people.items() if frame in bank.prompted and person not in shown}
        session = self._session({0: self._view(frame)}, self.frames or POINTERS)
        with running("sam3"):
            for person, known in [*((person, before.get(person)) for person in shown), *others.items()]:
                place = predictor._obj_id_to_idx(session, person)
                if known is not None:                          # what was there is refined, or keeps its pixels
                    session["output_dict_per_obj"][place]["cond_frame_outputs"][0] = self._result_of(known)
            for person, given in shown.items():
                if given.mask is not None:
                    predictor.add_new_mask(session, 0, person, given.mask)
                    continue
                corners = 2 if given.labels[0] == 2 else 0
                predictor.add_new_points_or_box(session, 0, person, points=given.points[corners:], labels=given.labels[corners:],
                                                box=given.points[:2] if corners else None)
            predictor.propagate_in_video_preflight(session)
            made = {person: self._memory(session["output_dict_per_obj"][place]["cond_frame_outputs"][0])
                    for person, place in session["obj_id_to_idx"].items()}
        for person, memory in made.items():
            if person in others:
                others[person].features = memory.features
                continue
            bank = self.people.setdefault(person, ours.Bank(latest=frame, reverse=reverse))
            bank.tracked.pop(frame, None)
            bank.prompted[frame] = memory
            del self._prompts[frame, person]

    def _follow(self, frame: int, people: list[int]) -> None:
        """One session per person, of what is remembered and this frame."""
        view = self._view(frame)
        for person in people:
            bank = self.people[person]
            frames = {*bank.prompted, *bank.tracked, frame}
            # The predictor counts from 0 to the length of the clip, and on the way forward does not look back at a followed frame 0.
            first = min(frames) if bank.reverse or min(frames) in bank.prompted else min(frames) - 1
            session = self._session({frame - first: view}, max(self.frames or POINTERS, max(frames) - first + 1))
            for kind, memories in (("cond_frame_outputs", bank.prompted), ("non_cond_frame_outputs", bank.tracked)):
                session["output_dict"][kind].update({number - first: self._result_of(memory) for number, memory in memories.items()})
            with running("sam3"):
                self.sam3.predictor._obj_id_to_idx(session, person)
                for _ in self.sam3.predictor.propagate_in_video(session, frame - first, 0, bank.reverse, tqdm_disable=True):
                    pass
                memory = self._memory(session["output_dict"]["non_cond_frame_outputs"][frame - first])
            bank.remember(frame, memory, self.frames)

    def _session(self, views: dict[int, tuple], frames: int) -> dict:
        """The predictor's own state for these pictures of a clip of so many frames."""
        return self.sam3.predictor.init_state(video_height=self.height, video_width=self.width, num_frames=frames, cached_features=views)

    def _memory(self, out: dict) -> Memory:
        """What the predictor found of one person on one frame."""
        quality = self.sam3.predictor.cal_mem_score(out["object_score_logits"], out["iou_score"])
        return Memory(out["obj_ptr"][0], float(out["object_score_logits"]), float(quality), out["maskmem_features"][0], out["pred_masks"][0, 0].float())

    def _result_of(self, memory: Memory) -> dict:
        """The inverse. What a frame that is only looked back at no longer has is not asked for."""
        device = self.sam3.device
        return {"maskmem_features": None if memory.features is None else memory.features[None], "maskmem_pos_enc": [self.sam3.memory_places],
                "pred_masks": None if memory.logits is None else memory.logits[None, None], "obj_ptr": memory.pointer[None],
                "object_score_logits": torch.tensor([[memory.score]], device=device), "iou_score": torch.zeros(1, 1, device=device),
                "eff_iou_score": torch.tensor(memory.quality, device=device)}


@contextmanager
def unchanged_settings() -> Iterator[None]:
    """What the published code switches on for the whole process, less exact products as it is imported, is as before afterwards."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def _fill(model, weights: dict[str, Tensor], folder) -> None:
    """Puts the weights that were read, under published or hub names, into the published network."""
    wanted = {name: tensor for name, tensor in model.state_dict().items() if not COMPUTED.search(name) and not UNREAD.match(name)}
    try:
        found = weights if any(name.startswith(("detector.", "tracker.")) for name in weights) else to_published(weights)
    except KeyError:                                          # a name that is not SAM 3's
        found = weights
    check(found, wanted, folder)
    model.load_state_dict(found, strict=False)


def _vocabulary() -> str:
    """The words that the text encoder knows. Raises Body4DError `official_version`."""
    package = PACKAGES["sam3"]
    if not package.whole:
        raise Body4DError(f"The installed sam3 has no {package.file} in {package.folder}: it is not whole.", f"Install it from its repository: "
                          f"{package.install}. {INSTEAD}", "official_version")
    return str(package.folder / package.file)
