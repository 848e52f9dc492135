# SPDX-License-Identifier: GPL-3.0-or-later
"""A take becomes a collection: people, camera, footage, markers. Importing it again replaces what the first import made."""

from fractions import Fraction
from pathlib import Path

import bpy
import numpy as np

from body4d_engine.take import State, Take, TakeError

from ..wording import notice_for_user
from . import camera as cameras
from . import clip as footage
from . import corrections, fcurves, floor, imported, markers, mesh, settings, tags
from .doubts import find_doubts
from .material import linear, person_material
from .reading import CameraTrack, PersonTrack, is_pending, read_camera, read_people
from .timing import Timing, rate_between

HEAVY_BYTES = 2 << 30
MARKER_GAP_S = 0.5


class _Import:
    """What the parts of one import share."""

    def __init__(self, scene, take: Take, collection, report):
        self.scene, self.take, self.collection = scene, take, collection
        self.id = take.id
        self.ids = {take.id, collection.get(tags.TAKE_ID, take.id)}  # a take made anew at the same place has another id
        self.name = take.path.name.removesuffix(".take") or take.path.name
        self.notices: list[str] = []
        self._report = report
        self.timing = Timing(1)

    def report(self, message: str) -> None:
        self.notices.append(message)
        if self._report:
            self._report(message)

    def frames(self, samples: int) -> range:
        """Clip frames of the first samples."""
        return self.take.frames[:samples]


def build_take(take_path, *, scene=None, match_scene: bool | None = None, mesh_cache: bool = False, scene_start: int | None = None,
               report=None) -> bpy.types.Collection:
    """Import a take, or import it again.

    scene: the current one where None. match_scene: give the scene the clip's render size, frame rate, range, sound and camera; None does so
    in an empty scene, and where the settings are still those of the last import. mesh_cache: play the take's point cache instead of shape
    keys (the take must stay where it is). scene_start: the scene frame of clip frame 0; None keeps that of the last import, else takes 1 in an
    empty scene and the start of the scene's range in any other. report: called with every notice, in words for the user; they are also kept
    on the collection.

    World: the camera at the origin looks along +Y with Z up. Raises TakeError; then nothing in the scene has changed.
    """
    scene = scene or bpy.context.scene
    with Take.open(Path(take_path).absolute()) as take:
        old = tags.find_collection(scene, take.id, take.path)
        collection = old or bpy.data.collections.new(take.path.stem)
        job = _Import(scene, take, collection, report)
        try:
            people, lens = read_people(take, job.report), read_camera(take)
            _refuse_edit_mode(job)
            items = tags.read_items(collection)
            matched = _should_match(scene, old, items, match_scene)
            job.timing = _timing(scene, take, matched, scene_start, items)
            meshes = _meshes(job, people, mesh_cache)
        except BaseException:
            if old is None:
                bpy.data.collections.remove(collection)
            tags.purge({job.id})
            raise
        tags.tag(collection, job.id, "take")
        tags.rename(collection, job.name)
        camera = _camera(job, people, lens)
        bodies = [_body(job, person, data, mesh_cache) for person, data in zip(people, meshes)]
        _remove_others(job, [*bodies, camera])
        floor.carry(scene, collection, job.ids, job.id, [*bodies, camera])
        keeps_camera = old is not None and not match_scene and scene.camera is not None  # the user may look through another one by now
        items = _scene(job, people, scene.camera if keeps_camera else camera, matched, items)
        _describe(job, lens, items)
        if old is None or not _is_linked(collection):
            scene.collection.children.link(collection)  # last: until here nothing is evaluated or drawn
        tags.purge(job.ids)
        for body in bodies:
            _name_data(body)
        new_file = matched and old is None
        scene.frame_set(scene.frame_start if new_file else scene.frame_current, subframe=0.0 if new_file else scene.frame_subframe)
    return collection


def _refuse_edit_mode(job: _Import) -> None:
    for block in job.collection.objects:
        if block.mode != "OBJECT":
            raise TakeError(f"{block.name} is in {block.mode.title().replace('_', ' ')} Mode.", "Leave it (Tab) and import again.", "edit_mode")


def _should_match(scene, old, items: dict, asked: bool | None) -> bool:
    if asked is not None:
        return asked
    if old is not None:
        return items.get("settings") == settings.snapshot(scene)
    return settings.is_empty(scene)


