# SPDX-License-Identifier: Apache-2.0
"""`body4d doctor --verify`: proves on a user's machine what cannot be proven without the published weights.

With mhr_model.pt the body model, see `people`; with all weights the whole pipeline on a clip whose truth is known, see `clip` and `judging`.
"""

from collections.abc import Iterator

from ..examining import Check
from ..weights.catalogue import BODIES
from ..weights.places import locate


def prove() -> Iterator[Check]:
    """What can be proven with the weights that are here; of the rest, what it lacks."""
    from ..backends import BACKENDS
    from .clip import pipeline
    from .people import mhr

    yield mhr([locate(f"sam-3d-body-{body}") for body in BODIES])
    yield from pipeline(BACKENDS["full"])
