# SPDX-License-Identifier: Apache-2.0
"""One body for one person over the whole clip: an identity, proportions and lengths that do not change, and a size where the height is known."""

from dataclasses import dataclass

import numpy as np

LENGTHS = slice(130, 136)  # of MHR's parameters: how long spine, neck, shoulders, arms, hips and legs are, which the network says anew in every frame


@dataclass
class Body:
    """shape (45,), scale (28,), lengths (6,). size: how much larger the body is than MHR makes it.

    MHR has no parameter of size: its proportions are lengths of bones, its identities those of adults. A single picture tells a body's proportions but not how
    large it is, for whoever is twice as large and twice as far away looks the same. So a height that is given changes neither pose nor proportions: everything,
    bones, hands, feet and the way, is multiplied by one number, and the picture stays as it was.
    """

    figure: object
    shape: np.ndarray
    scale: np.ndarray
    lengths: np.ndarray
    size: float = 1.0

    def of_height(self, height_m: float | None) -> "Body":
        """This body as large as somebody who stands so tall: at rest, from the soles to the top of the head."""
        return self if height_m is None else Body(self.figure, self.shape, self.scale, self.lengths, height_m / self.height_m * self.size)

    @property
    def height_m(self) -> float:
        return float(np.ptp(self.at_rest()["rest_vertices_m"][:, 1]))

    def own(self, params: np.ndarray) -> np.ndarray:
        """Parameters (N, 204) with this person's proportions and lengths."""
        out = self.figure.with_scale(params, self.scale)
        out[:, LENGTHS] = self.lengths
        return out

    def keypoints(self, params: np.ndarray) -> np.ndarray:
        """Own parameters (N, 204) -> (N, 70, 3) metres in person space."""
        return self.size * self.figure.keypoints(params, self.shape[None])

    def posed(self, params: np.ndarray) -> dict[str, np.ndarray]:
        """The same -> what `Figure.posed` gives."""
        found = self.figure.posed(params, np.tile(self.shape, (len(params), 1)))
        return found | {name: np.float32(self.size) * found[name] for name in ("vertices", "joints", "keypoints_m", "offset")}

    def at_rest(self) -> dict[str, np.ndarray]:
        """What the take's body file says of this person, see `Figure.rest`; and size."""
        rest = self.figure.rest(self.own(self.figure.average[None])[0], self.shape)
        rest |= {name: np.float32(self.size) * rest[name] for name in ("rest_vertices_m", "rest_joints_m")}
        rest["inverse_binds"][:, :3, 3] *= np.float32(self.size)
        return rest | {"size": np.float64(self.size)}
