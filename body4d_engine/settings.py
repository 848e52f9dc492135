# SPDX-License-Identifier: Apache-2.0
"""The settings of a run: what they are when nobody says anything, and what they may be."""

import math

from .errors import Body4DError
from .models.official import MODELS
from .people import SMALLEST_M, TALLEST_M

DEFAULTS = {"focal_px": None, "focal_mm": None, "heights": {}, "smoothing": 1.0, "foot_lock": True, "hands": True, "models": "ours", "compile": False,
            "weights": None, "memory_limit": None}
MOST_SMOOTHING = 4.0


def checked(given: dict | None = None) -> dict:
    """All settings, those not given at their defaults. Raises Body4DError.

    focal_px, focal_mm: see `stages.camera`; None where it is not known. heights: metres by person id, 0 for everyone not named. smoothing: 0 (as
    measured) to 4 (very calm), 1 as a rule. foot_lock: whether feet that stand are held in place. Of the full backend:
    hands, whether hands get a look of their own; models, whose code runs the networks, of `models.official.MODELS`; compile, whether torch
    compiles ours for bodies before it runs; weights, the folder of its weights where that is not the usual one; memory_limit, bytes it may take on
    its device.
    """
    settings = {**DEFAULTS, **(given or {})}
    try:
        unknown = set(settings) - set(DEFAULTS)
        if unknown:
            raise ValueError(f"there is no {', '.join(sorted(map(str, unknown)))}")
        settings["heights"] = {int(number): float(metres) for number, metres in settings["heights"].items()}
        settings.update({name: None if settings[name] is None else float(settings[name]) for name in ("focal_px", "focal_mm")})
        settings["smoothing"] = float(settings["smoothing"])
        if not 0 <= settings["smoothing"] <= MOST_SMOOTHING:
            raise ValueError(f"smoothing is from 0 to {MOST_SMOOTHING:g}, not {settings['smoothing']:g}")
        for name in ("foot_lock", "hands", "compile"):
            if not isinstance(settings[name], bool):
                raise ValueError(f"{name} is true or false")
        if settings["models"] not in MODELS:
            raise ValueError(f"models is one of {', '.join(MODELS)}, not {settings['models']!r}")
        if settings["compile"] and settings["models"] != "ours":
            raise ValueError("compile is for our own networks, not for the official ones")
        settings["weights"] = None if settings["weights"] is None else str(settings["weights"])
        if settings["memory_limit"] is not None:
            if not 0 < settings["memory_limit"] < math.inf:
                raise ValueError(f"a limit of {settings['memory_limit'] / 1e9:g} GB is no amount of memory")
            settings["memory_limit"] = int(settings["memory_limit"])
        wrong = [metres for metres in settings["heights"].values() if not SMALLEST_M <= metres <= TALLEST_M]
        if wrong:
            raise ValueError(f"{wrong[0]:g} is not a height in metres")
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise Body4DError(f"The settings cannot be read: {error}.", "Correct that and run again.", "bad_settings") from error
    return settings
