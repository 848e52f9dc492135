# SPDX-License-Identifier: Apache-2.0
"""The whole pipeline on a short clip that comes with the engine: a drawn person walks up and waves (`scripts/bake_proof_clip.py`)."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..errors import Body4DError
from ..events import StageFinished
from ..examining import Check
from ..people import Person, Prompt

CLIP, TRUTH = (Path(__file__).with_name(name) for name in ("clip.mp4", "truth.npz"))
TORSO = tuple(f"{side}_{part}" for side in ("left", "right") for part in ("shoulder", "hip"))
NAME, BY_WORD, BY_CLICK = "clip: pipeline", 'clip: found by the word "person"', "clip: found by a click"


def pipeline(backend) -> Iterator[Check]:
    """The clip through all stages of the backend, everybody found by the word; through `track` alone once more with a click; and what is right of both."""
    if lacks := backend.lacks():
        yield Check(NAME, "missing", f"not run: the {backend.name} backend lacks {', '.join(lacks)}", backend.remedy)
        return
    from ..take import Take
    from .judging import bodies, read_truth, tracked

    truth = read_truth(TRUTH)
    with tempfile.TemporaryDirectory(prefix="body4d_proof") as folder:
        word, click = Path(folder) / "word.take", Path(folder) / "click.take"
        ran = _through(NAME, backend, word, [])
        yield ran
        if ran.state == "ok":
            with Take.open(word) as take:
                yield tracked(BY_WORD, take, truth)
                yield from bodies(take, truth)
        frame = len(truth.boxes) // 2
        ran = _through(BY_CLICK, backend, click, [Person(1, prompts=[Prompt(frame, *_middle(truth.reference, frame))])], until="track")
        if ran.state == "ok":
            with Take.open(click) as take:
                ran = tracked(BY_CLICK, take, truth)
        yield ran


def _through(name: str, backend, path: Path, people: list[Person], until: str | None = None) -> Check:
    """Runs it, telling the progress; what stages took, or what went wrong."""
    from ..clip import open_clip
    from ..pipeline import run
    from ..report import Display
    from ..settings import checked

    took = []
    try:
        with open_clip(CLIP) as clip, Display().showing() as display:
            for event in run(clip, path, backend, people, checked(), until=until):
                display.show(event)
                if isinstance(event, StageFinished):
                    took.append(f"{event.stage} {event.seconds:.1f} s")
            return Check(name, "ok", f"{len(clip.frames)} frames of {clip.width} x {clip.height}: {', '.join(took)}")
    except Body4DError as error:
        return Check(name, "wrong", f"it stopped{' after ' + ', '.join(took) if took else ''}: {error.message}", error.hint)


def _middle(reference, frame: int) -> tuple[float, float]:
    """Where the trunk's middle is seen, px."""
    middle = np.mean([reference.joints_m[frame, reference.names.index(name)] for name in TORSO], axis=0)
    x, y = reference.focal_px[frame] * middle[:2] / middle[2] + reference.principal_px[frame]
    return float(x), float(y)
