# SPDX-License-Identifier: Apache-2.0
"""What happens in each clip. A scene is made by its name and a seed alone."""

from dataclasses import dataclass, field, replace

import numpy as np

from body4d_engine.models.anny.pose import pose_model

from . import motions
from .looks import Look, dress, random_look
from .motions import RUN, WALK, Gait, Path
from .puppet import Motion, Performance, Puppet
from .surroundings import Light, box, pillar, place_around, random_light

SCENES = {}
STEP = 0.78  # longest step of a walk in leg lengths


@dataclass
class Actor:
    """One person of a scene: how they move, and what they wear at rest (V, 3), coloured per face (F, 3)."""

    performance: Performance
    look: Look
    clothed: np.ndarray
    colors: np.ndarray
    texture: np.ndarray
    alike: int = 0  # people of the same number above 0 look alike


@dataclass
class Scene:
    """Everything that is drawn. R (T, 3, 3) and t (T, 3) take world points to the camera's: x_cam = R x + t."""

    name: str
    seed: int
    width: int
    height: int
    fps: float
    K: np.ndarray
    R: np.ndarray
    t: np.ndarray
    actors: list[Actor] = field(default_factory=list)
    props: list[dict] = field(default_factory=list)
    light: Light = field(default_factory=Light)

    def __len__(self) -> int:
        return len(self.t)


class Stage:
    """What a scene function works with: random numbers, the camera, and people."""

    fps = 30.0

    def __init__(self, name: str, seed: int, frames: int | None, width: int):
        self.rng = np.random.default_rng([seed, *name.encode()])
        self.limit, self.width, self.height = frames, width, round(width * 9 / 32) * 2
        self.name, self.seed = name, seed
        self.actors, self.props = [], []
        self.frames(frames or 120)

    def frames(self, n: int) -> int:
        self.n = min(n, self.limit or n)
        return self.n

    def puppet(self, age: float | None = None, height_m: float | None = None) -> Puppet:
        """Somebody; age as the body model counts it (1/3 a child, 2/3 young, 1 old)."""
        rng, model = self.rng, pose_model()
        values = {"gender": float(rng.integers(2)) * 0.8 + 0.1, "age": rng.uniform(0.6, 0.85) if age is None else age, "muscle": rng.uniform(0.3, 0.7),
                  "weight": rng.uniform(0.25, 0.75), "height": rng.uniform(0.3, 0.6), "proportions": rng.uniform(0.4, 0.8)}
        tall = 1.62 + 0.12 * values["gender"] + rng.uniform(-0.09, 0.09) if height_m is None else height_m
        return Puppet(model, np.array([values[name] for name in model.body.phenotypes]), tall)

    def add(self, puppet: Puppet, motion: Motion, look: Look | None = None, alike: int = 0) -> None:
        look = look or random_look(self.rng)
        clothed, colors, texture = dress(puppet.model.body, puppet.rest, look, self.rng)
        self.actors.append(Actor(puppet.perform(motion), look, clothed, colors, texture, alike))

    def stand(self, x, z, heading, change=None, look=None, alike=0, puppet=None) -> None:
        """Someone on the spot; `change` (puppet, motion) -> motion adds what they do."""
        puppet = puppet or self.puppet()
        motion = motions.stand(puppet, x, z, heading, self.n, self.fps, float(self.rng.uniform(0, 10)))
        self.add(puppet, change(puppet, motion) if change else motion, look, alike)

    def walk(self, corners, speed=1.25, gait: Gait = WALK, look=None, alike=0, start_m=0.0, puppet=None) -> None:
        puppet = puppet or self.puppet()
        speed *= puppet.leg / 0.78
        if gait.stance > 0.5:  # no step so long that the legs do not reach
            gait = replace(gait, period_s=min(gait.period_s, 2 * STEP * puppet.leg / speed))
        path = Path(corners, speed, self.fps, self.n, start_m)
        self.add(puppet, motions.walk(puppet, path, gait, float(self.rng.uniform())), look, alike)

    def shoot(self, eye, target, focal: float = 0.95) -> Scene:
        """From eye (3,) or (N, 3) towards target; focal in picture widths."""
        eye, target = (np.broadcast_to(np.asarray(v, float), (self.n, 3)) for v in (eye, target))
        z = target - eye
        z /= np.linalg.norm(z, axis=1, keepdims=True)
        x = np.cross([0, 1.0, 0], z)
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        R = np.stack([x, np.cross(z, x), z], 1)
        K = np.array([[focal * self.width, 0, self.width / 2], [0, focal * self.width, self.height / 2], [0, 0, 1]])
        t = -np.einsum("nij,nj->ni", R, eye)
        props = self.props + place_around(self.rng)
        return Scene(self.name, self.seed, self.width, self.height, self.fps, K, R, t, self.actors, props, random_light(self.rng))


