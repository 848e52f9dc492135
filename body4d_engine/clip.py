# SPDX-License-Identifier: Apache-2.0
"""The input of everything: a video or a folder of images as upright frames 0, 1, 2... at a constant rate."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from .clip_files import SUFFIXES, fingerprint_of
from .errors import Body4DError
from .events import Notice, Progress
from .footage import Footage, stated_seconds
from .images import ImageFolder
from .pixels import Upright, display_matrix
from .timing import frame_grid, snap_rate

FOLDER_FPS = Fraction(30)
_FULL_FRAME_DIAGONAL_MM = math.hypot(36, 24)
_FOCAL_KEYS = ("com.apple.quicktime.camera.focal_length.35mm_equivalent", "focal_length.35mm_equivalent", "focallengthin35mmfilm",
               "focal_length_in_35mm_film")
# Seen frame for frame in Blender 4.2, 4.5, 5.0 and 5.2 (tests/blender/test_clip_in_blender.py); anything else gets a proxy.
_BLENDER_CODECS = {"h264", "hevc", "vp8", "vp9", "av1", "libdav1d", "mpeg4", "mjpeg", "prores", "ffv1"}
_BLENDER_CONTAINERS = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi"}


@dataclass(frozen=True)
class Facts:
    """What the file is like. source_size: (width, height) px as stored. rotation_deg: clockwise, already applied.
    damaged: what is wrong, in words. blender_reasons: why Blender would not show frame i of the file as frame i of the clip;
    empty where it does."""

    rotation_deg: int
    variable_rate: bool
    pixel_aspect: Fraction
    damaged: list[str]
    codec: str
    container: str
    has_audio: bool
    source_size: tuple[int, int]
    blender_reasons: list[str]


def open_clip(path, start: int = 0, end: int | None = None, step: int = 1, image_fps: Fraction | float | None = None) -> "Clip":
    """Open a video file or a folder of images.

    start, end (exclusive, None = the end), step choose the frames in use. image_fps: rate of a folder (default 30);
    refused for a video, which has its own. Raises Body4DError with what to do about it.
    """
    path = Path(path)
    if not path.exists():
        raise Body4DError(f"There is no file {path}.", "Check the name and the folder.", "no_such_file")
    if path.is_file() and path.suffix.lower() in SUFFIXES:
        raise Body4DError(f"{path} is a single image.", "Give a video, or the folder that holds the images.", "single_image")
    if path.is_dir():
        clip = FolderClip(path, image_rate(image_fps))
    elif image_fps is not None:
        raise Body4DError(f"{path} is a video and has its own frame rate.", "Leave the image frame rate out.", "rate_not_used")
    else:
        clip = VideoClip(path)
    clip.use(start, end, step)
    return clip


def image_rate(fps) -> Fraction:
    """The rate of a folder of images, None = the default. Raises Body4DError."""
    if fps is None:
        return FOLDER_FPS
    if not (math.isfinite(fps) and 0 < fps <= 1000):
        raise Body4DError(f"{fps} frames per second is no possible rate.", "Give a number above 0 and up to 1000.", "bad_rate")
    return snap_rate(Fraction(fps))


class Clip(ABC):
    """Frames of one clip. Not for use from several threads at once.

    width, height: px, upright, square pixels. fps: Fraction. frame_count: of the whole clip. frames: range in use.
    focal_px: (focal length in px, where it comes from) or None. fingerprint: names the content, fast. watch: called before each
    picture is read, and may raise. origin: where its owner has it, where that is not `path`.
    """

    path: Path
    width: int
    height: int
    fps: Fraction
    frame_count: int
    fingerprint: str
    bytes: int
    focal_px: tuple[float, str] | None = None
    watch: Callable[[], None] | None = None
    origin: str | None = None

    def __init__(self):
        self._shots: tuple[int, ...] | None = None
        self._last: tuple[int, np.ndarray] | None = None
        self.frames = range(0)

    @property
    def name(self) -> str:
        return self.path.name

    @property
    @abstractmethod
    def facts(self) -> Facts:
        """What the file is like."""

    @property
    @abstractmethod
    def notices(self) -> list[Notice]:
        """What the user should know of this clip so far; grows where decoding meets damage."""

    @abstractmethod
    def _rgb(self, frame: int) -> np.ndarray:
        """(height, width, 3) uint8 RGB of a frame."""

    def close(self) -> None:
        """Let go of the file."""

    def __enter__(self) -> "Clip":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def use(self, start: int = 0, end: int | None = None, step: int = 1) -> None:
        """Choose the frames in use."""
        last = self.frame_count if end is None else end
        has = f"{self.path} has {self.frame_count} frames, numbered from 0"
        if step < 1:
            raise Body4DError(f"A step of {step} frames goes nowhere.", "Give 1 for every frame, 2 for every other one, and so on.", "bad_range")
        if not 0 <= start < self.frame_count:
            raise Body4DError(f"The clip cannot start at frame {start}: {has}.", f"Give a start from 0 to {self.frame_count - 1}.", "bad_range")
        if not start < last <= self.frame_count:
            raise Body4DError(f"The clip cannot end before frame {last}: {has}, and the start is {start}.",
                              f"Give an end from {start + 1} to {self.frame_count}.", "bad_range")
        self.frames = range(start, last, step)
        self._shots = None

    def read(self, frame: int) -> np.ndarray:
        """(height, width, 3) uint8 RGB of any frame of the whole clip, in any order. Read-only: copy it to draw on it."""
        if not 0 <= frame < self.frame_count:
            raise IndexError(f"frame {frame} of {self.path}, which has {self.frame_count}")
        if self.watch is not None:
            self.watch()
        if self._last is None or self._last[0] != frame:
            self._last = frame, self._rgb(frame)
        return self._last[1]

    def iterate(self, frames: Iterable[int]) -> Iterator[tuple[int, np.ndarray]]:
        """(frame, rgb) for each: one pass for increasing frames, one pass per batch of kept pictures for decreasing ones."""
        for frame in frames:
            yield frame, self.read(frame)

    @property
    def shots(self) -> tuple[int, ...]:
        """First clip frame of every shot within the frames in use. Found at the first call, which decodes them all."""
        for _ in self.find_shots():
            pass
        return self._shots

    @shots.setter
    def shots(self, first_frames: Iterable[int]) -> None:
        self._shots = tuple(int(frame) for frame in first_frames)

    def find_shots(self) -> Iterator[Progress]:
        """What `shots` does, with progress; nothing to do where they are known."""
        from .shots import find_shots

        if self._shots is None:
            self._shots = yield from find_shots(self)

    def describe(self) -> dict:
        """What the take keeps of the clip; plain JSON."""
        facts = self.facts
        return {"name": self.name, "path": self.origin or str(self.path.resolve()), "bytes": self.bytes, "fingerprint": self.fingerprint,
                "width": self.width, "height": self.height, "fps": [self.fps.numerator, self.fps.denominator],
                "frame_count": self.frame_count, "start": self.frames.start, "end": self.frames.stop, "step": self.frames.step,
                "rotation_deg": facts.rotation_deg, "variable_rate": facts.variable_rate,
                "pixel_aspect": [facts.pixel_aspect.numerator, facts.pixel_aspect.denominator], "has_audio": facts.has_audio}

    def _focal_from_35mm(self, focal_mm: float, source: str) -> None:
        """A 35 mm equivalent is defined over the picture's diagonal."""
        if 1 <= focal_mm <= 5000:
            px = focal_mm / _FULL_FRAME_DIAGONAL_MM * math.hypot(self.width, self.height)
            self.focal_px = px, f"metadata: {focal_mm:g} mm (35 mm equivalent) in {source}"