def _timing(scene, take: Take, matched: bool, start: int | None, items: dict) -> Timing:
    if start is None:
        start = items.get("start", 1 if settings.is_empty(scene) else scene.frame_start)
    return Timing(start, 1.0 if matched else rate_between(settings.scene_fps(scene), Fraction(*take.clip["fps"])))


def _meshes(job: _Import, people: list[PersonTrack], mesh_cache: bool) -> list[bpy.types.Mesh]:
    """One mesh per person, in no object yet."""
    if mesh_cache:
        return [mesh.still_mesh(p.name, job.id, p.vertices[p.first_seen], p.faces) for p in people]
    size = sum(p.vertices[p.there].nbytes for p in people)
    if size > HEAVY_BYTES:
        job.report(f"The shape keys take {size / 2**30:.1f} GB, and twice that in memory. Import with Mesh Cache to play them from the take.")
    return [mesh.keyed_mesh(p.name, job.id, p.vertices[p.there], p.faces, job.frames(len(p.state))[p.there], job.timing) for p in people]


def _claim(job: _Import, block: bpy.types.Object, role: str, name: str, person: int | None = None) -> None:
    """Tag and name an object of this take, and put it where it belongs."""
    tags.tag(block, job.id, role, person)
    block[tags.TAKE] = tags.blend_path(job.take.path)
    tags.rename(block, name)
    if block.name not in job.collection.objects:
        job.collection.objects.link(block)


def _body(job: _Import, person: PersonTrack, data: bpy.types.Mesh, mesh_cache: bool) -> bpy.types.Object:
    """The person's object. That of the last import gets new data, so that parents, constraints and modifiers of the user stay."""
    body = tags.find_object(job.scene, job.collection, job.ids, "person", person.id)
    slots = [] if body is None else list(body.data.materials)
    material = person_material(job.ids, job.id, person.id, person.name, person.color)
    for slot in slots or [material]:
        data.materials.append(slot)
    if body is None:
        body = bpy.data.objects.new(person.name, data)
    else:
        body.data = data
    _claim(job, body, "person", person.name, person.id)
    body.color = linear(person.color)
    body[tags.FRAMES] = person.frames_per_state()
    imported.write(body, person.confidence, person.state, find_doubts(job.take, person.id, person.state, person.confidence))
    frames = job.frames(len(person.state))
    if mesh_cache:
        mesh.play_cache(body, job.id, person.cache, frames[slice(*person.vertices.span)], job.timing)
    else:
        mesh.stop_cache(body, job.id)
    times, root = job.timing.scene_frames(frames), mesh.to_blender(person.root[person.there])
    body.location = root[0]
    for axis in range(3):
        fcurves.write_curve(body, job.id, "location", axis, times[person.there], root[:, axis])
    _hide(job, body, person.state == State.ABSENT, times)
    return body


def _name_data(body: bpy.types.Object) -> None:
    """Name what is inside an object after it; that of an earlier import had the names until it was deleted. The action outlives imports."""
    keys, action = body.data.shape_keys, body.animation_data.action
    body.data.name = body.name
    if action.get(tags.ROLE) == "action":
        tags.rename(action, f"{body.name} motion")
    if keys is not None:
        keys.name = body.name
        keys.animation_data.action.name = f"{body.name} shape"


def _hide(job: _Import, body: bpy.types.Object, absent: np.ndarray, times: np.ndarray) -> None:
    """Hide the body on its absent samples; the user's own hiding stays where there are none."""
    paths = ("hide_viewport", "hide_render")
    if fcurves.remove_curves(body, job.id, set(paths)):
        body.hide_viewport = body.hide_render = False  # or it would stay as the curves had it at the current frame
    if absent.any():
        changes = np.append(0, 1 + np.flatnonzero(np.diff(absent.astype(np.int8))))
        for path in paths:
            fcurves.write_curve(body, job.id, path, 0, times[changes], absent[changes], "CONSTANT")


