# SPDX-License-Identifier: GPL-3.0-or-later
"""`blender --command body4d convert VIDEO...`: from videos to .blend files without a window."""

import argparse
import sys
from pathlib import Path

import bpy

from body4d_engine.errors import Body4DError
from body4d_engine.people import load_people

from . import connection, generating
from .engine import EngineError, result_name
from .opening import IMAGE_FPS
from .scene.file import new_file, save_blend

_handle = None


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="blender --command body4d")
    commands = parser.add_subparsers(dest="command", required=True)
    convert = commands.add_parser("convert", help="make NAME.take and NAME.blend of each video")
    convert.add_argument("videos", nargs="+", metavar="VIDEO", type=Path)
    convert.add_argument("--out", type=Path, metavar="DIR", help="where the results go (beside each video)")
    convert.add_argument("--engine", default="", metavar="PYTHON", help="Python or body4d program of an engine environment, or a whole command")
    convert.add_argument("--backend", choices=("lite", "full"), default="lite", help="lite, or the large published networks (%(default)s)")
    full = convert.add_argument_group("for --backend full")
    full.add_argument("--body-only", action="store_true", help="hands get no look of their own, which is quicker")
    full.add_argument("--weights", metavar="FOLDER", help="where its weights are, as the engine sees it; else where `body4d setup full` put them")
    full.add_argument("--memory-limit", type=float, metavar="GB", help="how much of the device's memory it may take")
    full.add_argument("--models", choices=("ours", "official"), default="ours", help="whose code runs the networks (%(default)s)")
    convert.add_argument("--people", default="auto", metavar="auto|FILE", help="everyone who is found, or a JSON file of people")
    convert.add_argument("--image-fps", type=float, default=IMAGE_FPS, metavar="RATE", help="frames per second of folders of images (%(default)g)")
    convert.add_argument("--mesh-cache", action="store_true", help="play the take's point cache instead of shape keys")
    build = commands.add_parser("build", help="make a .blend of a take that exists")
    build.add_argument("take", metavar="TAKE", type=Path)
    build.add_argument("--out", type=Path, metavar="FILE.blend", help="NAME.blend beside the take")
    build.add_argument("--mesh-cache", action="store_true", help="play the take's point cache instead of shape keys")
    return parser


def run(argv: list[str]) -> int:
    """The command's exit code: 0, or 1 where something failed, 2 where the options make no sense."""
    try:
        options = parser().parse_args(argv)
    except SystemExit as error:
        return error.code or 0
    if options.command == "build":
        return _attempt(options.take, _build, options.out or options.take.absolute().with_suffix(".blend"), options.mesh_cache)
    connection.use(options.engine)
    try:
        return max(_attempt(video, _convert, name, options) for video, name in zip(options.videos, _names(options.videos)))
    finally:
        connection.stop()


def _names(videos: list[Path]) -> list[str]:
    """What each video's results are called: its own name, numbered where another of the same name came before."""
    names = []
    for video in videos:
        own, number = result_name(video), 2
        name = own
        while name.casefold() in map(str.casefold, names):  # on Windows and macOS they are one file
            name, number = f"{own}_{number}", number + 1
        names.append(name)
    return names


def _attempt(what: Path, work, *arguments) -> int:
    """Do the work for one file; the next one goes on after a failure."""
    try:
        work(what, *arguments)
    except (Body4DError, RuntimeError, OSError) as error:
        print(f"{what}: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


def _convert(video: Path, name: str, options) -> None:
    if not video.exists():
        raise EngineError("There is no such file or folder.")
    folder = (options.out or video.parent).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    take = folder / f"{name}.take"
    people = [] if options.people == "auto" else [person.to_json() for person in load_people(options.people)]
    order = generating.Order(clip=video.absolute(), take=take, people=people, image_fps=options.image_fps, backend=options.backend,
                             settings=_settings(options))
    generating.make(order, say=lambda text: print(f"{video.name}: {text}", flush=True))
    _build(take, folder / f"{name}.blend", options.mesh_cache)


def _settings(options) -> dict:
    """Of a `run`."""
    if options.backend != "full":
        return {}
    limit = None if options.memory_limit is None else round(options.memory_limit * 1e9)
    return {"hands": not options.body_only, "models": options.models, "weights": options.weights, "memory_limit": limit}


def _build(take: Path, out: Path, mesh_cache: bool) -> None:
    new_file()
    print(f"Saved {save_blend(take, out, mesh_cache=mesh_cache, report=lambda text: print(f'note: {text}'))}", flush=True)


def register() -> None:
    global _handle
    _handle = bpy.utils.register_cli_command("body4d", run)


def unregister() -> None:
    bpy.utils.unregister_cli_command(_handle)
