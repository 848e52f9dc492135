# SPDX-License-Identifier: Apache-2.0
"""The shapes of `plots` as SVG paths and as pixels."""

from html import escape

import cv2
import numpy as np

from .plots import Panel, Shape

X, Y = 2400, 400  # the SVG's own units: whole numbers make short paths
WIDTH, SIDE, GAP, HEAD, SCALE = 1600, 40, 22, 34, 2  # of the PNG, in px; panels are SCALE times as tall as on the page
INK, PALE, PAPER = (34, 34, 30), (110, 110, 104), (255, 255, 255)
COLORS = {"range": (176, 203, 232), "line": (29, 91, 160), "limit": (196, 84, 40), "over": (196, 84, 40), "doubt": (196, 84, 40), "event": (70, 70, 66),
          "left": (29, 91, 160), "right": (150, 84, 20), "face": (70, 70, 66), "grid": (228, 228, 224)}  # RGB


def svg(panel: Panel, grid: list[float], label: str) -> str:
    """The panel as an <svg> that fills its box; lines keep their width however it is stretched."""
    parts = [f'<path class="grid" d="{"".join(f"M{round(x * X)} 0v{Y}" for x in grid)}"/>'] if grid else []
    for role, kind in dict.fromkeys((shape.role, shape.kind) for shape in panel.shapes):
        paths = "".join(_path(shape) for shape in panel.shapes if (shape.role, shape.kind) == (role, kind))
        parts.append(f'<path class="{role} {kind}" d="{paths}"/>')
    return (f'<svg viewBox="0 0 {X} {Y}" preserveAspectRatio="none" style="height:{panel.height}px" role="img" aria-label="{escape(label)}">'
            f'{"".join(parts)}</svg>')


def _path(shape: Shape) -> str:
    if shape.kind == "boxes":
        boxes = np.round(shape.points * (X, Y, X, Y)).astype(int)
        return "".join(f"M{x0} {Y - y1}h{max(x1 - x0, 3)}v{y1 - y0}h{-max(x1 - x0, 3)}z" for x0, y0, x1, y1 in boxes.tolist())
    points = np.round(shape.points * (X, Y)).astype(int)
    points[:, 1] = Y - points[:, 1]
    steps = np.diff(points, axis=0).tolist()
    return f"M{points[0, 0]} {points[0, 1]}l" + " ".join(f"{x} {y}" for x, y in steps) + ("z" if shape.kind == "area" else "")


def picture(title: str, panels: list[Panel], ruler: list[tuple[float, int]], color) -> np.ndarray:
    """All panels below one another (H, W, 3) uint8 RGB. color: the person's (sRGB 0..1)."""
    height = 70 + sum(HEAD + SCALE * panel.height + GAP for panel in panels) + 50
    image = np.full((height, WIDTH, 3), 255, np.uint8)
    own = tuple(round(255 * part) for part in color)
    cv2.rectangle(image, (SIDE, 24), (SIDE + 22, 46), own, -1)
    write(image, title, (SIDE + 34, 46), 28)
    top, span = 70, WIDTH - 2 * SIDE
    for panel in panels:
        unit = f"  {panel.unit}" if panel.unit else ""
        write(image, panel.about, (WIDTH - SIDE, top + 24), 20, PALE, right=True)
        end = write(image, panel.title, (SIDE, top + 24), 22)
        write(image, unit, (end, top + 24), 20, PALE)
        top += HEAD
        region = image[top : top + SCALE * panel.height, SIDE : SIDE + span]
        for x, _ in ruler:
            cv2.line(region, (round(x * span), 0), (round(x * span), region.shape[0]), COLORS["grid"], 1)
        for shape in panel.shapes:
            paint(region, shape, own)
        for y, text in panel.ticks:
            write(region, text, (4, 18 if y else region.shape[0] - 6), 16, PALE)
        cv2.rectangle(image, (SIDE - 1, top - 1), (SIDE + span, top + SCALE * panel.height), COLORS["grid"], 1)
        top += SCALE * panel.height + GAP
    for x, frame in ruler:
        write(image, str(frame), (SIDE + round(x * span), top + 6), 20, PALE, centre=True)
    write(image, "frame of the clip, from 0", (WIDTH - SIDE, top + 36), 20, PALE, right=True)
    return image


def paint(region: np.ndarray, shape: Shape, own) -> None:
    """One shape, in place. Antialiased but for boxes."""
    height, width = region.shape[:2]
    color = COLORS.get(shape.role, own)
    if shape.kind == "boxes":
        for x0, y0, x1, y1 in shape.points:
            left, right = int(x0 * width), max(int(x1 * width), int(x0 * width) + 2)
            region[round((1 - y1) * height) : round((1 - y0) * height), left:right] = color
        return
    points = np.round(np.column_stack([shape.points[:, 0] * width, (1 - shape.points[:, 1]) * (height - 2) + 1]) * 16).astype(np.int32)
    if shape.kind == "area":
        cv2.fillPoly(region, [points], color, cv2.LINE_AA, 4)
    else:
        cv2.polylines(region, [points], False, color, 1 if shape.role == "limit" else 2, cv2.LINE_AA, 4)


def write(image: np.ndarray, text: str, at: tuple[int, int], size: int, color=INK, right: bool = False, centre: bool = False) -> int:
    """Text with its baseline's left end (right end, middle) at `at`; returns where it ends."""
    font = cv2.FontFace("sans")
    text = text.replace("\u202f", " ")
    if right or centre:
        width = cv2.getTextSize((image.shape[1], image.shape[0]), text, (0, 0), font, size)[2]
        at = (max(at[0] - (width if right else width // 2), 0), at[1])
    end, _ = cv2.putText(image, text, at, color, font, size)
    return int(end[0])


def png(image: np.ndarray) -> bytes:
    """(H, W, 3) uint8 RGB as a PNG file."""
    return cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()


def jpeg(image: np.ndarray, quality: int) -> bytes:
    """(H, W, 3) uint8 RGB as a JPEG file."""
    return cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