def _camera(job: _Import, people: list[PersonTrack], lens: CameraTrack) -> bpy.types.Object:
    """The camera with its lens and footage. That of the last import stays where the user put it."""
    clip, take = job.take.clip, job.take
    name = f"{job.name} camera" + (" (focal assumed)" if lens.method == "assumed" else "")
    block = tags.find_object(job.scene, job.collection, job.ids, "camera")
    if block is None:
        block = bpy.data.objects.new(name, bpy.data.cameras.new(name))
        cameras.place(block)
    data = block.data
    tags.tag(data, job.id, "camera")
    tags.rename(data, name)
    _claim(job, block, "camera", name)
    cameras.write_lens(data, job.id, clip["width"], clip["height"], lens.focal_px, lens.principal_px, job.timing.scene_frames(take.frames))
    depth = max((float(p.root[:, 2].max()) for p in people), default=0.0)
    data.clip_end = max(data.clip_end, 2 * depth)
    footage.show_behind(data, job.ids, job.id, take.path, clip, job.timing, job.report)
    block[tags.FOCAL] = _focal(lens)
    return block


def _focal(lens: CameraTrack) -> str:
    """Such as "1175.2 px, assumed (0.8 x the frame's diagonal)"."""
    return f"{_focal_px(lens)}, {lens.method}" + (f" ({lens.note})" if lens.note else "")


def _focal_px(lens: CameraTrack) -> str:
    low, high = float(lens.focal_px.min()), float(lens.focal_px.max())
    return f"{low:.1f} px" if high - low < 0.1 else f"{low:.1f} to {high:.1f} px"


def _remove_others(job: _Import, keep: list[bpy.types.Object]) -> None:
    """Remove people whom the take no longer has. Copies that the user made of others stay, and so does whoever is being computed anew."""
    people = {block.get(tags.PERSON) for block in keep} | {entry["id"] for entry in job.take.people if is_pending(job.take, entry["id"])}
    for block in [o for o in job.collection.objects if tags.is_ours(o, job.ids, "person") and o.get(tags.PERSON) not in people]:
        bpy.data.objects.remove(block)


def _scene(job: _Import, people: list[PersonTrack], camera: bpy.types.Object, matched: bool, items: dict) -> dict:
    """Markers, sound and settings. Returns what a later import must know of them."""
    scene, take, timing = job.scene, job.take, job.timing
    markers.remove_markers(scene, items.get("markers", []))
    gap = max(1, round(MARKER_GAP_S * Fraction(*take.clip["fps"]) / take.frames.step))
    items = {**items, "start": timing.start, "rate": timing.rate, "frames": [take.frames.start, take.frames.stop, take.frames.step], "markers": []}
    for person in people:
        items["markers"] += markers.add_markers(scene, person.name, person.state, timing.scene_frames(job.frames(len(person.state))), gap)
    if matched:
        cube = settings.hide_start_cube(scene)
        if cube:
            job.report(f"{cube} is hidden: the clip's camera is inside it.")
        settings.match(scene, take.clip, take.frames, timing, camera)
        earlier = items.get("sound")
        items["sound"] = footage.put_sound(scene, earlier, job.id, take.path, take.clip, timing, job.report)
        items["settings"] = settings.snapshot(scene)
        if items["sound"] and not earlier:
            scene.sync_mode = "AUDIO_SYNC"
    else:
        items.pop("settings", None)
        difference = settings.differences(scene, take.clip)
        if difference:
            job.report(difference)
    return items


def _describe(job: _Import, lens: CameraTrack, items: dict) -> None:
    if lens.method == "assumed":
        how = f", {lens.note}" if lens.note else ""
        lens_mm = float(lens.focal_px[0]) * cameras.SENSOR_MM / job.take.clip["width"]
        job.report(f"The focal length is assumed, not measured ({lens_mm:.1f} mm, that is {_focal_px(lens)}{how}): how far away the people are "
                   "depends on it.")
    job.collection[tags.TAKE] = tags.blend_path(job.take.path)
    job.collection[tags.FOCAL] = _focal(lens)
    job.collection[tags.NOTICES] = [*job.notices, *dict.fromkeys(filter(None, map(notice_for_user, job.take.notices())))]
    job.collection[tags.BACKEND] = job.take.backend
    corrections.imported(job.collection, items, len(job.ids) == 1, job.take.people)
    tags.write_items(job.collection, items)


def _is_linked(collection) -> bool:
    return any(collection in scene.collection.children_recursive for scene in bpy.data.scenes)
