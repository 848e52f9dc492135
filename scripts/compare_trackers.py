# SPDX-License-Identifier: Apache-2.0
"""Compares our SAM 3 with the published code, in float32, on one random checkpoint, the same pictures and the same prompts.

    python scripts/compare_trackers.py [--checkout SAM3_CHECKOUT] [--json FILE]

The published code needs its own packages: timm, iopath, ftfy, regex, einops, psutil, setuptools<81. What it needs for GPUs, for files of video and for drawing
may be absent. No weights are needed and no GPU: the network has the published widths, but few layers and small pictures. Both sides are driven alike: by
`start`, `prompt`, `step`, `save` and `resume`.

Prints how far the logits of people and of the word "person" are apart, and how much the masks have in common; then how far deliberate mistakes in ours move
the result. Ends with status 1 if a difference is above its tolerance, or a mistake moves its case by less than ten times the tolerance."""

import argparse
import contextlib
import json
import sys
import tempfile
import types
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np

try:
    import torch
    import transformers.models.sam3_video.modeling_sam3_video  # noqa: F401  before anything that is absent seems to be there
    from torch.overrides import TorchFunctionMode
    from transformers.models.sam3.modeling_sam3 import Sam3Model
except ModuleNotFoundError as error:
    sys.exit(f"{error.name} is not here: use a Python that has torch, transformers and what the published code needs (see the top of this script).")

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from body4d_engine.models.official import sam3 as official  # noqa: E402
from body4d_engine.models.sam3 import memory, model, network  # noqa: E402
from body4d_engine.models.sam3.config import CONFIGS  # noqa: E402
from body4d_engine.models.sam3.tracker import Tracker  # noqa: E402
from tests.full.sam3_nets import lively, pictures  # noqa: E402

TOLERANCE = 2e-4                       # of the mean logit of a picture; the logits themselves reach 6
SCORE_TOLERANCE = 1e-4                 # of the probability to be seen, and of a detection
WIDTH, HEIGHT, FRAMES = 160, 90, 24
ABSENT = ("triton", "decord", "pycocotools", "skimage", "cv2")
SMALL = replace(CONFIGS["full"], image=112, vit_dim=32, vit_hidden=64, vit_layers=2, vit_heads=4, window=4, global_layers=(1,), pretrain_image=56, text_dim=32,
                text_hidden=128, text_layers=1, text_heads=4, geometry_layers=1, detector_layers=1, queries=6, memory_layers=1)


# -- the published network -------------------------------------------------------------------------------------------------


class Exact(TorchFunctionMode):
    """Inside, memories that both sides keep in bfloat16 stay in float32: rounding moves by a hundredth what differs in the last digit. And without a GPU the
    published code, which asks for CUDA by name, gets the processor."""

    def __torch_function__(self, function, _, args=(), options=None):
        if not torch.cuda.is_available():
            if function in (torch.Tensor.cuda, torch.Tensor.pin_memory):
                return args[0]
            args = tuple(torch.device("cpu") if isinstance(value, torch.device) else value for value in args)
            options = {name: "cpu" if name == "device" and value is not None else value for name, value in (options or {}).items()}
        if function is torch.Tensor.to:
            args = tuple(torch.float32 if value is torch.bfloat16 else value for value in args)
        return function(*args, **(options or {}))


class Absent(types.ModuleType):
    """A module that is not installed and not needed: whatever is asked of it does nothing."""

    __path__: list = []

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {"__init__": lambda self, *_, **__: None, "__call__": lambda self, *_, **__: None})

    def find_spec(self, name, _path=None, _target=None):
        from importlib.machinery import ModuleSpec

        return ModuleSpec(name, self) if name.split(".")[0] == self.__name__ else None

    def create_module(self, spec):
        return Absent(spec.name)

    def exec_module(self, module):
        pass


@contextlib.contextmanager
def without_what_is_absent() -> Iterator[None]:
    from importlib.util import find_spec

    finders = [Absent(name) for name in ABSENT if find_spec(name) is None]
    sys.meta_path += finders
    try:
        yield
    finally:
        for finder in finders:
            sys.meta_path.remove(finder)
            for name in [name for name in sys.modules if name.split(".")[0] == finder.__name__]:
                del sys.modules[name]


