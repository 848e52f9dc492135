#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Thirty-odd clips as cameras, phones, converters and accidents leave them, and what each gets from the engine.

    python scripts/setup_env.py python scripts/corpus.py [--out DIR] [--only NAME...] [--markdown FILE]

Makes each clip from the demo clip (two people), runs `body4d run` on it in a process of its own, and prints a table: the frames and people
found and the notes given, or the reason for which it is refused. Ends with 1 where a clip is not treated as written here, or where a process
ends in any way but "done" or "refused with a reason".
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import setup_env
from av.video.reformatter import ColorPrimaries, ColorTrc

from body4d_engine.clip import open_clip

FRAMES = 40
SIZE = (640, 360)
MOST_SECONDS = 600


class Material:
    """Pictures of people to make clips of: frames of the demo clip, read once per size."""

    def __init__(self, video: Path):
        self.clip, self._read = open_clip(video), {}

    def pictures(self, count: int = FRAMES, size=SIZE, start: int = 20, step: int = 1) -> list[np.ndarray]:
        """`count` RGB pictures (h, w, 3) uint8 of that size."""
        key = (count, size, start, step)
        if key not in self._read:
            frames = range(start, start + count * step, step)
            self._read = {key: [cv2.resize(rgb, size, interpolation=cv2.INTER_AREA) for _, rgb in self.clip.iterate(frames)]}
        return self._read[key]


def encode(path: Path, pictures, fps=Fraction(30), codec="libx264", pix_fmt="yuv420p", options=None, times=None, time_base=None, rotate=None,
           aspect=None, interlaced=False, colour=None, container=None, format=None, sound_s=0.0, stated=None) -> Path:
    """Write pictures (RGB or RGBA arrays, uint8 or uint16) to a file.

    times: presentation times in ticks of `time_base`. rotate: counter-clockwise degrees of the display matrix, or (degrees, mirrored).
    colour: (transfer, primaries, matrix) tags. sound_s: seconds of a tone.
    """
    height, width = pictures[0].shape[:2]
    time_base = time_base or 1 / Fraction(fps)
    with av.open(str(path), "w", format=format, options=container or {}) as out:
        stream = out.add_stream(codec, rate=fps, options=options or {})
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.codec_context.time_base = stream.time_base = time_base
        stream.codec_context.gop_size = 12
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        if rotate is not None:
            degrees, mirrored = rotate if isinstance(rotate, tuple) else (rotate, False)
            stream.set_display_rotation(degrees, hflip=mirrored)
        if colour:
            stream.codec_context.color_trc, stream.codec_context.color_primaries, stream.codec_context.colorspace = colour
        tone = out.add_stream("aac", rate=48000, layout="mono") if sound_s else None
        for index, picture in enumerate(pictures):
            deep = picture.dtype == np.uint16
            kind = ("rgba64le" if deep else "rgba") if picture.shape[2] == 4 else ("rgb48le" if deep else "rgb24")
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format=kind).reformat(format=pix_fmt)
            frame.pts, frame.time_base = (times[index] if times is not None else index), time_base
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
        if tone is not None:
            write_tone(out, tone, sound_s)
    return path


