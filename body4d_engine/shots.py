# SPDX-License-Identifier: Apache-2.0
"""Where one shot ends and the next begins: PySceneDetect's detectors, fed with our own frames."""

from collections.abc import Iterator

import cv2

from .events import Progress

_WIDTH = 256
_REPORT_EVERY = 16
# Two frames closer than this many seconds to a cut cannot be the next cut; shorter flashes are not shots.
_SHORTEST_SECONDS = 0.25
# Share of a picture's 256 hash bits that change. Cuts between different footage: 0.44 to 0.56; the sun coming out from
# behind an athlete, which changes every colour of the picture but not what stands where: 0.12.
_HASH_CHANGE = 0.3


def find_shots(clip, watch=None) -> Iterator[Progress]:
    """Yields Progress("shots", ...) over the frames in use; returns the first clip frame of every shot.

    Every frame from the first to the last is looked at, whatever the step: a cut is a jump between neighbours. Memory does
    not depend on the length. Two detectors must agree on a cut: the adaptive one (the picture differs from its neighbour far
    more than the frames around it do from theirs, so fast motion and panning are no cuts) and the perceptual hash (what
    stands where has changed, so a flash or a change of light is no cut). Cuts in the first or last two frames are not
    looked for. watch(frame, rgb), where given, is shown every picture too, so that it need not be decoded twice.
    """
    from scenedetect import FrameTimecode
    from scenedetect.detectors import AdaptiveDetector, HashDetector

    first, last = clip.frames.start, clip.frames[-1]
    fps = float(clip.fps)
    adaptive = AdaptiveDetector(min_scene_len=max(2, round(_SHORTEST_SECONDS * fps)))
    perceptual = HashDetector(threshold=_HASH_CHANGE, min_scene_len=1)
    scale = min(1.0, _WIDTH / clip.width)
    size = (max(2, round(clip.width * scale)), max(2, round(clip.height * scale)))
    shots = [first]
    changed: set[int] = set()
    total = last - first + 1
    for done, (frame, rgb) in enumerate(clip.iterate(range(first, last + 1)), 1):
        if watch is not None:
            watch(frame, rgb)
        small = cv2.cvtColor(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2BGR)
        now = FrameTimecode(frame, fps)
        changed.update(cut.frame_num for cut in perceptual.process_frame(now, small))
        shots += [cut.frame_num for cut in adaptive.process_frame(now, small) if cut.frame_num in changed]
        changed = {cut for cut in changed if cut > frame - 8}  # the adaptive detector is two frames late
        if done % _REPORT_EVERY == 0 or done == total:
            yield Progress("shots", done, total)
    return tuple(shots)
