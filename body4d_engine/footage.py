# SPDX-License-Identifier: Apache-2.0
"""Any picture of a video file, by number, in any order: an index of its packets and a decoder that is never rewound in vain."""

from collections import OrderedDict
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from .errors import Body4DError

# What FFmpeg would "play" but nobody means by a video: text, single images, raw samples.
_NOT_VIDEO = {"tty", "image2", "rawvideo", "data", "ico", "lrc", "srt", "ass", "webvtt"}
# These hold decoding times only; what FFmpeg offers as presentation times is made up.
_UNTIMED = {"avi", "h264", "hevc", "m4v", "mpegvideo"}
_CACHE_BYTES = 96 << 20
_WORTH_A_SEEK = 32
_WAITING = 128  # more pictures than any decoder holds back


# A title in some old encoding must not keep a film from being opened; from 19 on PyAV sees to that itself.
_TOLERANT = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}


def open_media(path: Path):
    """An av input container."""
    return av.open(str(path), **_TOLERANT)


class Footage:
    """The pictures of one video stream in presentation order, numbered from 0.

    times: (P,) int64 presentation times in ticks of `time_base` seconds. damaged: what is wrong with the file, in words.
    untimed: the container holds no presentation times for reordered pictures (AVI). missing: numbers of the pictures found
    undecodable so far, each shown as the one before it (or, before the first good one, as the first good one).
    """

    def __init__(self, path: Path):
        self.path = path
        self.damaged: list[str] = []
        self.missing: set[int] = set()
        self._run: Iterator[tuple[int, av.VideoFrame]] | None = None
        self._open()
        self.time_base = Fraction(self.stream.time_base)
        try:
            self._index()
        except BaseException:
            self.close()
            raise
        frame_bytes = max(1, self.stream.width * self.stream.height * 3 // 2)
        self._keep = int(np.clip(_CACHE_BYTES // frame_bytes, 6, 64))
        self._cache: OrderedDict[int, av.VideoFrame] = OrderedDict()
        self._bad_keys: set[int] = set()

    def close(self) -> None:
        self._run = None
        self.container.close()

    def __len__(self) -> int:
        return len(self.times)

    def suspect(self) -> set[int]:
        """Pictures that could be decoded but may build on a missing one: those stored behind it up to the next key frame."""
        first_missing: dict[int, int] = {}
        for number in self.missing:
            group = int(self._group[number])
            first_missing[group] = min(first_missing.get(group, len(self._number_of_packet)), int(self._positions[number]))
        found: set[int] = set()
        for group, position in first_missing.items():
            same = np.flatnonzero(self._group == group)
            found.update(same[self._positions[same] > position].tolist())
        return found - self.missing

    # opening

    def _open(self) -> None:
        try:
            self.container = container = open_media(self.path)
        except PermissionError as error:
            raise Body4DError(f"{self.path} may not be read.", "Check the permissions of the file.", "no_permission") from error
        except (av.FFmpegError, OSError, ValueError) as error:
            raise _unreadable(self.path, _reason(error)) from error
        pictures = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
        if container.format.name in _NOT_VIDEO or container.format.name.endswith("_pipe") or not pictures:
            sound = len(container.streams.audio)
            container.close()
            if sound:
                raise Body4DError(f"{self.path} holds sound but no picture.", "Give a video.", "no_video")
            raise _unreadable(self.path, "no stream of pictures")
        self.stream = pictures[0]
        if self.stream.codec_context is None:
            container.close()
            raise Body4DError(f"The video in {self.path} is stored in a codec that cannot be read here.",
                              "Convert it to H.264, for example with HandBrake or ffmpeg, and give the result.", "unreadable_codec")
        self.stream.thread_type = "AUTO"

    def _packets(self) -> Iterator[av.Packet]:
        """Packets with data, from where the container stands. A file that breaks off ends here, and says so in `damaged`."""
        try:
            for packet in self.container.demux(self.stream):
                if packet.size:
                    yield packet
        except (av.FFmpegError, OSError) as error:
            self._note_damage(f"reading stopped early ({_reason(error)})")

    def _note_damage(self, text: str) -> None:
        if text not in self.damaged:
            self.damaged.append(text)

    def _index(self) -> None:
        """Read every packet once (not its pixels): when each picture is shown, and from where it can be decoded."""
        entries = self._scan()
        self.untimed = self.container.format.name in _UNTIMED
        entries = [entry for entry in entries if entry[0] is not None]
        if not entries:
            raise Body4DError(f"{self.path} holds no pictures.", "The recording may have been interrupted; try another copy.", "no_frames")
        label = np.array([entry[0] for entry in entries], np.int64)
        is_key = np.array([entry[1] for entry in entries], bool)
        shown = np.array([entry[2] for entry in entries], bool)
        is_key[0] = True
        self._keys = np.flatnonzero(is_key)
        self._key_labels = label[self._keys]
        self._sorted_labels, self._packet_of_label = np.unique(label, return_index=True)
        positions = self._packet_of_label[shown[self._packet_of_label]]
        if len(positions) == 0:
            raise Body4DError(f"{self.path} holds no pictures to show.", "Its edit list leaves nothing; export it anew.", "no_frames")
        self.times = label[positions]
        self.last_duration = entries[positions[-1]][3]
        self.reordered = self.untimed and bool(self.stream.codec_context.has_b_frames)
        if self.reordered:
            positions = self._order_by_decoding(label, positions)
        number = np.full(len(label), -1)
        number[positions] = np.arange(len(positions))
        self._number_of_packet = number
        # A picture shown before its key frame but stored behind it (open group) needs the key frame before that one.
        group = np.searchsorted(self._keys, positions, side="right") - 1
        leading = (number[positions] < number[self._keys[group]]) & (group > 0)
        self._group = group - leading
        self._positions = positions
        self._note_truncation(len(entries))

    def _scan(self) -> list[tuple[int | None, bool, bool, int]]:
        """(presentation time, key, shown, duration) of every packet in the order of the file."""
        vp8 = self.stream.codec_context.name == "vp8"
        # A parser that meets noise no longer calls the packet a key frame; the table of an mp4 still does.
        table = ({entry.timestamp for entry in self.stream.index_entries if entry.is_keyframe}
                 if self.container.format.name.startswith("mov") else set())
        entries = []
        incomplete: list[bool] = []
        latest = None
        for packet in self._packets():
            if latest is not None and packet.dts is not None and packet.dts < latest:  # recordings put one behind the other
                self._note_damage(f"its clock starts anew after {len(entries)} pictures and what follows is left out; convert the file first to use it all")
                break
            latest = packet.dts if packet.dts is not None else latest
            if vp8 and not bytes(packet)[0] & 0x10:  # VP8 hides its alternate reference frames in packets of their own
                continue
            incomplete.append(packet.is_corrupt)
            entries.append((packet.pts, packet.is_keyframe or packet.dts in table, not packet.is_discard, packet.duration or 0))
        if any(incomplete):
            self._note_damage("packets are incomplete")
        while incomplete and incomplete.pop():  # cut off at the end of the file
            entries.pop()
        return entries

    def _order_by_decoding(self, label: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Packet positions in the order in which the decoder hands the pictures out: the only order such a file knows."""
        self._reopen()
        position_of = {int(label[p]): int(p) for p in positions}
        order = []
        for frame in _decode(self._packets()):
            position = position_of.pop(frame.pts, None)
            if position is not None:
                order.append(position)
        for position in sorted(position_of.values()):  # undecodable: they keep the place they have in the file
            order.insert(min(position, len(order)), position)
        return np.array(order)

    def _note_truncation(self, packets: int) -> None:
        stated, size = self.stream.frames, self.path.stat().st_size
        if stated > packets:
            self._note_damage(f"the file states {stated} pictures and holds {packets}")
            return
        if stated_bytes(self.path) > size:
            self._note_damage(f"the file is cut off: {stated_bytes(self.path)} bytes are stated, {size} are there")
            return
        seconds = stated_seconds(self.stream)
        if seconds is not None:
            held = float((self.times[-1] - self.times[0] + self.last_duration) * self.time_base)
            if seconds - held > 0.5 and not stated:
                self._note_damage(f"the file states {seconds:.1f} s of video and holds {held:.1f} s")

    # decoding

    def picture(self, number: int) -> av.VideoFrame:
        """The decoded picture, as stored. The last few decoded ones are kept, so going backwards costs one pass per batch."""
        if number in self._cache:
            self._cache.move_to_end(number)
            return self._cache[number]
        frame = self._decode_to(number)
        self._remember(number, frame)
        return frame

    def _remember(self, number: int, frame: av.VideoFrame) -> None:
        self._cache[number] = frame
        self._cache.move_to_end(number)
        while len(self._cache) > self._keep:
            self._cache.popitem(last=False)

    def _decode_to(self, number: int) -> av.VideoFrame:
        source = number
        while source >= 0 and int(self._keys[self._group[source]]) in self._bad_keys:
            source -= 1
        if source < 0:
            return self._first_good(number)
        if source < number:
            self.missing.update(range(source + 1, number + 1))
            return self.picture(source)
        group = int(self._group[number])
        key = int(self._keys[group])
        ahead = self._run is not None and self._last < number and key <= self._fed + _WORTH_A_SEEK
        if not ahead or any(self._fed < bad <= key for bad in self._bad_keys):
            self._start(group)
        bad_before = len(self._bad_keys)
        found = self._next_at_or_after(number)
        if found is not None and found[0] == number:
            return found[1]
        if len(self._bad_keys) > bad_before:  # now that it is known, decode again without running into it
            self._run = None
            return self.picture(number)
        if self._previous is not None:
            self.missing.update(range(self._previous[0] + 1, number + 1))
            return self._previous[1]
        if number == 0:
            return self._first_good(number)
        self.missing.add(number)
        return self.picture(number - 1)

    def _first_good(self, number: int) -> av.VideoFrame:
        """Before the first decodable picture there is nothing to repeat: show that one."""
        for group in range(len(self._keys)):
            self._start(group)
            found = self._next_at_or_after(0)
            if found is not None:
                self.missing.add(number)
                return found[1]
        self.close()
        raise Body4DError(f"No picture of {self.path} can be decoded.", "The file is damaged; try another copy.", "undecodable")

    def _start(self, group: int) -> None:
        self._run = self._pictures_from(group)
        self._previous: tuple[int, av.VideoFrame] | None = None
        self._waiting: tuple[int, av.VideoFrame] | None = None
        self._last = -1

    def _next_at_or_after(self, number: int) -> tuple[int, av.VideoFrame] | None:
        """Decode on until picture `number` or a later one comes out; None at the end of the run."""
        while True:
            if self._waiting is None and self._run is not None:
                self._waiting = next(self._run, None)
            if self._waiting is None:
                self._run = None
                return None
            self._last = min(self._waiting[0], number)
            if self._waiting[0] > number:
                return self._waiting
            self._previous, self._waiting = self._waiting, None
            self._remember(*self._previous)
            if self._previous[0] == number:
                return self._previous

    def _pictures_from(self, group: int) -> Iterator[tuple[int, av.VideoFrame]]:
        """(number, picture) in presentation order from a key frame on, until a key frame that cannot be decoded.

        What follows a bad key frame would be decoded against the wrong pictures, differently for every way of getting
        there; so a run ends in front of it and all that hangs on it counts as missing.
        """
        key = int(self._keys[group])
        first = int(self._number_of_packet[key])
        self._seek(group)
        last = first - 1 if first >= 0 else None
        came = False
        for frame in _decode(self._feed(key)):
            position = None if frame.pts is None or frame.is_corrupt else self._position(frame)
            number = -1 if position is None else int(self._number_of_packet[position])
            if number < 0 or (last is not None and number <= last):
                continue
            skipped = range(last + 1, number) if last is not None else ()
            bad = [int(k) for k in self._keys[self._group[list(skipped)]] if self._number_of_packet[k] in skipped] if skipped else []
            if bad:
                self._bad_keys.update(bad)
                return
            came, last = True, number
            yield number, frame
        if not came:
            self._bad_keys.add(key)

    def _feed(self, key: int) -> Iterator[av.Packet]:
        """Packets from that key frame on, up to the next one known to be bad."""
        self._fed = key
        started = False
        for packet in self._stream_packets:
            position = self._position(packet)
            started = started or position == key
            if not started:
                continue
            if position in self._bad_keys:
                return
            if position is not None:
                self._fed = position
            yield packet

    def _position(self, packet: av.Packet | av.VideoFrame) -> int | None:
        """Where in the file's order this packet, or the packet of this picture, stands."""
        if packet.pts is None:
            return None
        at = int(np.searchsorted(self._sorted_labels, packet.pts))
        if at < len(self._sorted_labels) and self._sorted_labels[at] == packet.pts:
            return int(self._packet_of_label[at])
        return None

    def _seek(self, group: int) -> None:
        """Stand at or before the packet of a key frame, with an empty decoder. Containers seek by clocks and tables of
        their own, so where they land is checked; what cannot be reached is reached from the start of the file."""
        wanted = int(self._keys[group])
        for attempt in range(group, max(group - 3, -1), -1):
            try:
                self.container.seek(int(self._key_labels[attempt]), stream=self.stream)
            except (av.FFmpegError, OSError):
                break
            packets = self._packets()
            for packet in packets:
                position = self._position(packet)
                if position is not None:
                    if position <= wanted:
                        self._stream_packets = _chain(packet, packets)
                        return
                    break
        self._reopen()
        self._stream_packets = self._packets()

    def _reopen(self) -> None:
        self.container.close()
        self._open()


def _chain(first: av.Packet, rest: Iterator[av.Packet]) -> Iterator[av.Packet]:
    yield first
    yield from rest


def _decode(packets: Iterator[av.Packet]) -> Iterator[av.VideoFrame]:
    """Decode packets and drain the decoder; a packet that cannot be decoded yields nothing."""
    context = None
    for packet in packets:
        context = packet.stream.codec_context
        try:
            frames = packet.decode()
        except (av.FFmpegError, OSError):
            continue
        yield from frames
    for _ in range(_WAITING if context is not None else 0):  # some decoders fail in the same way for ever
        try:
            yield from context.decode(None)
        except EOFError:
            return
        except (av.FFmpegError, OSError):
            continue
        return


def stated_seconds(stream) -> float | None:
    """How long the container says this stream is, if it says."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    text = next((value for key, value in stream.metadata.items() if key.upper().startswith("DURATION")), None)
    if text:
        try:
            hours, minutes, seconds = text.split(":")
            return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
        except ValueError:
            return None
    return None


def stated_bytes(path: Path) -> int:
    """The size a RIFF (avi) or Matroska file says it has; 0 where it does not say."""
    with open(path, "rb") as file:
        head = file.read(4096)
    if head[:4] == b"RIFF":
        return int.from_bytes(head[4:8], "little") + 8
    at = head.find(b"\x18\x53\x80\x67")  # Segment
    if head[:4] == b"\x1a\x45\xdf\xa3" and at > 0 and len(head) > at + 12:
        length = 9 - head[at + 4].bit_length()
        value = int.from_bytes(head[at + 4:at + 4 + length], "big") & ((1 << 7 * length) - 1)
        unknown = value == (1 << 7 * length) - 1
        return 0 if unknown else at + 4 + length + value
    return 0


def _unreadable(path: Path, reason: str) -> Body4DError:
    with open(path, "rb") as file:
        head = file.read(12)
    if not head:
        return Body4DError(f"{path} is empty.", "Copy it again from the camera.", "no_frames")
    if head[4:8] in (b"ftyp", b"mdat", b"moov", b"wide", b"free") or head[:4] == b"\x1a\x45\xdf\xa3" or head[8:12] == b"AVI ":
        return Body4DError(f"No picture can be found in {path}: it holds none, or its index is missing or cut off ({reason}).",
                           "The recording was interrupted or the copy is incomplete: copy it again, or repair it with a tool such as untrunc.",
                           "damaged_file")
    return Body4DError(f"{path} is not a video.", "Give an mp4, mov, mkv, webm or avi file, or a folder of images.", "not_a_video")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