def published_network(ours: model.Sam3) -> official.Sam3:
    """The published network with our weights, through our loader."""
    try:
        import sam3.model_builder as builder
    except ModuleNotFoundError as error:
        sys.exit(f"{error.name} is not here: name a checkout of facebookresearch/sam3 with --checkout, and install what it needs: timm, iopath, ftfy, regex, "
                 "einops, psutil, setuptools<81.")

    config, side = ours.config, ours.config.image
    grid = config.grid
    sizes = {"ViT": {"img_size": side, "pretrain_img_size": config.pretrain_image, "embed_dim": config.vit_dim, "depth": config.vit_layers,
                     "num_heads": config.vit_heads, "mlp_ratio": config.vit_hidden / config.vit_dim, "window_size": config.window,
                     "global_att_blocks": config.global_layers},
             "VETextEncoder": {"width": config.text_dim, "heads": config.text_heads, "layers": config.text_layers},
             "TransformerEncoderFusion": {"num_layers": config.detector_layers},
             "TransformerDecoder": {"num_layers": config.detector_layers, "num_queries": config.queries, "resolution": side},
             "SequenceGeometryEncoder": {"num_layers": config.geometry_layers}, "PositionEmbeddingSine": {"precompute_resolution": None},
             "SimpleMaskDownSampler": {"interpol_size": [16 * grid] * 2}, "RoPEAttention": {"feat_sizes": [grid] * 2},
             "TransformerEncoderCrossAttention": {"num_layers": config.memory_layers}, "Sam3TrackerPredictor": {"image_size": side},
             "Sam3VideoInferenceWithInstanceInteractivity": {"image_size": side}}
    with contextlib.ExitStack() as stack:
        for name, values in sizes.items():
            stack.enter_context(mock.patch.object(builder, name, partial(_sized, getattr(builder, name), values)))
        made = builder.build_sam3_video_model(load_from_HF=False, bpe_path=official._vocabulary(), device=str(ours.device))
    official._fill(made, {name: tensor.detach() for name, tensor in ours.net.state_dict().items()}, "the random checkpoint")
    theirs = official.Sam3(made, ours.device)
    theirs.dtype = torch.float32
    return theirs


def _sized(make: Callable, sizes: dict, *given, **options):
    return make(*given, **options | {name: size for name, size in sizes.items() if name in options})


# -- the cases ---------------------------------------------------------------------------------------------------------------


class Driven:
    """A tracker on the pictures. Keeps all that came out: [(what, person, logits, probability)]."""

    def __init__(self, make: Callable, frames: int = FRAMES):
        self.tracker, self.found, self.pictures = make(exclusive=False, fill=0), [], pictures(frames, HEIGHT, WIDTH)
        self.tracker.start(WIDTH, HEIGHT, frames)

    def prompt(self, *given, **options) -> None:
        self.tracker.prompt(*given, **options)

    def step(self, *frames: int, reverse: bool = False) -> None:
        for frame in frames:
            got = self.tracker.step(frame, self.pictures[frame], reverse)
            self.found += [(f"frame {frame}", person, logits.cpu(), got.scores[person]) for person, logits in got.logits.items()]


def block(x: int, y: int, wide: int, tall: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y : y + tall, x : x + wide] = True
    return mask


def click_refined(run: Driven) -> None:
    run.prompt(0, 1, clicks=[(30, 40, True)])
    run.step(0)
    run.prompt(0, 1, clicks=[(30, 40, True), (80, 20, False)])
    run.step(*range(FRAMES))


def box_both_ways(run: Driven) -> None:
    run.prompt(12, 1, box=(20, 20, 60, 70))
    run.step(*range(12, FRAMES))
    run.step(*range(12, -1, -1), reverse=True)


def box_and_clicks(run: Driven) -> None:
    run.prompt(0, 1, box=(20, 20, 60, 70), clicks=[(x, 40, x < 55) for x in range(25, 79, 3)])  # of 20 points the first and the last 8 count
    run.step(*range(6))


def mask_forward(run: Driven) -> None:
    run.prompt(0, 1, mask=block(15, 20, 30, 40))
    run.step(*range(FRAMES))


def late_and_together(run: Driven) -> None:
    run.prompt(0, 1, clicks=[(30, 40, True)])
    run.prompt(4, 3, box=(75, 30, 100, 65))
    run.step(*range(FRAMES))


