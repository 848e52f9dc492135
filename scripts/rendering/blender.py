# SPDX-License-Identifier: Apache-2.0
"""Draws a baked scene with Cycles on the processor. Runs in a Python that has bpy and nothing of the engine.

    python blender.py SCENE_FOLDER        reads scene.json and person_*.npz, writes pictures into frames/

With "silhouette" in scene.json nothing but the people is drawn, with their coverage as alpha.

A camera that stands still sees the same picture wherever nobody is: that is drawn once (empty.png), and for each frame only the parts that people
or their shadows change (NNNNNN_X_Y.png). A camera that moves gets whole pictures (NNNNNN_0_0.png).
"""

import json
import sys
from pathlib import Path

import bpy
import numpy as np
from mathutils import Matrix

UPRIGHT = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], float)  # y down, z ahead -> Blender's z up, y ahead
CAMERA_AXES = np.diag([1.0, -1.0, -1.0])
MARGIN_PX = 12


def render(folder: Path) -> None:
    spec = json.loads((folder / "scene.json").read_text(encoding="utf-8"))
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    scene = bpy.context.scene
    settings(scene, spec)
    light(scene, spec)
    for item in [] if spec["silhouette"] else spec["props"]:
        link(scene, prop(item))
    people = []
    for path in sorted(folder.glob("person_*.npz")):
        with np.load(path) as file:
            data = {name: file[name] for name in file.files}
        people.append((link(scene, person(path.stem, data)), data["vertices"]))
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    link(scene, camera)
    scene.camera = camera
    lens(camera.data, spec)
    frames = folder / "frames"
    frames.mkdir(exist_ok=True)
    still = np.ptp(spec["R"], axis=0).max() == 0 and np.ptp(spec["t"], axis=0).max() == 0
    if still:
        place(camera, np.array(spec["R"][0]), np.array(spec["t"][0]))
        for made, _ in people:
            made.hide_render = True
        draw(scene, frames / "empty.png", spec)
        for made, _ in people:
            made.hide_render = False
    for frame, (rotation, translation) in enumerate(zip(spec["R"], spec["t"])):
        rotation, translation = np.array(rotation), np.array(translation)
        place(camera, rotation, translation)
        for made, vertices in people:
            shape(made.data, vertices[frame])
        scene.cycles.seed = frame
        whole = [0, 0, spec["width"], spec["height"]]
        for region in touched([v[frame] @ rotation.T + translation for _, v in people], rotation, translation, spec) if still else [whole]:
            draw(scene, frames / ("%06d_%d_%d.png" % (frame, *region[:2])), spec, region)
        print("frame", frame, flush=True)


def draw(scene, path, spec, region=None) -> None:
    """Render the picture, or its part x0, y0, x1, y1 in px from the top left."""
    render = scene.render
    render.use_border = render.use_crop_to_border = region is not None
    if region is not None:
        x0, y0, x1, y1 = (float(v) for v in region)
        width, height, inside = spec["width"], spec["height"], 0.25  # so that neither rounding nor cutting off moves an edge
        render.border_min_x, render.border_max_x = (x0 + inside) / width, (x1 + inside) / width
        render.border_min_y, render.border_max_y = (height - y1 + inside) / height, (height - y0 + inside) / height
    render.filepath = str(path)
    bpy.ops.render.render(write_still=True)


def touched(people, rotation, translation, spec) -> list:
    """Parts of the picture (x0, y0, x1, y1 px) that people, given in the camera's axes, and their shadows on the ground may change."""
    size, parts = np.array([spec["width"], spec["height"]]), []
    sun = np.array(spec["sun"]) / np.linalg.norm(spec["sun"])
    for points in people:
        world = (points - translation) @ rotation
        shadow = (world - sun * (world[:, 1:2] / sun[1])) @ rotation.T + translation
        points = np.concatenate([points, shadow])
        points = points[points[:, 2] > 0.1] @ np.array(spec["K"]).T
        pixels = points[:, :2] / points[:, 2:]
        low = np.clip(np.floor(pixels.min(0)) - MARGIN_PX, 0, size)
        high = np.clip(np.ceil(pixels.max(0)) + MARGIN_PX, 0, size)
        if (high > low + 1).all():
            parts.append([*low.astype(int), *high.astype(int)])
    merged = True
    while merged:  # one part for those that overlap
        merged = False
        for i in range(len(parts)):
            for j in range(i):
                a, b = parts[i], parts[j]
                if max(a[0], b[0]) < min(a[2], b[2]) and max(a[1], b[1]) < min(a[3], b[3]):
                    parts[j] = [min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])]
                    del parts[i]
                    merged = True
                    break
            if merged:
                break
    return parts


