# SPDX-License-Identifier: Apache-2.0
"""Writing videos: H.264 that Blender, browsers and players show frame for frame, whole or not at all."""

import errno
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, VideoReformatter

from .errors import Body4DError
from .events import Progress
from .sound import Sound

PROXY_GOP = 12
_REPORT_EVERY = 10


class VideoWriter:
    """Write RGB frames to an mp4. The file appears under its name only when it is complete.

    width, height: px, any size; an odd one is stored without colour subsampling (yuv444p), which Blender
    and most players show at its exact size. fps: true rational rate (of a clip used with a step: its rate / step). audio_from: a Clip, whose sound is taken from the first
    frame in use on, or the path of a file, taken from `audio_start` seconds on; its sound ends with the pictures.
    gop: most frames from one key frame to the next. Raises Body4DError where the file cannot be written.
    """

    def __init__(self, path, width: int, height: int, fps, audio_from=None, crf: int = 18, gop: int = 48, audio_start: float = 0.0):
        self.path = Path(path)
        self.fps = Fraction(fps).limit_denominator(100_000)
        self.size = (int(width), int(height))
        if min(self.size) < 1:
            raise ValueError(f"a video of {width} x {height} pixels")
        if self.path.is_dir():
            raise Body4DError(f"{self.path} is a folder, not a name for a video.", "Give a file name that ends in .mp4.", "write_failed")
        self._part = self.path.with_name(f".{self.path.name}.part")
        self._count = 0
        self._container = self._sound = None
        self._converter = VideoReformatter()
        odd = self.size[0] % 2 or self.size[1] % 2
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._container = av.open(str(self._part), "w", format="mp4")
            # Without B-frames the first picture stands at time 0 in every reader, with no edit list to interpret.
            self._stream = self._container.add_stream("libx264", rate=self.fps, options={"crf": str(crf), "preset": "veryfast", "bf": "0"})
            self._stream.width, self._stream.height = self.size
            self._stream.pix_fmt = "yuv444p" if odd else "yuv420p"
            context = self._stream.codec_context
            context.gop_size = gop
            context.time_base = 1 / self.fps
            context.colorspace, context.color_range = 1, int(ColorRange.MPEG)
            context.color_primaries, context.color_trc = int(ColorPrimaries.BT709), int(ColorTrc.BT709)
            if audio_from is not None:
                self._sound = Sound.of(audio_from, audio_start)
            if self._sound is not None:
                self._sound.add_to(self._container)
        except (av.FFmpegError, OSError) as error:
            self._give_up()
            raise self._failed(error) from error
        except BaseException:
            self._give_up()
            raise

    def write(self, rgb: np.ndarray) -> None:
        """Append one (height, width, 3) uint8 RGB frame."""
        if rgb.shape != (self.size[1], self.size[0], 3) or rgb.dtype != np.uint8:
            raise ValueError(f"frame of {rgb.dtype} {rgb.shape} for a video of {self.size[0]} x {self.size[1]}")
        frame = self._converter.reformat(av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24"), format=self._stream.pix_fmt,
                                         src_color_range=ColorRange.JPEG, dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)
        frame.pts, frame.time_base = self._count, 1 / self.fps
        try:
            self._container.mux(self._stream.encode(frame))
            self._count += 1
            if self._sound is not None:
                self._sound.write_until(self._container, self._count / self.fps)
        except (av.FFmpegError, OSError) as error:
            self._give_up()
            raise self._failed(error) from error

    def close(self) -> None:
        """Finish the file and give it its name."""
        if self._container is None:
            return
        try:
            self._container.mux(self._stream.encode())
            if self._sound is not None:
                self._sound.finish(self._container)
            container, self._container = self._container, None
            container.close()
            with open(self._part, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(self._part, self.path)
        except (av.FFmpegError, OSError) as error:
            self._give_up()
            raise self._failed(error) from error
        finally:
            if self._sound is not None:
                self._sound.close()

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(self, kind, *_) -> None:
        if kind is None:
            self.close()
        else:
            self._give_up()

    def _give_up(self) -> None:
        container, self._container = self._container, None
        if container is not None:
            try:
                container.close()
            except (av.FFmpegError, OSError):
                pass  # the first error is the one to report
        if self._sound is not None:
            self._sound.close()
        if self._part.exists():
            self._part.unlink()

    def _failed(self, error: Exception) -> Body4DError:
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        if full:
            return Body4DError(f"{self.path} could not be written: the disk is full.", "Free some space, or choose another folder, and run again.", "disk_full")
        return Body4DError(f"{self.path} could not be written: {getattr(error, 'strerror', None) or error}.",
                           "Check that the folder exists and may be written to.", "write_failed")


def write_proxy(clip, path, crf: int = 18) -> Iterator[Progress]:
    """Write the whole clip as an upright constant-rate mp4 in which frame i is clip frame i, with its sound.

    A key frame at least every 12 frames, so that scrubbing is quick. Yields Progress("proxy", ...).
    """
    with VideoWriter(path, clip.width, clip.height, clip.fps, audio_from=Sound.whole(clip), crf=crf, gop=PROXY_GOP) as writer:
        for frame, rgb in clip.iterate(range(clip.frame_count)):
            writer.write(rgb)
            if (frame + 1) % _REPORT_EVERY == 0 or frame + 1 == clip.frame_count:
                yield Progress("proxy", frame + 1, clip.frame_count)
