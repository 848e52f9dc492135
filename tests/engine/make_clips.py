# SPDX-License-Identifier: Apache-2.0
"""Small test clips whose every picture carries its own number, in every shape a camera or a converter may leave them.

The number is a 12-bit code drawn as a 4 x 4 grid of light and dark cells, so it survives compression, scaling and
colour conversion, and a turned or mirrored picture reads as None. `read_counter` needs only numpy, so that a test
inside Blender can use it; everything else needs PyAV.
"""

from fractions import Fraction
from pathlib import Path

import numpy as np

LIGHT, DARK = 220, 30


def counter_picture(number: int, width: int, height: int) -> np.ndarray:
    """(height, width, 3) uint8 RGB picture carrying `number` (0..4095) over the whole area."""
    bits = [1] + [(number >> b) & 1 for b in range(11)] + [(number >> 11) & 1, 1, 0, 0]
    rows = np.minimum(np.arange(height) * 4 // height, 3)
    columns = np.minimum(np.arange(width) * 4 // width, 3)
    cells = np.where(np.array(bits, bool).reshape(4, 4), LIGHT, DARK).astype(np.uint8)
    return np.repeat(cells[rows][:, columns, None], 3, axis=2)


def read_counter(picture: np.ndarray) -> int | None:
    """The number a (H, W, 3) picture of 0..255 carries, or None where the picture is turned, mirrored or not ours."""
    height, width = picture.shape[:2]
    rows = [int((r + 0.5) * height / 4) for r in range(4)]
    columns = [int((c + 0.5) * width / 4) for c in range(4)]
    bits = (np.asarray(picture, float)[rows][:, columns].mean(axis=2) > (LIGHT + DARK) / 2).astype(int).ravel()
    if tuple(bits[[0, 13, 14, 15]]) != (1, 1, 0, 0):
        return None
    return int(sum(bit << b for b, bit in enumerate(bits[1:13])))


def make_clip(path, count=24, size=(64, 48), fps=Fraction(30), codec="libx264", pix_fmt="yuv420p", gop=12, bframes=2,
              options=None, rotate=None, sample_aspect=None, times=None, time_base=None, first_pts=0, picture=counter_picture,
              sound=False, sound_codec="aac", tone_from=0.0, metadata=None, container_options=None, colorspace=None, color_range=None,
              format=None) -> Path:
    """Write a clip of `count` counter pictures and return its path.

    times: presentation times in ticks of `time_base`, one per picture, for variable frame rate. rotate: counter-clockwise
    degrees of the display matrix, or (degrees, mirrored). sample_aspect: Fraction. tone_from: seconds of silence before the
    tone. picture(number, width, height) -> RGB array or av.VideoFrame.
    """
    import av

    path = Path(path)
    fps = Fraction(fps)
    time_base = Fraction(time_base) if time_base else 1 / fps
    with av.open(str(path), "w", format=format, options=container_options or {}) as container:
        container.metadata.update(metadata or {})
        stream = container.add_stream(codec, rate=fps, options={k: str(v) for k, v in (options or {}).items()})
        stream.width, stream.height, stream.pix_fmt = size[0], size[1], pix_fmt
        stream.codec_context.time_base = time_base
        stream.time_base = time_base
        stream.codec_context.gop_size = gop
        if codec in ("libx264", "mpeg4", "mpeg2video", "libx265"):
            stream.codec_context.max_b_frames = bframes
        if sample_aspect:
            stream.codec_context.sample_aspect_ratio = sample_aspect
        if rotate:
            degrees, mirrored = rotate if isinstance(rotate, tuple) else (rotate, False)
            stream.set_display_rotation(degrees, hflip=mirrored)
        if colorspace is not None:
            stream.codec_context.colorspace = colorspace
        if color_range is not None:
            stream.codec_context.color_range = color_range
        tone = None
        if sound:
            tone = container.add_stream(sound_codec, rate=48000, layout="mono")
        for index in range(count):
            image = picture(index, *size)
            frame = image if isinstance(image, av.VideoFrame) else av.VideoFrame.from_ndarray(image, format="rgb24")
            if frame.format.name != pix_fmt or colorspace is not None:
                frame = frame.reformat(format=pix_fmt, dst_colorspace=colorspace, dst_color_range=color_range)
            frame.pts = first_pts + (times[index] if times is not None else index)
            frame.time_base = time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if tone is not None:
            _write_tone(container, tone, count / fps, tone_from)
    return path


def _write_tone(container, stream, seconds, tone_from) -> None:
    """A 440 Hz tone as long as the pictures, after `tone_from` seconds of silence."""
    import av

    rate, block = 48000, 960
    time = np.arange(int(rate * seconds)) / rate
    wave = np.where(time >= tone_from, 0.3 * np.sin(2 * np.pi * 440 * time), 0).astype(np.float32)
    for start in range(0, len(wave), block):
        frame = av.AudioFrame.from_ndarray(wave[None, start:start + block], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def truncate(source, target, keep: float) -> Path:
    """Copy the first `keep` (0..1) of a file's bytes."""
    data = Path(source).read_bytes()
    Path(target).write_bytes(data[:int(len(data) * keep)])
    return Path(target)


def damage_packets(source, target, indices) -> Path:
    """Copy a clip with the payload of the given packets (decoding order) overwritten by noise."""
    import av

    data = bytearray(Path(source).read_bytes())
    with av.open(str(source)) as container:
        for number, packet in enumerate(container.demux(container.streams.video[0])):
            if number in indices and packet.size:
                noise = np.random.default_rng(number).integers(0, 256, packet.size, dtype=np.uint8).tobytes()
                data[packet.pos:packet.pos + packet.size] = noise
    Path(target).write_bytes(bytes(data))
    return Path(target)


def turned(degrees_clockwise: int, mirrored: bool = False):
    """Counter pictures as a camera held at an angle stores them; upright after a clockwise turn (and a mirroring)."""
    def picture(number: int, width: int, height: int) -> np.ndarray:
        upright = counter_picture(number, *((height, width) if degrees_clockwise % 180 else (width, height)))
        if mirrored:
            upright = upright[:, ::-1]
        return np.ascontiguousarray(np.rot90(upright, degrees_clockwise // 90))
    return picture


UNEVEN = [0, 1, 2, 3, 6, 7, 8, 10, 14, 15, 16, 17]  # frames at which the pictures of a variable-rate clip begin
NTSC = Fraction(30000, 1001)

# name -> arguments of make_clip. What Blender shows frame for frame, and what it does not.
CATALOGUE = {
    "plain.mp4": {"sound": True, "fps": NTSC},
    "b_frames.mov": {"gop": 24, "bframes": 3},
    "open_gop.mp4": {"count": 48, "options": {"x264-params": "open-gop=1:keyint=12:bframes=3"}},
    "open_gop_hevc.mp4": {"codec": "libx265", "count": 36, "options": {"x265-params": "open-gop=1:keyint=12:bframes=4:log-level=0"}},
    "ten_bit.mp4": {"codec": "libx265", "pix_fmt": "yuv420p10le", "options": {"x265-params": "log-level=0"}},
    "odd.mp4": {"size": (63, 47), "pix_fmt": "yuv444p"},
    "interlaced.mp4": {"options": {"x264-params": "interlaced=1"}},
    "prores_alpha.mov": {"codec": "prores_ks", "pix_fmt": "yuva444p10le"},
    "milliseconds.mkv": {"fps": NTSC, "count": 100},
    "sound_is_longer.mkv": {"fps": NTSC, "sound": True},
    "opus.mkv": {"sound": True, "sound_codec": "libopus", "count": 60},
    "vp9.webm": {"codec": "libvpx-vp9"},
    "vp8.webm": {"codec": "libvpx", "count": 60, "options": {"auto-alt-ref": 1, "lag-in-frames": 16, "crf": 20}},
    "mpeg4.avi": {"codec": "mpeg4", "bframes": 0},
    "mjpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p", "sound": True, "sound_codec": "pcm_s16le", "count": 60},
    "reordered.avi": {},
    "reordered_mpeg4.avi": {"codec": "mpeg4"},
    "turned_90.mp4": {"rotate": -90, "picture": turned(90)},
    "turned_180.mov": {"rotate": 180, "picture": turned(180)},
    "turned_270.mkv": {"rotate": 90, "picture": turned(270)},
    "wide_pixels.mp4": {"sample_aspect": Fraction(4, 3)},
    "tall_pixels.mkv": {"sample_aspect": Fraction(2, 3)},
    "variable.mp4": {"times": UNEVEN, "count": len(UNEVEN)},
    "variable.mkv": {"times": UNEVEN, "count": len(UNEVEN)},
    "starts_late.mp4": {"first_pts": 10},
    "edit_list.mp4": {"first_pts": -5},
    "fragmented.mp4": {"container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "broadcast.ts": {},
}


def make_catalogue(folder) -> dict[str, Path]:
    """Every clip of the catalogue, and damaged ones, in `folder`."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    made = {name: make_clip(folder / name, **arguments) for name, arguments in CATALOGUE.items()}
    made["damaged.mp4"] = damage_packets(made["plain.mp4"], folder / "damaged.mp4", [6])
    made["cut_off.mkv"] = truncate(made["milliseconds.mkv"], folder / "cut_off.mkv", 0.6)
    return made


def describe_for_blender(folder) -> None:
    """Make the catalogue and a proxy of each clip, and write down in clips.json what the engine sees in them."""
    import json

    from body4d_engine.clip import open_clip
    from body4d_engine.video import write_proxy

    entries = []
    for name, path in make_catalogue(folder).items():
        with open_clip(path) as clip:
            proxy = path.with_name(name.replace(".", "_") + ".proxy.mp4")
            for _ in write_proxy(clip, proxy):
                pass
            entries.append({"clip": str(path), "proxy": str(proxy), "size": [clip.width, clip.height], "fps": [clip.fps.numerator, clip.fps.denominator],
                            "counters": [read_counter(rgb) for _, rgb in clip.iterate(range(clip.frame_count))],
                            "blender_reasons": clip.facts.blender_reasons})
    (Path(folder) / "clips.json").write_text(json.dumps(entries))


if __name__ == "__main__":
    import sys

    describe_for_blender(sys.argv[1])