def settings(scene, spec) -> None:
    render = scene.render
    render.engine = "CYCLES"
    render.resolution_x, render.resolution_y, render.resolution_percentage = spec["width"], spec["height"], 100
    render.threads_mode, render.threads = "FIXED", spec["threads"]
    render.use_persistent_data = True
    render.image_settings.file_format, render.image_settings.color_mode, render.image_settings.compression = "PNG", "RGBA" if spec["silhouette"] else "RGB", 5
    render.film_transparent = spec["silhouette"]
    scene.view_settings.view_transform, scene.view_settings.look, scene.view_settings.exposure = "Standard", "None", spec["exposure"]
    cycles = scene.cycles
    cycles.device, cycles.samples, cycles.use_denoising, cycles.use_adaptive_sampling = "CPU", spec["samples"], False, False
    cycles.max_bounces = cycles.diffuse_bounces = cycles.glossy_bounces = cycles.transmission_bounces = 0
    cycles.pixel_filter_type, cycles.filter_width = "GAUSSIAN", 1.6


def light(scene, spec) -> None:
    sun = bpy.data.lights.new("sun", "SUN")
    sun.energy, sun.color, sun.angle = spec["sun_strength"], spec["sun_color"], spec["sun_angle"]
    sun_object = link(scene, bpy.data.objects.new("sun", sun))
    towards = UPRIGHT @ np.array(spec["sun"])  # towards the light
    z = towards / np.linalg.norm(towards)
    x = np.cross([0.0, 1.0, 0.1], z)
    x /= np.linalg.norm(x)
    sun_object.matrix_world = Matrix(np.block([[np.stack([x, np.cross(z, x), z], 1), np.zeros((3, 1))], [np.zeros((1, 3)), np.ones((1, 1))]]).tolist())
    world = bpy.data.worlds.new("sky")
    scene.world = world
    world.use_nodes = True
    tree = world.node_tree
    background = tree.nodes["Background"]
    background.inputs["Strength"].default_value = spec["sky_strength"]
    ramp = tree.nodes.new("ShaderNodeValToRGB")
    ramp.color_ramp.elements[0].color, ramp.color_ramp.elements[1].color = (*spec["sky"][0], 1), (*spec["sky"][1], 1)
    ramp.color_ramp.elements[0].position, ramp.color_ramp.elements[1].position = 0.48, 0.85
    height = tree.nodes.new("ShaderNodeSeparateXYZ")
    half = tree.nodes.new("ShaderNodeMath")
    half.operation = "MULTIPLY_ADD"
    half.inputs[1].default_value = half.inputs[2].default_value = 0.5
    where = tree.nodes.new("ShaderNodeTexCoord")
    tree.links.new(where.outputs["Generated"], height.inputs[0])
    tree.links.new(height.outputs["Z"], half.inputs[0])
    tree.links.new(half.outputs[0], ramp.inputs[0])
    tree.links.new(ramp.outputs[0], background.inputs["Color"])


def upright(points):
    return np.ascontiguousarray(points @ UPRIGHT.T, np.float32)


def mesh(name, vertices, faces):
    data = bpy.data.meshes.new(name)
    data.vertices.add(len(vertices))
    data.vertices.foreach_set("co", upright(vertices).ravel())
    faces = np.ascontiguousarray(faces, np.int32)
    data.loops.add(faces.size)
    data.loops.foreach_set("vertex_index", faces.ravel())
    data.polygons.add(len(faces))
    data.polygons.foreach_set("loop_start", np.arange(0, faces.size, faces.shape[1], dtype=np.int32))
    data.update(calc_edges=True)
    return data


def person(name, data):
    faces = data["faces"]
    surface = mesh(name, data["vertices"][0], faces)
    surface.shade_smooth()
    # An attribute called "color" comes out black in Cycles.
    colors = surface.color_attributes.new("paint", "FLOAT_COLOR", "CORNER")
    rgba = np.concatenate([data["colors"], np.ones((len(faces), 1))], 1)
    colors.data.foreach_set("color", np.repeat(rgba, 3, axis=0).astype(np.float32).ravel())
    rest = surface.attributes.new("rest", "FLOAT_VECTOR", "POINT")
    rest.data.foreach_set("vector", np.ascontiguousarray(data["rest"], np.float32).ravel())
    surface.materials.append(cloth_material(name))
    return bpy.data.objects.new(name, surface)


def shape(surface, vertices) -> None:
    surface.vertices.foreach_set("co", upright(vertices).ravel())
    surface.update()


def diffuse(name):
    material = bpy.data.materials.new(name)
    material.use_nodes = True
    nodes = material.node_tree.nodes
    nodes.clear()
    shader, out = nodes.new("ShaderNodeBsdfDiffuse"), nodes.new("ShaderNodeOutputMaterial")
    material.node_tree.links.new(shader.outputs[0], out.inputs["Surface"])
    return material, nodes, material.node_tree.links, shader


