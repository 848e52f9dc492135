# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine in an environment of its own: installed, verified, repaired, removed. No bpy, and nothing ever goes into Blender's Python.

Everything lies in one folder, `root`:

    engine-N/     a virtual environment with the packages of the lock, the engine and its models. It counts only once `engine-N/body4d.json`
                  says that it was verified; that file is written last, so an installation cut short is never taken for a good one
    full-N/       the full engine's packages, under the same rule; the environment lets them in by a .pth file
    wheels/       optional: the packages as files, put there by a user whose machine may not go online
"""

from .bundle import Bundle, find_bundle
from .environment import Status, is_held, python_of, remove, remove_full, size_bytes, size_text, status
from .full import InstallFull, LogIn, LookFull
from .install import DOWNLOAD_BYTES, UNPACKED_BYTES, Install
from .job import Job, Progress

__all__ = ["DOWNLOAD_BYTES", "UNPACKED_BYTES", "Bundle", "Install", "InstallFull", "Job", "LogIn", "LookFull", "Progress", "Status", "find_bundle", "is_held",
           "python_of", "remove", "remove_full", "size_bytes", "size_text", "status"]
