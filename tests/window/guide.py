# SPDX-License-Identifier: Apache-2.0
"""The pictures of docs/guide.md, taken in a real window: `python -m tests.window.guide TREE CLIP FOLDER`. scripts/make_guide.py sets it up."""

import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from . import actions
from .window import Window

LARGEST_BYTES = 150_000
WIDTH = 1000  # px, of the widest picture
WHOLE = 0, 0, 1600, 900
VIEWS = 0, 28, 1322, 782  # without the outliner and the properties
EDITOR = 0, 28, 664, 784
SIDEBAR = 1036, 82, 286, 716
DIALOG = 420, 402, 430, 158
PREVIEWS = "[o for o in bpy.context.scene.objects if o.get('body4d_role') == 'preview']"


class Camera:
    """Takes pictures of a window into a folder."""

    def __init__(self, window: Window, folder: Path):
        self._window, self._folder = window, folder

    def take(self, name: str, part: tuple = WHOLE, seconds: float = 1.0) -> None:
        """A part (left, top, width, height) of the screen as NAME.png, as many colours as the size allows."""
        window = self._window
        time.sleep(seconds)
        window.shot(self._folder / f"{name}.png")
        left, top, width, height = part
        for colors in (256, 128, 64, 32, 16):
            done = window._run("convert", f"{window.inside}/shot.png", "-crop", f"{width}x{height}+{left}+{top}", "+repage", "-resize", f"{WIDTH}x{WIDTH}>",
                               "-strip", "+dither", "-colors", str(colors), "-define", "png:compression-level=9", f"png8:{window.inside}/small.png")
            assert done.returncode == 0, done.stderr
            if (window.folder / "small.png").stat().st_size < LARGEST_BYTES:
                break
        shutil.copy(window.folder / "small.png", self._folder / f"{name}.png")
        print(name, (self._folder / f"{name}.png").stat().st_size, flush=True)


def main(tree: Path, clip: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    window = Window(tree, "guide")
    camera = Camera(window, folder)
    try:
        window.start(checkout=False, **actions.registry(window))
        install(window, camera)
        shutil.copy(clip, window.folder / "demo.mp4")
        pick(window, camera)
        generate(window, camera)
    finally:
        window.stop()


def install(window: Window, camera: Camera) -> None:
    with tempfile.TemporaryDirectory() as work:
        package = actions.build_zip(Path(work))
        shutil.copy(package, window.folder)
    actions.drop(window, f"{window.inside}/{package.name}")
    camera.take("install", DIALOG, 1.5)
    actions.confirm(window)
    window.ask("bpy.context.preferences.system.use_online_access = True")
    window.ask("bpy.data.batch_remove(list(bpy.context.scene.objects))")
    actions.open_tab(window)
    camera.take("no_engine", (SIDEBAR[0], SIDEBAR[1], SIDEBAR[2], 210))
    actions.open_preferences(window)
    camera.take("engine", actions.PREFERENCES)
    window.press("body4d.install_engine")
    window.until("'so far' in install.job.progress.text", 120)
    camera.take("installing", (*actions.PREFERENCES[:3], 330), 0.0)
    window.until("not install.is_installing() and connection.hello()", 400)
    camera.take("installed", actions.PREFERENCES)
    window.ask(actions.CLOSE)


def pick(window: Window, camera: Camera) -> None:
    actions.choose(window, f"{window.inside}/demo.mp4")
    window.move(800, 880)
    camera.take("clip", SIDEBAR)
    full(window, camera)
    window.ask("bpy.context.scene.frame_current = 100")
    window.press("body4d.pick_people")
    window.until(actions.EDITOR_SHOWS, 60)
    window.until("any(key[0] == 'detect' and key[2] == 99 for key in asking.asker.answers)", 60)
    for x, y in (actions.MAN, actions.WOMAN):
        window.move(*actions.spot(window, x, y))
        window.until(f"drawing.cursor and abs(drawing.cursor[0] - {x}) < 5")
    camera.take("hover", EDITOR, 1.5)
    for place in (actions.MAN, actions.WOMAN):
        window.click(*actions.spot(window, *place))
        window.until("bpy.context.scene.body4d.active_person >= 0")
        window.key("Return")
        window.until("bpy.context.scene.body4d.active_person == -1")
    window.wait_for(lambda: actions.shown(window) == 2, "both masks")
    window.ask("for person, name in zip(bpy.context.scene.body4d.people, ('Tom', 'Ana')):\n    person.name = name\nasking.redraw()")
    window.move(800, 880)
    camera.take("picked", VIEWS)
    window.move(*actions.spot(window, 300, 300))
    window.key("Escape")


def full(window: Window, camera: Camera) -> None:
    """The full backend is chosen, which lacks much here; what the examination says of that."""
    window.ask("bpy.context.scene.body4d.backend = 'full'")
    window.press("body4d.examine")
    window.until("examining.checks", 120)
    window.move(800, 880)
    top = window.header("BODY4D_PT_generate")[1] - 8
    camera.take("full", (SIDEBAR[0], top, SIDEBAR[2], SIDEBAR[1] + SIDEBAR[3] - top), 2.0)
    actions.show_preferences(window)
    for steps in (-60, 8):  # to its end, and up to where the list begins
        window.scroll(actions.PREFERENCES[0] + 300, actions.PREFERENCES[1] + 300, steps)
    camera.take("doctor", actions.PREFERENCES, 2.0)
    window.ask(actions.CLOSE)
    window.ask("bpy.context.scene.body4d.backend = 'lite'\nexamining.forget()")


def generate(window: Window, camera: Camera) -> None:
    window.press("body4d.generate")
    window.until(f"generating.last_error or len({PREVIEWS}) == 2", 200)
    for engine in window.engines():
        os.kill(engine, signal.SIGSTOP)  # as long as the picture is taken
    camera.take("streaming", VIEWS)
    for engine in window.engines():
        os.kill(engine, signal.SIGCONT)
    window.ask("bpy.ops.body4d.cancel()")
    window.until("not generating.current", 10)
    camera.take("cancelled", SIDEBAR, 3.0)
    window.press("body4d.generate")
    window.until("generating.current")
    window.until("not generating.current", 300)
    assert not window.ask("print(generating.last_error)")
    window.ask("bpy.context.scene.frame_current = 100")
    window.move(800, 880)
    camera.take("result", VIEWS)
    take(window, camera)


def take(window: Window, camera: Camera) -> None:
    """The take's panel: two of the others closed, so that it is seen whole."""
    window.ask("""
view_layer = bpy.context.view_layer
view_layer.objects.active = next(o for o in bpy.context.scene.objects if o.get("body4d_role") == "person")
""")
    for panel in ("BODY4D_PT_people", "BODY4D_PT_generate"):
        window.click(*window.header(panel))
    window.move(800, 880)
    camera.take("take", (SIDEBAR[0], window.header("BODY4D_PT_take")[1] - 6, SIDEBAR[2], 442), 2.0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
