# SPDX-License-Identifier: Apache-2.0
"""What people do. Each motion takes a puppet and gives a `Motion`; feet that stand are points that do not move at all."""

from dataclasses import dataclass

import numpy as np

from .puppet import FOOT, Motion, Performance, Puppet, turn_x, turn_y, turn_z

TOE_OFF, HEEL_STRIKE = 0.62, -0.28  # pitch of the foot in radians when it leaves and when it meets the ground
HALF_WIDTH_M = 0.07


class Path:
    """A way over the ground through points (x, z), walked so that place(t) is smooth."""

    def __init__(self, corners, speed: float, fps: float, n: int, start_m: float = 0.0):
        corners = np.asarray(corners, np.float64)
        fine = _rounded(corners)
        length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(fine, axis=0), axis=1))])
        self.fine, self.length, self.speed, self.start = fine, length, speed, start_m
        self.times = np.arange(n) / fps

    def at(self, t) -> tuple[np.ndarray, np.ndarray]:
        """Ground point (..., 2) and heading (...) at time t in seconds; beyond its ends the path goes straight on."""
        s = self.start + self.speed * np.asarray(t, np.float64)
        here, ahead, behind = (self._point(s + d) for d in (0, 0.15, -0.15))
        d = ahead - behind
        return here, np.arctan2(-d[..., 0], -d[..., 1])

    def _point(self, s):
        out = np.stack([np.interp(s, self.length, self.fine[:, k]) for k in (0, 1)], -1)
        first = self.fine[1] - self.fine[0]
        last = self.fine[-1] - self.fine[-2]
        out += np.minimum(s, 0)[..., None] * first / np.linalg.norm(first)
        return out + np.maximum(s - self.length[-1], 0)[..., None] * last / np.linalg.norm(last)


@dataclass(frozen=True)
class Gait:
    period_s: float = 1.08
    stance: float = 0.62  # share of the period that a foot stands
    lift_m: float = 0.05
    bounce_m: float = 0.022
    arm: float = 0.45
    elbow: float = -0.55
    lean: float = 0.04
    low: float = 0.955  # hip height against a straight leg's


WALK = Gait()
RUN = Gait(period_s=0.72, stance=0.36, lift_m=0.17, bounce_m=0.05, arm=0.75, elbow=0.75, lean=0.16, low=0.95)


def walk(puppet: Puppet, path: Path, gait: Gait = WALK, phase: float = 0.0) -> Motion:
    """Along a path. Every foot stands without moving; heel and toe in turn are the points it rolls over."""
    t = path.times
    ground, heading = path.at(t)
    cycle = t / gait.period_s + phase
    swing = np.cos(2 * np.pi * (cycle - gait.stance / 2))  # +1 in the middle of the left foot's stance
    side = np.stack([np.cos(heading), -np.sin(heading)], -1)  # the person's left, in (x, z)
    bounce = np.where(gait.stance < 0.5, -1, 1) * gait.bounce_m * np.cos(4 * np.pi * (cycle - gait.stance / 2))
    hips = puppet.ankle + puppet.leg * gait.low - gait.bounce_m + bounce
    place = np.zeros((len(t), 3))
    place[:, [0, 2]] = ground + 0.015 * swing[:, None] * side
    place[:, 1] = -hips - (puppet.points["left_hip"][1])
    stride = np.sin(2 * np.pi * (cycle - gait.stance / 2))  # +1 when the left foot is behind
    root = turn_y(heading + 0.09 * stride) @ turn_x(np.full(len(t), gait.lean)) @ turn_z(0.03 * swing)
    theta = puppet.theta(len(t), spine_high_1=-0.2 * stride, neck_1=0.08 * stride, knee_L_0=0.4, knee_R_0=0.4, leg_L_0=-0.15, leg_R_0=-0.15,
                         elbow_L_0=gait.elbow + 0.18 * stride, elbow_R_0=gait.elbow - 0.18 * stride)
    hang(puppet, theta, gait.arm * stride, -gait.arm * stride)
    targets = {}
    for name, offset in (("left", 0.0), ("right", 0.5)):
        points = _steps(puppet, name, path, gait, phase - offset)
        targets |= {f"{name}_{part}": points[:, k] for k, part in enumerate(FOOT)}
    return Motion(root, place, theta, targets)


