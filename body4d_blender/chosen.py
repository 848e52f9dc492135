# SPDX-License-Identifier: GPL-3.0-or-later
"""What the user means by a file or folder that was chosen or dropped."""

from pathlib import Path

import bpy

MESHES = "mesh_4d_individual"  # the folder in SAM-Body4D's folder


class Dropped:
    """A file handler for what is dropped where a take can be seen."""

    @classmethod
    def poll_drop(cls, context):
        return context.area is not None and context.area.type in {"VIEW_3D", "OUTLINER"}


def importer(operator, handler, text: str):
    """(register, unregister) of an operator with its file handler and its line in File > Import."""
    register_classes, unregister_classes = bpy.utils.register_classes_factory((operator, handler))

    def line(self, context) -> None:
        self.layout.operator(operator.bl_idname, text=text)

    def register() -> None:
        register_classes()
        bpy.types.TOPBAR_MT_file_import.append(line)

    def unregister() -> None:
        bpy.types.TOPBAR_MT_file_import.remove(line)
        unregister_classes()

    return register, unregister


def sam_body4d_folder(path: Path) -> Path | None:
    """The folder of SAM-Body4D that this is, or that this file or folder belongs to."""
    return next((folder for folder in (path, *path.parents[:3]) if (folder / MESHES).is_dir()), None)


def sources_of(filepath: str, directory: str, names: list[str]) -> list[Path]:
    """What the user means: some .npz files, one for each person; a SAM-Body4D folder, from any file in it; a folder of .npz files."""
    folder = Path(bpy.path.abspath(directory)) if directory else None
    chosen = [folder / name for name in names if name] if folder else []
    if not chosen and (filepath or folder):
        chosen = [Path(bpy.path.abspath(filepath)) if filepath else folder]
    if chosen and all(path.suffix.lower() == ".npz" for path in chosen):
        return chosen
    whole = next(filter(None, map(sam_body4d_folder, chosen)), None)
    return [whole] if whole else chosen[:1]


def is_meshes(path: Path) -> bool:
    """Whether it is what another tool made, rather than a take."""
    return path.suffix.lower() == ".npz" or sam_body4d_folder(path) is not None


def take_folder(filepath: str, directory: str) -> Path | None:
    """The take that the user means: the folder itself, its take.json, or the folder that the file browser shows."""
    for text in (filepath, directory):
        path = Path(bpy.path.abspath(text)) if text else None
        if path is not None and path.name == "take.json":
            path = path.parent
        if path is not None and (path / "take.json").exists():
            return path
    return Path(bpy.path.abspath(filepath or directory)) if filepath or directory else None