def overlapping_masks(run: Driven) -> None:
    run.prompt(0, 1, mask=block(15, 20, 30, 40))
    run.prompt(0, 2, mask=block(35, 30, 45, 50))
    run.step(*range(8))


def overlapping_clicks(run: Driven) -> None:
    run.prompt(0, 1, clicks=[(30, 40, True)])
    run.prompt(0, 2, box=(20, 20, 60, 70))
    run.step(*range(8))


def six_prompted(run: Driven) -> None:
    for place, frame in enumerate((0, 2, 4, 6, 8, 9)):
        run.prompt(frame, 1, clicks=[(25 + 3 * place, 35 + place, True)])
        run.step(frame)
    run.step(*range(FRAMES))


def corrected_on_the_way(run: Driven) -> None:
    run.prompt(0, 1, clicks=[(30, 40, True)])
    run.step(*range(9))
    run.prompt(8, 1, clicks=[(50, 50, False)])
    run.step(*range(8, FRAMES))


def saved_and_gone_on(run: Driven) -> None:
    run.prompt(0, 1, clicks=[(30, 40, True)])
    run.step(*range(11))
    with tempfile.TemporaryDirectory() as folder:
        run.tracker.save(Path(folder) / "state")
        run.tracker.resume(Path(folder) / "state")
    run.step(*range(11, FRAMES))


CASES = (click_refined, box_both_ways, box_and_clicks, mask_forward, late_and_together, overlapping_masks, overlapping_clicks, six_prompted,
         corrected_on_the_way, saved_and_gone_on)


def looked(sam3) -> list[tuple]:
    """What the word "person" finds on three pictures: all of it, whatever its score."""
    found = []
    for number, picture in enumerate(pictures(3, HEIGHT, WIDTH)):
        got = sam3.detect(picture, threshold=0.0)
        found += [(f"picture {number}", place, torch.from_numpy(mask), float(score)) for place, (mask, score) in enumerate(zip(got.masks, got.scores))]
    return found


def apart(ours: list[tuple], theirs: list[tuple]) -> dict[str, float]:
    """Of what both found: the largest mean and the largest single difference of logits, the smallest overlap (IoU) of masks, the largest difference of
    probabilities."""
    if [one[:2] for one in ours] != [one[:2] for one in theirs]:
        return {"mean": np.inf, "most": np.inf, "overlap": 0.0, "score": np.inf}
    found = {"mean": 0.0, "most": 0.0, "overlap": 1.0, "score": 0.0}
    for (*_, a, p), (*_, b, q) in zip(ours, theirs):
        difference = (a.float() - b.float()).abs()
        either = ((a > 0) | (b > 0)).sum()
        found = {"mean": max(found["mean"], float(difference.mean())), "most": max(found["most"], float(difference.max())),
                 "overlap": min(found["overlap"], float(((a > 0) & (b > 0)).sum() / either) if either else 1.0), "score": max(found["score"], abs(p - q))}
    return found


# -- mistakes ----------------------------------------------------------------------------------------------------------------


def _resized_first(tracker, seen, logits, score, prompted):
    """As transformers has it: the logits are resized, then made certain."""
    side = 4 * tracker.prompt_encoder.mask_input_size[0]
    larger = torch.nn.functional.interpolate(logits[:, None], (side, side), mode="bilinear", antialias=True)[:, 0]
    return REAL["encode_memory"](tracker, seen, larger, score, prompted)


def _words_alone(detector, **given):
    """As transformers has it: the detector is not told that nobody drew a box, which is what follows the words."""
    given["attention_mask"] = given["attention_mask"].clone()
    given["attention_mask"][:, -1] = 0
    return REAL["detect"](detector, **given)


REAL = {"encode_memory": network.encode_memory, "detect": Sam3Model.forward, "with_memory": network.with_memory, "segment": network.segment}


def _with_memory(change: Callable) -> Callable:
    return lambda tracker, seen, features, steps, pointers, distances, most: REAL["with_memory"](tracker, seen, *change(features, steps, pointers, distances),
                                                                                                most)