def hang(puppet: Puppet, theta: np.ndarray, left, right, out: float = 0.16) -> None:
    """Arms hang down and swing by the angles left and right (N,) forwards."""
    for side, angle, sign in (("L", left, 1), ("R", right, -1)):
        angle = np.broadcast_to(np.asarray(angle, np.float64), len(theta))
        puppet.aim_arm(theta, side, np.stack([np.full(len(theta), sign * out), np.cos(angle), -np.sin(angle)], -1))


def stand(puppet: Puppet, x: float, z: float, heading: float, n: int, fps: float, phase: float = 0.0, low: float = 0.985, width_m: float = 0.11) -> Motion:
    """On the spot, breathing and shifting weight; both feet stand still. What else to do is for the caller to change in theta."""
    t = np.arange(n) / fps + phase
    sway = 0.018 * np.sin(2 * np.pi * 0.31 * t)
    place = np.zeros((n, 3))
    place[:] = turn_y(heading) @ [0, 0, 0.02]
    place += sway[:, None] * turn_y(heading)[:, 0] + np.array([x, 0, z])
    place[:, 1] = -(puppet.ankle + puppet.leg * low) - puppet.points["left_hip"][1]
    root = np.broadcast_to(turn_y(heading), (n, 3, 3)) @ turn_z(0.6 * sway)
    theta = puppet.theta(n, knee_L_0=0.25, knee_R_0=0.25, elbow_L_0=-0.5, elbow_R_0=-0.5, head_1=0.25 * np.sin(0.9 * t), spine_high_1=0.08 * np.sin(0.7 * t))
    hang(puppet, theta, 0.1 + 0.05 * np.sin(1.3 * t), 0.1 + 0.05 * np.sin(1.1 * t + 1))
    return Motion(root, place, theta, feet(puppet, x, z, heading, n, width_m))


def feet(puppet: Puppet, x: float, z: float, heading: float, n: int, width_m: float = 0.11) -> dict[str, np.ndarray]:
    """Both feet flat on the ground at (x, z), not moving."""
    targets = {}
    for name, sign in (("left", 1), ("right", -1)):
        points = (puppet.foot(name) @ turn_y(-0.12 * sign).T + [sign * width_m, 0, 0]) @ turn_y(heading).T + [x, 0, z]
        targets |= {f"{name}_{part}": np.broadcast_to(points[k], (n, 3)) for k, part in enumerate(FOOT)}
    return targets


def wave(puppet: Puppet, motion: Motion, fps: float, side: str = "R", both: bool = False) -> Motion:
    """An arm raised and waving, or both arms up."""
    t = np.arange(len(motion)) / fps
    raised = smooth(t / 0.8) * (1 if both else smooth((t[-1] - t) / 0.8))
    for s in ("L", "R") if both else (side,):
        sign = 1 if s == "L" else -1
        up = np.stack([sign * np.full(len(t), 0.55), -np.full(len(t), 0.8), -np.full(len(t), 0.25)], -1)
        down = np.tile([sign * 0.16, 1.0, -0.1], (len(t), 1))
        middle = np.tile([sign * 1.0, 0.0, -0.35], (len(t), 1))
        r = raised[:, None]
        puppet.aim_arm(motion.theta, s, (1 - r) ** 2 * down + 2 * r * (1 - r) * middle + r**2 * up)
        motion.theta[:, puppet.slots[f"elbow.{s}:0"]] += raised * (0.5 + 0.35 * np.sin(2 * np.pi * 1.6 * t))
    return motion