class VideoClip(Clip):
    """A video file."""

    def __init__(self, path: Path):
        super().__init__()
        self.path = path
        self.footage = Footage(path)
        first = self.footage.picture(0)
        stream, container = self.footage.stream, self.footage.container  # only now: looking for a picture may reopen the file
        declared = [stream.average_rate, stream.guessed_rate, stream.base_rate]
        self.fps, self._shown, self._variable = frame_grid(self.footage.times, self.footage.time_base, declared, self.footage.last_duration)
        self.frame_count = len(self._shown)
        aspect = stream.sample_aspect_ratio or Fraction(1)
        self._upright = Upright((first.width, first.height), aspect if aspect > 0 else Fraction(1), display_matrix(first))
        self._interlaced = first.interlaced_frame
        self.width, self.height = self._upright.size
        self.bytes = path.stat().st_size
        self.fingerprint = fingerprint_of(path)
        self._pixel_aspect = aspect if aspect > 0 else Fraction(1)
        self._about = {"codec": stream.codec_context.name, "container": container.format.name, "has_audio": bool(container.streams.audio),
                       "source_size": (first.width, first.height)}
        self.start_seconds = 0.0 if self.footage.untimed else float(self.footage.times[0] * self.footage.time_base)
        self._reasons = self._find_blender_reasons()
        for tags, where in ((stream.metadata, "the video stream"), (container.metadata, "the file")):
            value = next((v for key, v in tags.items() if key.lower() in _FOCAL_KEYS), None)
            if value is not None and self.focal_px is None:
                try:
                    self._focal_from_35mm(float(value.split()[0]), where)
                except (ValueError, IndexError):
                    self.footage.damaged.append(f"the focal length in the metadata is not a number: {value!r}")

    def close(self) -> None:
        self.footage.close()

    def _rgb(self, frame: int) -> np.ndarray:
        return self._upright.rgb(self.footage.picture(int(self._shown[frame])))

    def _find_blender_reasons(self) -> list[str]:
        """Blender counts frames by what the container states and does not look at every picture: be strict."""
        footage, stream, upright = self.footage, self.footage.stream, self._upright
        reasons = []
        if upright.changes:
            reasons.append("the picture is mirrored by metadata" if upright.mirrored else f"the picture is turned by {upright.rotation_deg} degrees by metadata")
        if upright.square_size != self._about["source_size"]:
            reasons.append(f"the pixels are not square ({self._pixel_aspect.numerator}:{self._pixel_aspect.denominator})")
        if self._interlaced:
            reasons.append("it is interlaced")
        if self._variable:
            reasons.append("the frame rate varies")
        if footage.untimed and footage.reordered:
            reasons.append("the container holds no presentation times")
        if abs(self.start_seconds) > 1e-9:
            reasons.append(f"the first picture is shown at {self.start_seconds:.3f} s instead of 0")
        if not stream.guessed_rate or snap_rate(Fraction(stream.guessed_rate)) != self.fps:
            reasons.append(f"the container states another frame rate ({stream.guessed_rate})")
        stated = self._stated_counts()
        if stated != {self.frame_count}:
            reasons.append(f"the container states {' or '.join(map(str, sorted(stated))) or 'no number of'} frames, there are {self.frame_count}")
        if stream.index != min(s.index for s in footage.container.streams.video):
            reasons.append("it is not the first video stream of the file")
        if self._about["codec"] not in _BLENDER_CODECS or self._about["container"] not in _BLENDER_CONTAINERS:
            reasons.append(f"{self._about['codec']} in {self._about['container']} was never seen to work in Blender")
        return reasons

    def _stated_counts(self) -> set[int]:
        """Every frame count a reader could take from the container: stated, stream length x rate, file length x rate."""
        stream, container = self.footage.stream, self.footage.container
        counts = {stream.frames} if stream.frames else set()
        seconds = stated_seconds(stream)
        if seconds is not None:
            counts.add(round(seconds * self.fps))
        if not stream.frames and container.duration:
            frames = Fraction(container.duration, 1_000_000) * self.fps
            counts |= {round(frames), math.ceil(frames - Fraction(1, 20))}
        return counts

    @property
    def facts(self) -> Facts:
        damaged = list(self.footage.damaged)
        if self.footage.missing:
            damaged.append(f"{len(self.footage.missing)} of its pictures cannot be decoded")
        reasons = self._reasons + [f"the file is damaged: {text}" for text in damaged]
        return Facts(self._upright.rotation_deg, self._variable, self._pixel_aspect, damaged, blender_reasons=reasons, **self._about)

    @property
    def notices(self) -> list[Notice]:
        found = [Notice("clip", "damaged", f"{self.name}: {text}.") for text in self.footage.damaged]
        if self._interlaced:
            found.append(Notice("clip", "interlaced", f"{self.name} is interlaced: of what moves, every second line is used."))
        if self._variable:
            lost = len(self.footage) - len(np.unique(self._shown))
            found.append(Notice("clip", "variable_rate", f"{self.name} has a variable frame rate: its {len(self.footage)} pictures were laid on "
                                                         f"{self.frame_count} frames at {_rate_text(self.fps)} ({lost} pictures left out)."))
        for first, last in self._frames_of(self.footage.missing):
            shown = "the first picture that can be decoded is shown" if first == 0 else "the picture before is shown again"
            found.append(Notice("clip", "repeated", f"{self.name}: {_frames_text(first, last)} cannot be decoded; {shown}.", frame=first, last_frame=last))
        for first, last in self._frames_of(self.footage.suspect()):
            found.append(Notice("clip", "smeared", f"{self.name}: {_frames_text(first, last)} may be smeared, because an earlier picture cannot be decoded.",
                                frame=first, last_frame=last))
        return found

    def _frames_of(self, pictures: set[int]) -> list[tuple[int, int]]:
        """Spans (first, last) of the frames that show these pictures."""
        return _spans(np.flatnonzero(np.isin(self._shown, sorted(pictures))))