def cloth_material(name):
    material, nodes, links, shader = diffuse(name)
    color, rest, noise, bump = (nodes.new(kind) for kind in ("ShaderNodeAttribute", "ShaderNodeAttribute", "ShaderNodeTexNoise", "ShaderNodeBump"))
    color.attribute_name, rest.attribute_name = "paint", "rest"
    noise.inputs["Scale"].default_value = 22.0
    bump.inputs["Strength"].default_value, bump.inputs["Distance"].default_value = 0.35, 0.02
    links.new(rest.outputs["Vector"], noise.inputs["Vector"])
    links.new(noise.outputs[0], bump.inputs["Height"])
    links.new(bump.outputs[0], shader.inputs["Normal"])
    links.new(color.outputs["Color"], shader.inputs["Color"])
    return material


def prop(item):
    """A box, or a ball with a rough surface."""
    if item["kind"] == "box":
        data = mesh("box", np.array(item["vertices"]), item["faces"])
        made = bpy.data.objects.new("box", data)
    else:
        bpy.ops.mesh.primitive_ico_sphere_add(subdivisions=4, radius=1)
        made = bpy.context.object
        bpy.context.collection.objects.unlink(made)
        data = made.data
        points = np.empty(3 * len(data.vertices), np.float32)
        data.vertices.foreach_get("co", points)
        points = points.reshape(-1, 3)
        rough = 1 + 0.12 * np.random.default_rng(item["seed"]).normal(size=(len(points), 1))
        data.vertices.foreach_set("co", upright(points * rough * item["size"] + item["center"]).ravel())
        data.update()
    data.materials.append(surface_material(item))
    return made


def surface_material(item):
    material, nodes, links, shader = diffuse(item["texture"])
    where = nodes.new("ShaderNodeNewGeometry").outputs["Position"]
    first, second = (*item["colors"][0], 1), (*item["colors"][1], 1)
    scale = item["scale"]
    if item["texture"] == "bricks":
        axes = nodes.new("ShaderNodeSeparateXYZ")
        both, flat = nodes.new("ShaderNodeMath"), nodes.new("ShaderNodeCombineXYZ")  # walls stand: (x + y, z)
        links.new(where, axes.inputs[0])
        links.new(axes.outputs["X"], both.inputs[0])
        links.new(axes.outputs["Y"], both.inputs[1])
        links.new(both.outputs[0], flat.inputs["X"])
        links.new(axes.outputs["Z"], flat.inputs["Y"])
        texture = nodes.new("ShaderNodeTexBrick")
        texture.inputs["Color1"].default_value, texture.inputs["Color2"].default_value = first, second
        texture.inputs["Mortar"].default_value = (0.45, 0.43, 0.40, 1)
        links.new(flat.outputs[0], texture.inputs["Vector"])
    elif item["texture"] == "tiles":
        texture = nodes.new("ShaderNodeTexChecker")
        texture.inputs["Color1"].default_value, texture.inputs["Color2"].default_value = first, second
        links.new(where, texture.inputs["Vector"])
    else:
        noise, texture = nodes.new("ShaderNodeTexNoise"), nodes.new("ShaderNodeValToRGB")
        noise.inputs["Detail"].default_value = 5.0
        noise.inputs["Scale"].default_value = scale
        texture.color_ramp.elements[0].color, texture.color_ramp.elements[1].color = first, second
        texture.color_ramp.elements[0].position, texture.color_ramp.elements[1].position = 0.35, 0.65
        links.new(where, noise.inputs["Vector"])
        links.new(noise.outputs[0], texture.inputs[0])
    if "Scale" in texture.inputs:
        texture.inputs["Scale"].default_value = scale
    stain, mix = nodes.new("ShaderNodeTexNoise"), nodes.new("ShaderNodeMixRGB")
    stain.inputs["Scale"].default_value = 0.9
    mix.blend_type, mix.inputs[0].default_value = "OVERLAY", 0.7
    links.new(where, stain.inputs["Vector"])
    links.new(texture.outputs[0], mix.inputs[1])
    links.new(stain.outputs[0], mix.inputs[2])
    links.new(mix.outputs[0], shader.inputs["Color"])
    return material


def lens(data, spec) -> None:
    (focal, _, cx), (_, _, cy), _ = spec["K"]
    data.sensor_fit, data.sensor_width, data.clip_end = "HORIZONTAL", 36.0, 500.0
    data.lens = focal * 36.0 / spec["width"]
    data.shift_x, data.shift_y = (spec["width"] / 2 - cx) / spec["width"], (cy - spec["height"] / 2) / spec["width"]


def place(camera, rotation, translation) -> None:
    matrix = np.eye(4)
    matrix[:3, :3] = UPRIGHT @ rotation.T @ CAMERA_AXES
    matrix[:3, 3] = UPRIGHT @ (-rotation.T @ translation)
    camera.matrix_world = Matrix(matrix.tolist())


def link(scene, made):
    scene.collection.objects.link(made)
    return made


if __name__ == "__main__":
    render(Path(sys.argv[1]))