def sit(puppet: Puppet, x: float, z: float, heading: float, n: int, fps: float, seat_m: float = 0.46) -> Motion:
    """On a seat whose top is seat_m high, feet on the ground in front, hands moving as in talk."""
    motion = stand(puppet, x, z, heading, n, fps)
    t = np.arange(n) / fps
    ahead = turn_y(heading) @ [0, 0, -1]
    knee = np.linalg.norm(puppet.points["left_hip"] - puppet.points["left_knee"])
    motion.targets = feet(puppet, x + knee * ahead[0], z + knee * ahead[2], heading, n, 0.12)
    motion.place[:] = [x, 0, z]
    motion.place[:, 1] = -seat_m - 0.1 - 0.003 * np.sin(2 * np.pi * 0.25 * t)
    motion.root = np.broadcast_to(turn_y(heading) @ turn_x(-0.1), (n, 3, 3)).copy()
    motion.theta = puppet.theta(n, leg_L_0=-1.4, leg_R_0=-1.4, knee_L_0=1.5, knee_R_0=1.5, spine_low_0=0.12, spine_high_1=0.15 * np.sin(1.1 * t),
                                head_1=0.35 * np.sin(0.8 * t), elbow_L_0=0.45 + 0.3 * np.sin(2.3 * t), elbow_R_0=0.35 + 0.3 * np.sin(1.7 * t + 1))
    hang(puppet, motion.theta, 0.45 + 0.2 * np.sin(1.9 * t), 0.4 + 0.2 * np.sin(1.4 * t + 2), 0.3)
    return motion


def jump(puppet: Puppet, x: float, z: float, heading: float, n: int, fps: float, at_s: float = 1.0, height_m: float = 0.32) -> Motion:
    """Crouch, leave the ground, fly as gravity says, land, stand up; arms swing through."""
    motion = stand(puppet, x, z, heading, n, fps)
    t = np.arange(n) / fps
    flight = 2 * np.sqrt(2 * height_m / 9.81)
    u = np.clip((t - at_s) / flight, 0, 1)
    lift = height_m * 4 * u * (1 - u)
    crouch = 0.27 * _bump(t, at_s - 0.75, at_s - 0.25, at_s) + 0.24 * _bump(t, at_s + flight, at_s + flight + 0.2, at_s + flight + 0.75)
    motion.place[:, 1] += crouch - lift - 0.06 * _bump(t, at_s - 0.1, at_s + 0.05, at_s + flight)
    bow = crouch * 2.2
    motion.root = motion.root @ turn_x(bow)
    hips = 0.16 * crouch / 0.27
    motion.place += hips[:, None] * (turn_y(heading) @ [0, 0, 1])
    pitch = 0.75 * _bump(t, at_s - 0.12, at_s + 0.12, at_s + flight - 0.02)
    for name, sign in (("left", 1), ("right", -1)):
        turned = _pitched(puppet.foot(name), pitch) @ turn_y(-0.12 * sign).T
        points = (turned + [sign * 0.11, 0, 0]) @ turn_y(heading).T + [x, 0, z]
        points[..., 1] -= lift[:, None]
        motion.targets |= {f"{name}_{part}": points[:, k] for k, part in enumerate(FOOT)}
    swing = -0.9 * _bump(t, at_s - 0.8, at_s - 0.3, at_s - 0.02) + 2.4 * _bump(t, at_s - 0.25, at_s + flight / 2, at_s + flight + 0.3)
    hang(puppet, motion.theta, 0.1 + swing, 0.1 + swing, 0.22)
    return motion