def write_tone(container, stream, seconds: float) -> None:
    wave = (0.2 * np.sin(2 * np.pi * 440 * np.arange(int(48000 * seconds)) / 48000)).astype(np.float32)
    for start in range(0, len(wave), 1024):
        frame = av.AudioFrame.from_ndarray(wave[None, start : start + 1024], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def woven(pictures) -> list[np.ndarray]:
    """Pictures of two moments each: even lines of one, odd lines of the next."""
    out = [first.copy() for first in pictures[:-1:2]]
    for picture, second in zip(out, pictures[1::2]):
        picture[1::2] = second[1::2]
    return out


def images(folder: Path, pictures, names, suffix: str = ".png") -> Path:
    folder.mkdir()
    for name, picture in zip(names, pictures):
        (folder / f"{name}{suffix}").write_bytes(cv2.imencode(suffix, picture[..., ::-1])[1].tobytes())
    return folder


def damaged(path: Path, source: Path, packets) -> Path:
    """The file with the payload of some packets overwritten by noise."""
    data = bytearray(source.read_bytes())
    with av.open(str(source)) as container:
        for number, packet in enumerate(container.demux(container.streams.video[0])):
            if number in packets and packet.size:
                data[packet.pos : packet.pos + packet.size] = np.random.default_rng(number).integers(0, 256, packet.size, dtype=np.uint8).tobytes()
    path.write_bytes(bytes(data))
    return path


def kept(path: Path, source: Path, share: float) -> Path:
    """The first part of a file."""
    path.write_bytes(source.read_bytes()[: int(source.stat().st_size * share)])
    return path


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def sound_only(path: Path) -> Path:
    with av.open(str(path), "w", format="ipod") as container:
        write_tone(container, container.add_stream("aac", rate=48000, layout="mono"), 2)
    return path


def wrong_duration(path: Path, source: Path) -> Path:
    """An mp4 whose header states a hundred times its duration."""
    data = bytearray(source.read_bytes())
    for box in (b"mvhd", b"mdhd", b"tkhd"):
        at = data.index(box) + 4
        field = at + (20 if box == b"tkhd" else 16)
        data[field : field + 4] = (min(int.from_bytes(data[field : field + 4], "big") * 100, 2**32 - 1)).to_bytes(4, "big")
    return written(path, bytes(data))


def joined(path: Path, *sources: Path) -> Path:
    return written(path, b"".join(source.read_bytes() for source in sources))


def phone_times(count: int) -> list[int]:
    """Milliseconds at which a phone took its pictures: 30 a second, each up to 6 ms early or late, and two that it dropped."""
    slots = np.arange(count + 2)
    slots = slots[(slots != count // 3) & (slots != count // 2)]
    return (slots * 100 // 3 + np.random.default_rng(7).integers(-6, 7, count) + 6).tolist()


def dim_times(count: int) -> list[int]:
    """Milliseconds of a phone in a dark room, whose exposure, and so its rate, wanders between 20 and 30 pictures a second."""
    return np.cumsum(np.linspace(33, 50, count).astype(int)).tolist()


PQ = (int(ColorTrc.SMPTE2084), int(ColorPrimaries.BT2020), 9)
HLG = (int(ColorTrc.ARIB_STD_B67), int(ColorPrimaries.BT2020), 9)
QUIET = {"x265-params": "log-level=0"}


@dataclass(frozen=True)
class Case:
    """One clip. make(folder, material) -> path. expected: "people" or the code of the refusal. options: for `body4d run`."""

    name: str
    what: str
    expected: str
    make: Callable
    options: tuple[str, ...] = ()


def case(name, what, expected, make, *options) -> Case:
    return Case(name, what, expected, make, options)


def plain(folder: Path, m: Material, suffix=".mp4", **arguments) -> Path:
    return encode(folder / f"source{suffix}", m.pictures(), **arguments)


CASES = (
    case("phone.mp4", "variable frame rate, two pictures dropped", "people",
         lambda d, m: encode(d / "phone.mp4", m.pictures(), times=phone_times(FRAMES), time_base=Fraction(1, 1000))),
    case("dim phone.mp4", "frame rate that wanders from 30 to 20", "people",
         lambda d, m: encode(d / "dim phone.mp4", m.pictures(), times=dim_times(FRAMES), time_base=Fraction(1, 1000))),
    case("turned 90.mp4", "rotation metadata 90 degrees", "people",
         lambda d, m: encode(d / "turned 90.mp4", [np.rot90(p) for p in m.pictures()], rotate=-90)),
    case("turned 180.mov", "rotation metadata 180 degrees", "people",
         lambda d, m: encode(d / "turned 180.mov", [p[::-1, ::-1] for p in m.pictures()], rotate=180)),
    case("mirrored.mp4", "selfie camera: mirrored by metadata", "people",
         lambda d, m: encode(d / "mirrored.mp4", [p[:, ::-1] for p in m.pictures()], rotate=(0, True))),
    case("interlaced.mpg", "interlaced MPEG-2, fields of two moments", "people",
         lambda d, m: encode(d / "interlaced.mpg", woven(m.pictures(2 * FRAMES, (720, 404))), Fraction(25), "mpeg2video",
                             options={"flags": "+ildct+ilme", "b": "6M"})),
    case("hdr10.mp4", "10-bit HEVC, PQ, BT.2020", "people",
         lambda d, m: encode(d / "hdr10.mp4", pq(m.pictures()), codec="libx265", pix_fmt="yuv420p10le", colour=PQ, options=QUIET)),
    case("hlg.mov", "10-bit HEVC, HLG, BT.2020", "people",
         lambda d, m: encode(d / "hlg.mov", m.pictures(), codec="libx265", pix_fmt="yuv420p10le", colour=HLG, options=QUIET)),
    case("alpha.mov", "ProRes 4444 with transparency", "people",
         lambda d, m: encode(d / "alpha.mov", [np.dstack([p, np.full(p.shape[:2], 255, np.uint8)]) for p in m.pictures()], codec="prores_ks",
                             pix_fmt="yuva444p10le")),
    case("one frame.mp4", "a single picture", "people", lambda d, m: encode(d / "one frame.mp4", m.pictures()[:1])),
    case("three frames.mp4", "three pictures", "people", lambda d, m: encode(d / "three frames.mp4", m.pictures()[:3])),
    case("2x2.mp4", "2 x 2 pixels", "nobody_found",
         lambda d, m: encode(d / "2x2.mp4", [cv2.resize(p, (2, 2)) for p in m.pictures()])),
    case("8k.mp4", "7680 x 4320 pixels", "people", lambda d, m: encode(d / "8k.mp4", [cv2.resize(p, (7680, 4320)) for p in m.pictures()[:6]],
                                                                       options={"preset": "ultrafast"})),
    case("damaged.mp4", "noise in three packets", "people", lambda d, m: damaged(d / "damaged.mp4", plain(d, m), (5, 17, 30))),
    case("damaged key.mp4", "noise in the second key picture", "people", lambda d, m: damaged(d / "damaged key.mp4", plain(d, m), (12,))),
    case("cut off.mkv", "the last 40 % of the file are missing", "people", lambda d, m: kept(d / "cut off.mkv", plain(d, m, ".mkv"), 0.6)),
    case("cut off.mp4", "a recording that was never closed: no index", "damaged_file", lambda d, m: kept(d / "cut off.mp4", plain(d, m), 0.6)),
    case("wrong duration.mp4", "the header states 100 times the duration", "people",
         lambda d, m: wrong_duration(d / "wrong duration.mp4", plain(d, m))),
    case("song.m4a", "sound only", "no_video", lambda d, m: sound_only(d / "song.m4a")),
    case("long sound.mp4", "sound five times as long as the pictures", "people",
         lambda d, m: encode(d / "long sound.mp4", m.pictures(), sound_s=6.5)),
    case("gaps", "folder of PNG whose numbering has gaps and no zeros in front", "people",
         lambda d, m: images(d / "gaps", m.pictures(), [f"shot_{n}" for n in range(5, 60) if n not in (9, 10, 30, 31, 32)])),
    case("mixed sizes", "folder of JPEG of two sizes", "mixed_sizes",
         lambda d, m: images(d / "mixed sizes", [*m.pictures()[:5], *m.pictures(5, (320, 180))], range(10), ".jpg")),
    case("broken image", "folder of PNG with an empty file in it", "unreadable_image",
         lambda d, m: written(images(d / "broken image", m.pictures(), range(FRAMES)) / "7.png", b"").parent),
    case("empty folder", "a folder without images", "no_images", lambda d, m: images(d / "empty folder", [], [])),
    case("Ünïcode – 動画 (1).mp4", "spaces, brackets and other alphabets in the name", "people",
         lambda d, m: encode(d / "Ünïcode – 動画 (1).mp4", m.pictures())),
    case("odd.mp4", "639 x 359 pixels", "people",
         lambda d, m: encode(d / "odd.mp4", [np.ascontiguousarray(p[:359, :639]) for p in m.pictures()], pix_fmt="yuv444p")),
    case("wide pixels.mp4", "anamorphic: pixels 4:3", "people",
         lambda d, m: encode(d / "wide pixels.mp4", m.pictures(size=(480, 360)), aspect=Fraction(4, 3))),
    case("grey.mp4", "black and white", "people", lambda d, m: encode(d / "grey.mp4", m.pictures(), pix_fmt="gray")),
    case("dark.mp4", "begins with a second of black", "people",
         lambda d, m: encode(d / "dark.mp4", [*[np.zeros_like(m.pictures()[0])] * 30, *m.pictures()])),
    case("slow motion.mp4", "240 frames per second", "people", lambda d, m: encode(d / "slow motion.mp4", m.pictures(2 * FRAMES), Fraction(240))),
    case("time lapse.mp4", "two frames per second", "people", lambda d, m: encode(d / "time lapse.mp4", m.pictures(12, step=15), Fraction(2))),
    case("ticks.mkv", "29.97 frames per second, times rounded to milliseconds", "people",
         lambda d, m: encode(d / "ticks.mkv", m.pictures(), Fraction(30000, 1001))),
    case("web.webm", "VP9 in WebM", "people", lambda d, m: encode(d / "web.webm", m.pictures(), codec="libvpx-vp9")),
    case("old.avi", "Motion JPEG in AVI", "people", lambda d, m: encode(d / "old.avi", m.pictures(), codec="mjpeg", pix_fmt="yuvj420p")),
    case("animated.gif", "GIF, 256 colours, 10 frames per second", "people",
         lambda d, m: encode(d / "animated.gif", m.pictures(14, step=3), Fraction(10), "gif", "rgb8")),
    case("joined.ts", "two recordings of different size put one behind the other", "people",
         lambda d, m: joined(d / "joined.ts", plain(d, m, ".ts"), encode(d / "b.ts", m.pictures(FRAMES, (480, 270), 60)))),
    case("negative times.mp4", "first picture before time 0 (edit list)", "people",
         lambda d, m: encode(d / "negative times.mp4", m.pictures(), times=range(-6, FRAMES - 6))),
    case("two shots.mp4", "a hard cut", "people",
         lambda d, m: encode(d / "two shots.mp4", [*m.pictures(), *[np.ascontiguousarray(p[40:320, 160:640][:, ::-1]) for p in map(zoomed, m.pictures())]])),
    case("nobody.mp4", "moving noise, nobody in it", "nobody_found",
         lambda d, m: encode(d / "nobody.mp4", [np.random.default_rng(i).integers(0, 255, (180, 320, 3), np.uint8) for i in range(20)])),
    case("text.mp4", "a text file called .mp4", "not_a_video", lambda d, m: written(d / "text.mp4", b"hello\n" * 100)),
    case("empty.mp4", "an empty file", "no_frames", lambda d, m: written(d / "empty.mp4", b"")),
    case("missing.mp4", "no such file", "no_such_file", lambda d, m: d / "missing.mp4"),
    case("range.mp4", "--start after the end", "bad_range", lambda d, m: encode(d / "range.mp4", m.pictures()[:10]), "--start", "500"),
)


def pq(pictures) -> list[np.ndarray]:
    """8-bit pictures as a PQ camera would store them: white at 203 nits (SMPTE ST 2084, ITU-R BT.2408)."""
    linear = (np.arange(256) / 255) ** 2.4 * 203 / 10000
    power = linear ** 0.1593017578125
    table = (((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375 * 65535 + 0.5).astype(np.uint16)
    return [table[picture] for picture in pictures]


def zoomed(picture: np.ndarray) -> np.ndarray:
    return cv2.resize(picture, (800, 450))[45:405, 80:720]


def counted(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def run_case(one: Case, folder: Path) -> dict:
    """Make the clip and run the engine on it; what came of it."""
    folder.mkdir(parents=True)
    # A process of its own makes the clip: a child's peak memory begins with what its parent holds.
    made = subprocess.run([sys.executable, __file__, "--make", one.name, "--out", str(folder)], check=True, stdout=subprocess.PIPE, encoding="utf-8")
    video = Path(made.stdout)
    summary = folder / "summary.json"
    start = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-m", "body4d_engine", "run", str(video), "--out", str(folder / "x.take"), "--summary-json",
                              str(summary), *one.options], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    said = child.stderr.read().decode("utf-8", "replace")
    _, status, usage = os.wait4(child.pid, 0)
    seconds, code = time.perf_counter() - start, os.waitstatus_to_exitcode(status)
    result = json.loads(summary.read_text(encoding="utf-8")) if summary.is_file() else {}
    row = {"case": one, "seconds": seconds, "peak": usage.ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)}
    if code == 0 and result.get("people"):
        frames = ", ".join(f"{person['visible']}" for person in result["people"])
        codes = sorted({notice["code"] for notice in result["notices"]} - {"scale_assumed"})
        rate = result["fps"][0] / result["fps"][1]
        return row | {"got": "people", "text": f"{counted(result['frames'], 'frame')} of {result['width']} x {result['height']} at {rate:.4g} per second, "
                      f"{counted(len(result['people']), 'person', 'people')} (seen in {frames})", "notes": codes}
    if code == 1 and "error" in result and result["error"]["code"] != "internal":
        error = result["error"]
        return row | {"got": error["code"], "text": error["message"].replace(str(folder), "...") + " " + error["hint"], "notes": []}
    return row | {"got": f"exit {code}", "text": said.strip().splitlines()[-1] if said.strip() else "", "notes": []}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="keep the clips and takes here")
    parser.add_argument("--only", nargs="+", default=[], help="clips whose name holds one of these")
    parser.add_argument("--make", help=argparse.SUPPRESS)
    parser.add_argument("--markdown", type=Path, help="write the table here too")
    arguments = parser.parse_args()
    if arguments.make:
        one = next(one for one in CASES if one.name == arguments.make)
        sys.stdout.buffer.write(str(one.make(arguments.out, Material(setup_env.demo_clip()))).encode())
        return 0
    setup_env.demo_clip()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        root = arguments.out or Path(scratch)
        for number, one in enumerate(CASES, 1):
            if arguments.only and not any(part in one.name for part in arguments.only):
                continue
            row = run_case(one, root / f"{number:02d}")
            rows.append(row)
            good = "" if row["got"] == one.expected else f"   <-- NOT AS EXPECTED ({one.expected})"
            print(f"{one.name:<26} {row['seconds']:6.1f} s {row['peak']:5.0f} MB  {row['text']}{'; ' if row['notes'] else ''}{', '.join(row['notes'])}{good}",
                  flush=True)
    if arguments.markdown:
        lines = ["| clip | what is odd | what it gets |", "|---|---|---|"]
        lines += [f"| {row['case'].name} | {row['case'].what} | {row['text']}{'; notes: ' if row['notes'] else ''}{', '.join(row['notes'])} |" for row in rows]
        arguments.markdown.write_text("\n".join(lines) + "\n", encoding="utf-8")
    wrong = [row["case"].name for row in rows if row["got"] != row["case"].expected]
    print(f"\n{len(rows) - len(wrong)} of {len(rows)} as expected" + (f"; not: {', '.join(wrong)}" if wrong else ""))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
