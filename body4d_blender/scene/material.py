# SPDX-License-Identifier: GPL-3.0-or-later
"""A material in the person's colour, for solid view and renders alike."""

import bpy

from . import tags

COLOR = "body4d_color"


def linear(color) -> tuple[float, float, float, float]:
    """sRGB (r, g, b) 0..1 as the linear colour with alpha that Blender's properties take."""
    return (*(c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color), 1.0)


def person_material(take_ids: set[str], take_id: str, person: int, name: str, color) -> bpy.types.Material:
    """The person's material, made or found. One whose take colour has not changed keeps what the user did to it."""
    material = next((m for m in bpy.data.materials if tags.is_ours(m, take_ids, "material", person)), None)
    if material is None:
        material = bpy.data.materials.new(name)
        if material.node_tree is None:
            material.use_nodes = True  # always on from 5.0
    tags.tag(material, take_id, "material", person)
    tags.rename(material, name)
    if list(material.get(COLOR, ())) != list(color):
        material[COLOR] = list(color)
        material.diffuse_color = linear(color)
        shader = next((n for n in material.node_tree.nodes if n.type == "BSDF_PRINCIPLED"), None)
        if shader is not None:
            shader.inputs["Base Color"].default_value = linear(color)
            shader.inputs["Roughness"].default_value = 0.6
    return material