def cartwheel(puppet: Puppet, x: float, z: float, heading: float, n: int, fps: float, at_s: float = 0.9, turn_s: float = 1.5) -> Motion:
    """Arms go up, the body turns once head over heels to its left like a wheel, and stands again."""
    t = np.arange(n) / fps
    u = smooth((t - at_s) / turn_s)
    angle = 2 * np.pi * u
    star = smooth((t - 0.1) / 0.6) * smooth((at_s + turn_s + 0.9 - t) / 0.7)
    spread = smooth((t - at_s + 0.3) / 0.4) * smooth((at_s + turn_s + 0.3 - t) / 0.4)
    theta = puppet.theta(n, elbow_L_0=-0.8, elbow_R_0=-0.8, leg_L_2=-0.45 * spread, leg_R_2=0.45 * spread, knee_L_0=0.05, knee_R_0=0.05)
    for side, sign in (("L", 1), ("R", -1)):
        down = np.tile([sign * 0.16, 1.0, -0.1], (n, 1))
        out = np.tile([sign * 1.0, 0.0, -0.2], (n, 1))
        up = np.tile([sign * 0.45, -1.0, -0.05], (n, 1))
        r = star[:, None]
        puppet.aim_arm(theta, side, (1 - r) ** 2 * down + 2 * r * (1 - r) * out + r**2 * up)
    root = turn_y(heading) @ turn_z(angle)
    rolled = Motion(root, np.zeros((n, 3)), theta)
    lowest = _lowest(puppet, rolled)
    sideways = turn_y(heading) @ [1, 0, 0]
    rolled.place = np.array([x, 0, z]) + u[:, None] * 2.1 * sideways
    rolled.place[:, 1] = -lowest
    return rolled


def handstand(puppet: Puppet, x: float, z: float, heading: float, n: int, fps: float) -> Motion:
    """Upside down on both hands, which stand still; legs sway."""
    t = np.arange(n) / fps
    theta = puppet.theta(n, elbow_L_0=-0.75, elbow_R_0=-0.75, leg_L_0=0.35 * np.sin(1.7 * t), leg_R_0=-0.35 * np.sin(1.7 * t),
                         knee_L_0=0.3 + 0.2 * np.sin(2.1 * t), knee_R_0=0.3 - 0.2 * np.sin(2.1 * t), wrist_L_0=-0.3, wrist_R_0=-0.3)
    for side, sign in (("L", 1), ("R", -1)):
        puppet.aim_arm(theta, side, np.tile([sign * 0.2, -1.0, -0.05], (n, 1)))
    root = turn_y(heading) @ turn_z(np.pi + 0.05 * np.sin(1.3 * t))
    first = Motion(root, np.zeros((n, 3)), theta)
    still = Motion(root[:1] * 0 + turn_y(heading) @ turn_z(np.pi), np.zeros((1, 3)), theta[:1])
    lowest = float(_lowest(puppet, still)[0])
    first.place = np.tile([x, -lowest, z], (n, 1))
    hands = puppet.rig.keypoints(*puppet.rig.pose(still.root, still.theta))[0] + first.place[0]
    names = list(puppet.points)
    first.targets = {name: np.broadcast_to(hands[names.index(name)], (n, 3)) for name in
                     ("left_wrist", "right_wrist", "left_index", "right_index", "left_pinky", "right_pinky")}
    return first


def smooth(u) -> np.ndarray:
    """0 to 1 without a corner."""
    u = np.clip(u, 0, 1)
    return u * u * u * (u * (6 * u - 15) + 10)


def _bump(t, start, top, end) -> np.ndarray:
    return smooth((t - start) / (top - start)) * smooth((end - t) / (end - top))


def _lowest(puppet: Puppet, motion: Motion) -> np.ndarray:
    """(N,) largest y of the posed body about its origin."""
    rotations, positions = puppet.rig.pose(motion.root, motion.theta)
    return Performance(puppet, rotations, positions, positions).vertices()[:, :, 1].max(1).astype(np.float64)


def _pitched(foot: np.ndarray, pitch) -> np.ndarray:
    """A flat foot (3, 3) turned over its toe (pitch > 0) or its heel (pitch < 0): (N, 3, 3)."""
    pitch = np.atleast_1d(pitch)
    pivot = np.where(pitch[:, None] > 0, foot[2], foot[1])[:, None]
    return pivot + (foot - pivot) @ turn_x(pitch).transpose(0, 2, 1)


