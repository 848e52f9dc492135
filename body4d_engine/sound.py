# SPDX-License-Identifier: Apache-2.0
"""The sound of one file carried over into another, in step with its pictures."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from .footage import open_media

_COPIED = {"aac", "mp3"}  # codecs an mp4 holds and every reader of it knows


class Sound:
    """One audio stream from `start` seconds on (in the file's own clock), written packet by packet beside the pictures.

    AAC and MP3 are copied; anything else becomes AAC. A copied stream can only begin with a whole packet, so its first
    sound is heard up to one packet (about 25 ms) after the cut, in step all the same.
    """

    def __init__(self, path: Path, start: float):
        self._start = Fraction(start).limit_denominator(1_000_000)
        self._source = open_media(path)
        self._stream = next((s for s in self._source.streams.audio if s.codec_context is not None), None)
        self._pending: av.Packet | None = None
        self._packets: Iterator[av.Packet] = iter(())

    @classmethod
    def of(cls, source, start: float = 0.0) -> "Sound | None":
        """From a Clip (from its first frame in use) or a path; None where there is no sound that can be read."""
        if hasattr(source, "frames"):
            if not source.facts.has_audio:
                return None
            source, start = source.path, source.start_seconds + float(source.frames.start / source.fps)
        elif isinstance(source, cls):
            return source
        sound = cls(Path(source), start)
        if sound._stream is None:
            sound.close()
            return None
        return sound

    @classmethod
    def whole(cls, clip) -> "Sound | None":
        """From the first frame of the clip, whatever frames are in use."""
        return cls.of(clip.path, clip.start_seconds) if clip.facts.has_audio else None

    def add_to(self, container) -> None:
        """Make a stream for it in an output container, before anything is written there."""
        if self._stream.codec_context.name.split("_")[0].removesuffix("float") in _COPIED:
            self._output = container.add_stream_from_template(self._stream)
            self._packets = self._copied()
        else:
            rate = self._stream.codec_context.sample_rate
            rate = rate if rate in (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 96000) else 48000
            layout = "mono" if self._stream.codec_context.layout.nb_channels == 1 else "stereo"
            self._output = container.add_stream("aac", rate=rate, layout=layout)
            self._packets = self._encoded(rate, layout)

    def write_until(self, container, seconds: Fraction) -> None:
        """Write the packets that begin before `seconds` of the output."""
        while True:
            packet = self._pending or next(self._packets, None)
            self._pending = None
            if packet is None:
                return
            if packet.pts is not None and packet.pts * packet.time_base >= seconds:
                self._pending = packet
                return
            packet.stream = self._output
            container.mux(packet)

    def finish(self, container) -> None:
        """Nothing of the sound outlasts the pictures; what began before their end is already written."""
        self._packets, self._pending = iter(()), None

    def close(self) -> None:
        self._packets, self._pending = iter(()), None
        self._source.close()

    def _read(self) -> Iterator[av.Packet]:
        """Packets from a little before the start; a source that breaks off has no more sound."""
        if self._start > 1:
            try:
                self._source.seek(int((self._start - 1) * av.time_base))
            except (av.FFmpegError, OSError):
                self._source.seek(0)
        try:
            yield from self._source.demux(self._stream)
        except (av.FFmpegError, OSError):
            return

    def _copied(self) -> Iterator[av.Packet]:
        for packet in self._read():
            if not packet.size or packet.pts is None:
                continue
            packet.pts = packet.dts = packet.pts - round(self._start / packet.time_base)
            if packet.pts >= 0:
                yield packet

    def _encoded(self, rate: int, layout: str) -> Iterator[av.Packet]:
        resampler = av.AudioResampler(format="fltp", layout=layout, rate=rate)
        encoder = self._output
        written = 0
        for frame in self._decoded():
            for part in resampler.resample(frame):
                at = round((part.pts * part.time_base - self._start) * rate) if part.pts is not None else written
                samples = part.to_ndarray()
                if at > written:  # a hole in the source stays silent
                    yield from self._silence(encoder, layout, rate, written, at - written)
                    written = at
                samples = samples[:, max(0, written - at):]
                if samples.shape[1]:
                    yield from encoder.encode(_audio_frame(samples, layout, rate, written))
                    written += samples.shape[1]
        yield from encoder.encode(None)

    def _silence(self, encoder, layout, rate, at, length) -> Iterator[av.Packet]:
        channels = 1 if layout == "mono" else 2
        for start in range(at, at + length, rate):
            block = np.zeros((channels, min(rate, at + length - start)), np.float32)
            yield from encoder.encode(_audio_frame(block, layout, rate, start))

    def _decoded(self) -> Iterator[av.AudioFrame]:
        for packet in self._read():
            try:
                frames = packet.decode()
            except (av.FFmpegError, OSError):
                continue  # a damaged packet of sound is silence
            yield from frames


def _audio_frame(samples, layout: str, rate: int, pts: int) -> av.AudioFrame:
    """Planar float samples (channels, n) as a frame that starts `pts` samples into the output."""
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=layout)
    frame.sample_rate, frame.pts, frame.time_base = rate, pts, Fraction(1, rate)
    return frame