def build(name: str, seed: int = 0, frames: int | None = None, width: int = 640) -> Scene:
    """The scene of this name; frames and width make it smaller, for tests."""
    stage = Stage(name, seed, frames, width)
    return SCENES[name](stage)


def scene(function):
    SCENES[function.__name__] = function
    return function


@scene
def walk_one(s: Stage) -> Scene:
    """One person walks a loop and is seen from several sides; planted feet."""
    s.frames(150)
    s.walk([(-1.5, 4.6), (0.9, 3.7), (1.5, 5.2), (0.2, 6.6), (-1.6, 6.0)], 1.2)
    return s.shoot((0, -1.35, 0), (0, -0.85, 5))


@scene
def crossing(s: Stage) -> Scene:
    """Two people cross, turn round, and cross again further away."""
    s.frames(150)
    s.walk([(-1.9, 4.5), (1.5, 4.3), (1.9, 5.9), (-2.5, 6.3)], 1.35)
    s.walk([(1.8, 5.2), (-1.5, 5.2), (-1.9, 7.0), (2.5, 7.2)], 1.3)
    return s.shoot((0, -1.5, 0), (0, -0.85, 5.5))


@scene
def passing_behind(s: Stage) -> Scene:
    """One stands and waves, one walks behind them and behind a pillar, and back."""
    s.frames(150)
    s.stand(-0.35, 4.3, 0.1, lambda puppet, motion: motions.wave(puppet, motion, s.fps))
    s.walk([(-2.2, 5.6), (2.0, 5.9), (2.2, 7.2), (-2.5, 6.9)], 1.45)
    s.props.append(pillar(0.95, 4.9, 0.45))
    return s.shoot((0, -1.5, 0), (0, -0.85, 5.5))


@scene
def leave_reenter(s: Stage) -> Scene:
    """One walks out of the picture, stays away for two seconds and comes back; the other stays and talks."""
    s.frames(195)
    s.stand(-0.9, 4.6, -0.5)
    s.walk([(0.2, 5.1), (4.4, 5.2), (4.5, 4.6), (-0.3, 4.2)], 1.4)
    return s.shoot((0, -1.4, 0), (0, -0.85, 5.5))


@scene
def lookalikes(s: Stage) -> Scene:
    """Two people of the same build in the same clothes cross twice."""
    s.frames(150)
    look = Look((0.72, 0.48, 0.36), (0.05, 0.035, 0.03), (0.08, 0.18, 0.50), (0.85, 0.83, 0.78), (0.04, 0.04, 0.045), (0.75, 0.75, 0.75), "stripes")
    puppet = s.puppet(0.68, 1.74)
    s.walk([(-1.9, 4.6), (1.6, 4.6), (1.9, 6.2), (-2.5, 6.4)], 1.35, look=look, alike=1, puppet=puppet)
    s.walk([(1.8, 5.3), (-1.5, 5.3), (-1.9, 7.1), (2.5, 7.2)], 1.3, look=look, alike=1, puppet=puppet)
    return s.shoot((0, -1.5, 0), (0, -0.85, 5.5))