def _steps(puppet: Puppet, side: str, path: Path, gait: Gait, phase: float) -> np.ndarray:
    """(N, 3, 3) ankle, heel, toe of one foot along the path."""
    flat = puppet.foot(side)
    sign = 1 if side == "left" else -1
    cycle = path.times / gait.period_s + phase
    number = np.floor(cycle)
    u = cycle - number

    def stance(k, share):
        """Where the k-th stance has the foot after a share 0..1 of it."""
        middle = (k - phase + gait.stance * 0.47) * gait.period_s
        ground, heading = path.at(middle)
        left = np.stack([np.cos(heading), -np.sin(heading)], -1)
        pitch = HEEL_STRIKE * np.clip(1 - share / 0.22, 0, 1) ** 2 + TOE_OFF * np.clip((share - 0.52) / 0.48, 0, 1) ** 2
        points = _pitched(flat, pitch) @ turn_y(heading - 0.1 * sign).transpose(0, 2, 1)
        spot = ground + sign * HALF_WIDTH_M * left
        return points + np.stack([spot[:, 0], np.zeros(len(spot)), spot[:, 1]], -1)[:, None], pitch, heading - 0.1 * sign

    planted, *_ = stance(number, np.clip(u / gait.stance, 0, 1))
    duration, gap = gait.stance * gait.period_s, (1 - gait.stance) * gait.period_s
    one, zero, tiny = np.ones_like(u), np.zeros_like(u), 1e-4
    (before, pitch0, yaw0), (earlier, earlier_pitch, _) = stance(number, one), stance(number, one - tiny)
    (after, pitch1, yaw1), (later, later_pitch, _) = stance(number + 1, zero), stance(number + 1, zero + tiny)
    w = np.clip((u - gait.stance) / (1 - gait.stance), 0, 1)
    rate = gap / (tiny * duration)
    ankle = _hermite(before[:, 0], (before - earlier)[:, 0] * rate, after[:, 0], (later - after)[:, 0] * rate, w[:, None])
    ankle[:, 1] -= gait.lift_m * np.sin(np.pi * w) ** 2
    pitch = _hermite(pitch0, (pitch0 - earlier_pitch) * rate, pitch1, (later_pitch - pitch1) * rate, w)
    yaw = yaw0 + smooth(w) * np.angle(np.exp(1j * (yaw1 - yaw0)))
    swung = ((flat - flat[0]) @ turn_x(pitch).transpose(0, 2, 1)) @ turn_y(yaw).transpose(0, 2, 1) + ankle[:, None]
    under = np.maximum((swung[:, 1:, 1] - (flat[1:, 1] - 0.004)).max(1), 0)  # never through the ground
    swung[..., 1] -= under[:, None]
    return np.where((u < gait.stance)[:, None, None], planted, swung)


def _hermite(a, da, b, db, w):
    return (2 * w**3 - 3 * w**2 + 1) * a + (w**3 - 2 * w**2 + w) * da + (3 * w**2 - 2 * w**3) * b + (w**3 - w**2) * db


def _rounded(corners: np.ndarray) -> np.ndarray:
    """The polyline in 5 cm steps with its corners cut smoothly."""
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(corners, axis=0), axis=1))])
    s = np.arange(0, length[-1] + 0.05, 0.05)
    line = np.stack([np.interp(s, length, corners[:, k]) for k in (0, 1)], -1)
    kernel = np.hanning(41)
    padded = np.concatenate([2 * line[0] - line[20:0:-1], line, 2 * line[-1] - line[-2:-22:-1]]) if len(line) > 21 else line
    if len(line) <= 21:
        return line
    return np.stack([np.convolve(padded[:, k], kernel / kernel.sum(), "valid") for k in (0, 1)], -1)
