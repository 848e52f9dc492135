# SPDX-License-Identifier: Apache-2.0
"""What a user does in the window, for tests and for the guide's pictures. Python run in Blender finds the add-on's modules by their bare names."""

import ast
import os
import shutil
import sys
from pathlib import Path

from .window import REDRAW, ROOT, Window

MAN, WOMAN = (648, 226), (1050, 650)  # of the demo clip, on clip frame 99, px
EXTENSION = "bl_ext.user_default.body4d"
SIDEBAR = """
for area in bpy.context.window_manager.windows[0].screen.areas:
    if area.type == "VIEW_3D":
        area.spaces.active.show_region_ui = True
"""
SIDEBAR_IS_OPEN = "any(r.type == 'UI' and r.width > 1 for a in bpy.context.window_manager.windows[0].screen.areas if a.type == 'VIEW_3D' for r in a.regions)"
TAB = """
for area in bpy.context.window_manager.windows[0].screen.areas:
    if area.type == "VIEW_3D":
        sidebar = next(r for r in area.regions if r.type == "UI")
        print(sidebar.active_panel_category)
        sidebar.active_panel_category = "Body4D"
        area.tag_redraw()
"""
EDITOR = """
area = next(a for a in bpy.context.window_manager.windows[0].screen.areas if a.type == "IMAGE_EDITOR")
region = next(r for r in area.regions if r.type == "WINDOW")
"""
EDITOR_SHOWS = "any(a.type == 'IMAGE_EDITOR' and a.spaces.active.image for a in bpy.context.window_manager.windows[0].screen.areas)"
DROP = """
window, dropped = bpy.context.window_manager.windows[0], []
def drop():
    with bpy.context.temp_override(window=window, area=next(a for a in window.screen.areas if a.type == "VIEW_3D")):
        bpy.ops.extensions.package_install_files("INVOKE_DEFAULT", url={path!r})
    dropped.append(True)
bpy.app.timers.register(drop, first_interval=0.1)
"""
CLOSE = """
window = bpy.context.window_manager.windows[-1]
with bpy.context.temp_override(window=window):
    bpy.ops.wm.window_close()
"""
SHOW = """
window = bpy.context.window_manager.windows[0]
def show():
    with bpy.context.temp_override(window=window, area=next(a for a in window.screen.areas if a.type == "VIEW_3D")):
        bpy.ops.preferences.addon_show(module={package!r})
bpy.app.timers.register(show, first_interval=0.1)
"""
FILES = "bpy.context.window_manager.windows[-1].screen.areas[0].spaces.active.params"
PREFERENCES = 100, 150, 687, 541  # left, top, width, height
REGISTRY = ("PIP_INDEX_URL", "PIP_TIMEOUT", "PIP_DEFAULT_TIMEOUT", "PIP_PROXY", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy")


def registry(window: Window) -> dict[str, str]:
    """Variables with which pip and Python inside the window's system reach the registry that pip reaches outside. What it fetched is kept there."""
    variables = {name: os.environ[name] for name in REGISTRY if name in os.environ}
    certificates = next((os.environ[name] for name in ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE") if name in os.environ),
                        "/etc/ssl/certs/ca-certificates.crt")
    if Path(certificates).is_file():
        shutil.copy(certificates, window.root / "tmp" / "certificates.crt")
        variables["PIP_CERT"] = variables["SSL_CERT_FILE"] = "/tmp/certificates.crt"
    return {**variables, "PIP_CACHE_DIR": "/var/cache/body4d-pip"}


def know(window: Window, package: str) -> None:
    """Let Python in Blender find the add-on's modules: `generating`, `asking` and so on."""
    window.ask(f"from {package} import asking, connection, drawing, examining, generating, state\nfrom {package}.operators import install\n")


def build_zip(folder: Path) -> Path:
    """The extension, as its users get it."""
    sys.path.insert(0, str(ROOT / "scripts"))
    import build_extension
    import pythons

    return build_extension.build(folder, pythons.current())


def drop(window: Window, path: str) -> None:
    """As when a file is dropped into the window: Blender's own dialog opens, with the pointer on it."""
    window.move(800, 450)
    window.ask(DROP.format(path=path))
    window.until("dropped")


def confirm(window: Window) -> None:
    """Blender's dialog about the dropped file, until the add-on is there."""
    for attempt in range(3):
        window.click(740, 543)  # OK
        try:
            window.until(f"{EXTENSION!r} in bpy.context.preferences.addons", 20)
            break
        except AssertionError:
            if attempt == 2:
                raise
    know(window, EXTENSION)


def open_tab(window: Window) -> None:
    """The sidebar's tab."""
    window.ask(SIDEBAR)
    window.until(SIDEBAR_IS_OPEN)
    window.wait_for(lambda: window.ask(TAB) == "Body4D", "the tab")  # it is there once the sidebar was drawn


def open_preferences(window: Window, package: str = EXTENSION) -> None:
    """With a click on the sidebar's button, which is there while there is no engine."""
    place = window.what_greys(f"from {package}.panels import clip as panel\nown = panel.engine_button\n"
                              "def grey(layout):\n    row = layout.row()\n    row.enabled = False\n    own(row)\npanel.engine_button = grey\n",
                              "panel.engine_button = own\n")
    window.click(*place)
    _place(window)


def show_preferences(window: Window, package: str = EXTENSION) -> None:
    """As buttons elsewhere do."""
    window.ask(SHOW.format(package=package))
    _place(window)


def _place(window: Window) -> None:
    window.until("len(bpy.context.window_manager.windows) == 2")
    window._do("search", "--name", "Preferences", "windowmove", *PREFERENCES[:2])  # it opens at the pointer
    window.until(f"bpy.context.window_manager.windows[1].x == {PREFERENCES[0]}")


def choose(window: Window, clip: str, frames: int = 230) -> None:
    """Choose the clip as its file browser does when it is confirmed."""
    window.ask(f"bpy.ops.body4d.choose_clip(filepath={clip!r})")
    window.until(f"bpy.context.scene.body4d.clip == {clip!r} and bpy.context.scene.body4d.clip_frames == {frames}", 90)


def spot(window: Window, x: float, y: float) -> tuple[int, int]:
    """Where on the screen a position in the clip is."""
    code = EDITOR + f"""
clip = bpy.context.scene.body4d
rx, ry = region.view2d.view_to_region({x} / clip.clip_width, 1 - {y} / clip.clip_height, clip=False)
print((region.x + rx, bpy.context.window_manager.windows[0].height - 1 - region.y - ry))
"""
    return ast.literal_eval(window.ask(code))


def people(window: Window) -> list:
    """(id, [(frame, positive)...]) of everyone in the list."""
    return ast.literal_eval(window.ask("print([(p.id, [(c.frame, c.positive) for c in p.clicks]) for p in bpy.context.scene.body4d.people])"))


def shown(window: Window) -> int:
    """How many masks the current frame has."""
    return int(window.ask("s = bpy.context.scene\nprint(sum(bool(a and a.areas) for a in asking.masks_on(s.body4d, state.clip_frame(s)).values()))"))


def pick_two(window: Window) -> None:
    """With real clicks on the demo clip's frame 100; the tool goes on."""
    window.ask("bpy.context.scene.frame_current = 100")
    window.press("body4d.pick_people")
    window.until(EDITOR_SHOWS, 60)
    for number, place in enumerate((MAN, WOMAN), 1):
        window.click(*spot(window, *place))
        window.until(f"len(bpy.context.scene.body4d.people) == {number}")
        window.key("Return")
        window.until("bpy.context.scene.body4d.active_person == -1")
    window.wait_for(lambda: shown(window) == 2, "both masks")


def import_by_menu(window: Window, picture: Path) -> None:
    """File > Import > Body4D Take, and in Blender's file browser the take.json in the first folder that it shows."""
    def browser_is_open() -> bool:
        if window.ask("print(len(bpy.context.window_manager.windows))") == "1":
            window.key("Escape")  # a menu of a try before: it closes where the mouse is ahead of the drawing
            for place in ((46, 14), (80, 311), (331, 478)):
                window.click(*place)
                window.ask(REDRAW)
        return window.ask("print(len(bpy.context.window_manager.windows))") == "2"

    window.wait_for(browser_is_open, "the file browser")
    window.wait_for(lambda: window.double_click(543, 216) or window.ask(f"print({FILES}.directory)").endswith(".take/'"), "the folder")
    window.wait_for(lambda: window.click(543, 236) or window.ask(f"print({FILES}.filename)") == "take.json", "the file")
    window.shot(picture)
    window.click(1279, 741)  # Import
    window.until("len(bpy.context.window_manager.windows) == 1")