@scene
def six(s: Stage) -> Scene:
    """Six people: four walk through one another's ways, one of them a child, one runs past, one stands."""
    s.frames(120)
    s.walk([(-2.6, 5.0), (3.0, 5.4)], 1.2)
    s.walk([(2.7, 6.0), (-3.0, 5.9)], 1.15)
    s.walk([(-2.9, 7.3), (1.0, 7.0), (3.0, 8.2)], 1.3)
    s.walk([(0.9, 8.6), (-0.6, 4.4)], 1.0, puppet=s.puppet(0.42, 1.28))
    s.walk([(4.5, 8.0), (-6.0, 8.2)], 2.6, RUN)
    s.stand(1.5, 4.5, 0.5)
    return s.shoot((0, -1.9, 0), (0, -0.75, 6.2))


@scene
def moving_pan(s: Stage) -> Scene:
    """The camera turns after two people who cross while walking past."""
    s.frames(90)
    s.walk([(-3.4, 4.8), (3.5, 5.2)], 1.45)
    s.walk([(1.6, 6.2), (-4.0, 6.0)], 1.1)
    x = np.linspace(-2.2, 1.2, s.n)
    return s.shoot((0, -1.5, 0), np.stack([x, np.full(s.n, -0.85), np.full(s.n, 5.2)], 1))


@scene
def moving_dolly(s: Stage) -> Scene:
    """The camera travels alongside one who walks, past one who stands, and shakes a little in the hand."""
    s.frames(90)
    s.walk([(-2.2, 4.6), (5.0, 4.6)], 1.2)
    s.stand(0.9, 6.1, 0.2)
    t = np.arange(s.n) / s.fps
    shake = 0.008 * np.stack([np.sin(7.1 * t), np.sin(9.3 * t + 1), np.sin(5.7 * t + 2)], 1)
    eye = np.stack([-1.6 + 0.85 * t, np.full(s.n, -1.5), 0.15 * t], 1) + shake
    return s.shoot(eye, eye + [0.25, 0.62, 5.2] + 3 * shake[:, ::-1])


@scene
def small(s: Stage) -> Scene:
    """Three people far away, 68 to 100 px tall, two of whom cross."""
    s.frames(120)
    s.walk([(-2.9, 8.5), (4.0, 8.7)], 1.3)
    s.walk([(2.9, 9.2), (-4.0, 9.1)], 1.25)
    s.stand(-1.2, 7.4, 0.3, lambda puppet, motion: motions.wave(puppet, motion, s.fps, "L"))
    return s.shoot((0, -2.6, -2.5), (0, -1.2, 8.0), 0.8)


@scene
def seated_cut(s: Stage) -> Scene:
    """One sits on a box, one stands close and is cut off below the hips and at the side, one walks behind."""
    s.frames(100)
    puppet = s.puppet()
    s.props.append(box((-0.75, -0.23, 4.32), (0.5, 0.46, 0.45), -0.25, ("noise", ((0.30, 0.20, 0.12), (0.22, 0.15, 0.09)), 6.0), occludes=True))
    s.add(puppet, motions.sit(puppet, -0.75, 4.3, -0.25, s.n, s.fps))
    s.stand(0.95, 2.15, 0.35)
    s.walk([(2.3, 6.4), (-3.0, 6.2)], 1.2)
    return s.shoot((0, -1.35, 0), (0, -0.95, 4.5))


@scene
def upside_down(s: Stage) -> Scene:
    """One turns a cartwheel, one stands on the hands."""
    s.frames(120)
    puppet = s.puppet()
    s.add(puppet, motions.cartwheel(puppet, 0.9, 4.8, np.pi, s.n, s.fps))
    puppet = s.puppet()
    s.add(puppet, motions.handstand(puppet, 1.7, 6.0, 0.3, s.n, s.fps))
    return s.shoot((0, -1.4, 0), (0.1, -0.95, 5.0))


@scene
def jump(s: Stage) -> Scene:
    """One jumps from the spot, one raises both arms."""
    s.frames(90)
    puppet = s.puppet()
    s.add(puppet, motions.jump(puppet, -0.7, 4.4, -0.5, s.n, s.fps))
    s.stand(1.0, 5.2, 0.3, lambda puppet, motion: motions.wave(puppet, motion, s.fps, both=True))
    return s.shoot((0, -1.4, 0), (0, -0.95, 5.0))