class FolderClip(Clip):
    """A folder of images."""

    def __init__(self, path: Path, fps: Fraction):
        super().__init__()
        self.path, self.fps = path, fps
        self.images = ImageFolder(path)
        self.frame_count = len(self.images)
        self.width, self.height = self.images.size
        sizes = [p.stat().st_size for p in self.images.files]
        self.bytes = sum(sizes)
        self.fingerprint = fingerprint_of(path)
        focal_mm = self.images.exif.get(0xA405)
        if focal_mm:
            self._focal_from_35mm(focal_mm, f"the EXIF data of {self.images.files[0].name}")

    def _rgb(self, frame: int) -> np.ndarray:
        return self.images.picture(frame)

    @property
    def facts(self) -> Facts:
        return Facts(0, False, Fraction(1), [], "images", "folder", False, self.images.size, ["it is a folder of images"])

    @property
    def notices(self) -> list[Notice]:
        return [Notice("clip", "gap", f"{self.name}: the numbering skips {first}" + (f" to {last}" if last > first else "")
                       + f"; {self.images.files[index].name} follows {self.images.files[index - 1].name} without a pause.", frame=index)
                for index, first, last in self.images.gaps]


def _rate_text(fps: Fraction) -> str:
    return f"{float(fps):.5g} fps"


def _frames_text(first: int, last: int) -> str:
    return f"frame {first}" if first == last else f"frames {first} to {last}"


def _spans(frames: np.ndarray) -> list[tuple[int, int]]:
    """Consecutive runs of increasing numbers as (first, last)."""
    breaks = np.flatnonzero(np.diff(frames) != 1)
    firsts, lasts = np.r_[0, breaks + 1], np.r_[breaks, len(frames) - 1]
    return [(int(frames[a]), int(frames[b])) for a, b in zip(firsts, lasts)] if len(frames) else []