MISTAKES: list[tuple[str, Callable, object, str, object]] = [
    ("the mask that a click refines is not fed back", click_refined, network, "segment",
     lambda *given, **options: REAL["segment"](*given[:5], None, *given[6:], **options)),
    ("one guess where three are due", click_refined, network, "segment", lambda *given, **options: REAL["segment"](*given, **options | {"several": False})),
    ("a mask's pointer is that of the best of three guesses", mask_forward, network, "segment",
     lambda *given, **options: REAL["segment"](*given, **options | {"several": True})),
    ("frames are remembered whatever their quality", late_and_together, memory, "GOOD", -1.0),
    ("places in time one off", click_refined, network, "with_memory", _with_memory(lambda f, s, p, d: (f, [[max(0, n - 1) for n in one] for one in s], p, d))),
    ("pointers are not looked at", click_refined, network, "with_memory", _with_memory(lambda f, s, p, d: (f, s, p[:, :0], [one[:0] for one in d]))),
    ("the oldest mask is not looked at", click_refined, memory, "MASKS", 6),
    ("the way back looks at the way there", box_both_ways, memory.Bank, "enter",
     lambda bank, frame, reverse: setattr(bank, "latest", frame) or setattr(bank, "reverse", reverse)),
    ("all prompted frames are looked at", six_prompted, memory, "nearest_prompted", lambda frames, frame: list(frames)),
    ("the memory's mask is resized before it is made certain", late_and_together, network, "encode_memory", _resized_first),
    ("a prompted mask is remembered as uncertain", six_prompted, network, "encode_memory",
     lambda tracker, seen, logits, score, prompted: REAL["encode_memory"](tracker, seen, logits, score, False)),
    ("nobody is remembered as unseen", late_and_together, network, "encode_memory",
     lambda tracker, seen, logits, score, prompted: REAL["encode_memory"](tracker, seen, logits, score.abs(), prompted)),
    ("prompted masks overlap in memory", overlapping_clicks, sys.modules[Tracker.__module__], "exclusive", lambda logits: logits),
    ("the detector is not told that nobody drew a box", looked, Sam3Model, "forward", _words_alone),
]


# -- the table ---------------------------------------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkout", type=Path, help="a checkout of github.com/facebookresearch/sam3, where the package is not installed")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    arguments = parser.parse_args()
    if arguments.checkout:
        sys.path.insert(0, str(arguments.checkout))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    CONFIGS["small"] = SMALL
    ours = lively(2, "small", gain=1.0)                    # seen on half of the frames, which alone are worth remembering
    ours.net.to(device)
    with contextlib.ExitStack() as stack:
        stack.enter_context(without_what_is_absent())
        stack.enter_context(Exact())
        with official.unchanged_settings():
            theirs = published_network(ours)
            return compare(ours, theirs, arguments)


def compare(ours: model.Sam3, theirs: official.Sam3, arguments) -> int:
    sides = {"ours": (ours, partial(Tracker, ours)), "theirs": (theirs, partial(official.Tracker, theirs))}

    def result(case: Callable, side: str) -> list[tuple]:
        sam3, make = sides[side]
        if case is looked:
            return looked(sam3)
        run = Driven(make)
        case(run)
        return run.found

    failed, figures, published = 0, {"cases": {}, "mistakes": {}}, {}
    print(f"{'':<28}{'results':>9}{'mean logit':>12}{'most':>10}{'overlap':>9}{'score':>10}")
    for case in (*CASES, looked):
        published[case] = result(case, "theirs")
        found = figures["cases"][case.__name__] = apart(result(case, "ours"), published[case])
        wrong = found["mean"] > TOLERANCE or found["score"] > SCORE_TOLERANCE or not published[case]
        failed += wrong
        print(f"{case.__name__:<28}{len(published[case]):>9}{found['mean']:>12.1e}{found['most']:>10.1e}{found['overlap']:>9.4f}{found['score']:>10.1e}"
              + "  WRONG" * wrong, flush=True)
    for words, case, where, name, wrong_thing in MISTAKES:
        with mock.patch.object(where, name, wrong_thing):
            moved = figures["mistakes"][words] = apart(result(case, "ours"), published[case])
        far = max(moved["mean"] / TOLERANCE, moved["score"] / SCORE_TOLERANCE)
        failed += far < 10
        print(f"{words:<60}{case.__name__:<22}{far:>10.3g} x the tolerance" + "  TOO LITTLE" * (far < 10), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
