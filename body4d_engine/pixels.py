# SPDX-License-Identifier: Apache-2.0
"""A decoded picture becomes an upright RGB array with square pixels, whatever the camera wrote."""

from fractions import Fraction
from math import atan2, degrees

import av
import cv2
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation, VideoReformatter

# AVColorSpace values a file may be tagged with -> what swscale calls them.
_MATRICES = {1: Colorspace.ITU709, 4: Colorspace.FCC, 5: Colorspace.ITU601, 6: Colorspace.SMPTE170M, 7: Colorspace.SMPTE240M,
             9: Colorspace.BT2020, 10: Colorspace.BT2020}
_HIGH_DYNAMIC_RANGE = {int(ColorTrc.SMPTE2084), int(ColorTrc.ARIB_STD_B67)}
COMB_NOISE = 12  # of 255
IDENTITY_MATRIX = (65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)


def display_matrix(frame: av.VideoFrame) -> tuple[int, ...]:
    """The nine 16.16 numbers that place the stored picture on the screen; the identity where the file has none."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is not None:
        return tuple(int(n) for n in np.frombuffer(bytes(data), "<i4")[:9])
    return IDENTITY_MATRIX


class Upright:
    """How the stored pictures of one clip become what a viewer sees."""

    def __init__(self, stored_size: tuple[int, int], pixel_aspect: Fraction, matrix: tuple[int, ...] = IDENTITY_MATRIX):
        """stored_size: (width, height) px. pixel_aspect: width over height of one pixel. matrix: see `display_matrix`."""
        width, height = stored_size
        # Stretch the short side of the pixels, so that no detail is thrown away.
        self.square_size = ((max(1, round(width * pixel_aspect)), height) if pixel_aspect >= 1
                            else (width, max(1, round(height / pixel_aspect))))
        a, b, _, c, d = matrix[:5]
        self.swap = abs(b) + abs(c) > abs(a) + abs(d)
        self.flip_x, self.flip_y = (c < 0, b < 0) if self.swap else (a < 0, d < 0)
        self.mirrored = a * d - b * c < 0
        self.rotation_deg = round(degrees(atan2(b, a)) / 90) * 90 % 360
        if self.mirrored:
            self.rotation_deg = round(degrees(atan2(-c, d)) / 90) * 90 % 360
        self.size = self.square_size[::-1] if self.swap else self.square_size
        self._converter = VideoReformatter()

    @property
    def changes(self) -> bool:
        """Whether the upright picture is turned or mirrored with respect to the stored one."""
        return self.swap or self.flip_x or self.flip_y

    def rgb(self, frame: av.VideoFrame) -> np.ndarray:
        """(height, width, 3) uint8 RGB, contiguous and read-only. Transparent parts are laid over black.

        A file that does not say which matrix its colours use is read as players read it: BT.709 from 720 lines up,
        BT.601 below. High dynamic range (PQ, HLG) is mapped to an ordinary screen: its reference white becomes white.
        """
        has_alpha = any(component.is_alpha for component in frame.format.components)
        matrix = _MATRICES.get(frame.colorspace) or (Colorspace.ITU709 if frame.height >= 720 else Colorspace.ITU601)
        full_range = frame.color_range == 2 or frame.format.name.startswith("yuvj")
        colours = {}
        if frame.color_trc in _HIGH_DYNAMIC_RANGE:
            colours = {"dst_color_trc": ColorTrc.BT709, "dst_color_primaries": ColorPrimaries.BT709}
        if not frame.format.is_rgb:
            colours |= {"src_colorspace": matrix, "src_color_range": ColorRange.JPEG if full_range else ColorRange.MPEG,
                        "dst_color_range": ColorRange.JPEG}
        size = (frame.width, frame.height) if frame.interlaced_frame else self.square_size  # the lines of the fields must still be apart
        converted = self._converter.reformat(frame, *size, "rgba" if has_alpha else "rgb24", interpolation=Interpolation.BICUBIC, **colours)
        pixels = converted.to_ndarray()
        if has_alpha:
            pixels = over_black(pixels)
        if frame.interlaced_frame:
            pixels = deinterlaced(pixels)
            if size != self.square_size:
                pixels = cv2.resize(pixels, self.square_size, interpolation=cv2.INTER_CUBIC)
        return self.turn(pixels)

    def turn(self, pixels: np.ndarray) -> np.ndarray:
        """(H, W, 3) as stored, square pixels -> upright, contiguous, read-only."""
        if self.swap:
            pixels = pixels.transpose(1, 0, 2)
        if self.flip_x:
            pixels = pixels[:, ::-1]
        if self.flip_y:
            pixels = pixels[::-1]
        pixels = np.ascontiguousarray(pixels)
        pixels.flags.writeable = False
        return pixels


def deinterlaced(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 woven of two moments -> the moment of the even lines.

    Only what is combed changes: where a pixel of an odd line lies outside what is above and below by more than noise does, it becomes their mean.
    What stands still keeps all its lines.
    """
    if len(pixels) < 2:
        return pixels
    above, own = pixels[0:-1:2], pixels[1::2]
    below = np.concatenate([pixels[2::2], above[-1:]])[: len(own)]  # below the last line there is nothing
    mean = cv2.addWeighted(above, 0.5, below, 0.5, 0)
    teeth = cv2.subtract(cv2.absdiff(own, mean), cv2.addWeighted(cv2.absdiff(above, below), 0.5, np.zeros_like(mean), 0, COMB_NOISE)).max(2)
    combed = cv2.dilate((teeth > 0).astype(np.uint8), np.ones((3, 5), np.uint8)) > 0
    out = pixels.copy()
    out[1::2][combed] = mean[combed]
    return out


def over_black(rgba: np.ndarray) -> np.ndarray:
    """(H, W, 4) uint8 with straight alpha -> (H, W, 3) uint8."""
    return ((rgba[..., :3].astype(np.uint16) * rgba[..., 3:] + 127) // 255).astype(np.uint8)
