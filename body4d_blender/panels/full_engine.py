# SPDX-License-Identifier: GPL-3.0-or-later
"""The full engine in the preferences: what it needs here, its installation, what went wrong with pages to open."""

import bpy

from .. import engine, examining, installing
from ..operators import full_engine, install
from .common import wrapped

TOKENS = "https://huggingface.co/settings/tokens"


def draw(self, box, found: installing.Status, width: int) -> None:
    """self: the add-on's preferences; found: the lite engine, which the full one is added to; width: characters a line."""
    box.label(text="Full Engine")
    if self.engine:
        _elsewhere(self.engine, box, width)
    elif found.state != "complete":
        wrapped(box, "It is added to the lite engine: install or update that first.", "INFO", width)
    elif full_engine.of_full_engine() and install.is_installing():
        progress = install.job.progress
        split = box.split(factor=0.75)
        split.progress(factor=progress.fraction, type="BAR", text=progress.text)
        split.operator("body4d.cancel_install", icon="CANCEL")
    else:
        _state(self, box, found, width)
        if full_engine.plan():
            _plan(box, full_engine.plan(), width)
        if full_engine.of_full_engine() and install.job.error:
            _failure(box, install.job, width)
        elif full_engine.of_full_engine() and full_engine.plan() is None:
            wrapped(box, install.job.progress.text, "CHECKMARK", width)
    box.use_property_split = True
    box.prop(self, "weights_folder", placeholder="The hub's cache")


def _state(self, box, found: installing.Status, width: int) -> None:
    if found.full is None:
        wrapped(box, "The published networks on PyTorch, for a GPU: several gigabytes of packages and weights. You are shown what and from where first.",
                "INFO", width)
    else:
        wrapped(box, f"Its packages are installed: {found.full['torch']}, {installing.size_text(found.full['bytes'])}" +
                ("; this add-on brings other versions" if found.full["outdated"] else ""), "FILE_REFRESH" if found.full["outdated"] else "CHECKMARK", width)
    row = box.row()
    if full_engine.plan() is None:
        text = "Install Full Engine" if found.full is None else "Complete or Update"
        row.operator("body4d.look_full_engine", text=text, icon="IMPORT")
    if found.full:
        row.operator("body4d.look_full_engine", text="Repair", icon="MODIFIER").repair = True
        row.operator("body4d.remove_full_engine", icon="TRASH")


def _plan(box, said: dict, width: int) -> None:
    column = box.box().column()
    for note in said["plan"]["notes"]:
        wrapped(column, note, "INFO", width)
    for here in said["plan"]["present"]:
        wrapped(column, f"Here: {here}", "CHECKMARK", width)
    for step in said["plan"]["steps"]:
        wrapped(column, full_engine.step_words(step), "IMPORT", width)
        if step["licence"]:
            wrapped(column, step["licence"], "ERROR" if "NON-COMMERCIAL" in step["licence"] or "NOT CLEAR" in step["licence"] else "BLANK1", width)
        if step["page"]:
            column.operator("wm.url_open", text=step["page"].split("://", 1)[1], icon="URL").url = step["page"]
    wrapped(column, full_engine.total_words(said), "NONE", width)
    if any(step["kind"] == "weights" for step in said["plan"]["steps"]):
        _login(column, said, width)
    row = column.row()
    if said["plan"]["steps"]:
        row.operator("body4d.install_full_engine", icon="IMPORT").repair = install.job.repair
    row.operator("body4d.look_full_engine", text="Look Again", icon="FILE_REFRESH").repair = install.job.repair
    row.operator("body4d.leave_full_engine", text="Not Now" if said["plan"]["steps"] else "Close")


def _login(column, said: dict, width: int) -> None:
    if said["logged_in"]:
        wrapped(column, f"Logged in at {said['hub']}", "CHECKMARK", width)
        return
    wrapped(column, f"Not logged in at {said['hub']}. Weights whose access has to be asked for are given to those who are: make an access token, copy "
            "it, and log in here once the packages are installed; or type `hf auth login` in a terminal.", "INFO", width)
    row = column.row()
    row.operator("wm.url_open", text=TOKENS.split("://", 1)[1], icon="URL").url = TOKENS
    if not any(step["kind"] == "packages" for step in said["plan"]["steps"]):  # the hub's library is one of those
        row.operator("body4d.hub_login", icon="KEYINGSET")


def _failure(box, job: installing.Job, width: int) -> None:
    wrapped(box, str(job.error), "INFO" if job.error.code == "cancelled" else "ERROR", width)
    for page in dict.fromkeys(examining.URL.findall(str(job.error))):
        box.operator("wm.url_open", text=page.split("://", 1)[1], icon="URL").url = page
    row = box.row()
    if job.error.code in ("no_login", "bad_token", "token_too_narrow"):
        row.operator("body4d.hub_login", icon="KEYINGSET")
    if job.error.code != "cancelled":
        row.operator("body4d.copy_install_text", icon="COPYDOWN")


def _elsewhere(setting: str, box, width: int) -> None:
    try:
        words = engine.setup_words(bpy.path.abspath(setting))
    except engine.EngineError:
        return  # which the box of the engine tells
    wrapped(box, f"The engine in use is not the one installed here. Its full backend is set up where it runs, in a terminal: {words}", "INFO", width)
