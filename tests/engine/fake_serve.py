# SPDX-License-Identifier: Apache-2.0
"""`serve` with two more backends: `quick`, of fake stages, and `busy`, whose last stage commits a little and then works on in one long batch."""

import sys
import time

import numpy as np

from body4d_engine import backends
from body4d_engine.events import Committed
from body4d_engine.serve import serve

from .fakes import FakeBackend, FakeRecover, FakeTrack


class Busy:
    """Half of its samples, a commit, then an hour in one batch; a run that goes on finds the first half and does the second at once."""

    name, version, needs, settings = "busy", 1, (), {}

    def run(self, clip, people, take, cursor):
        take.create_array("people/1", "root", "f4", (3,))
        if cursor is None:
            take.append("people/1", "root", np.ones((take.samples // 2, 3)))
            take.commit({})
            yield Committed(self.name, 1, 0, take.samples // 2)
            end = time.monotonic() + 3600
            while time.monotonic() < end:
                sum(range(1000))
        take.append("people/1", "root", np.zeros((take.samples - take.samples // 2, 3)))


if __name__ == "__main__":
    backends.BACKENDS["quick"] = FakeBackend(FakeTrack(3), FakeRecover())
    backends.BACKENDS["busy"] = FakeBackend(Busy())
    sys.exit(serve())
