# SPDX-License-Identifier: GPL-3.0-or-later
"""Body4D in Blender: takes become animated people, videos become takes with the help of an engine outside Blender.

Works as `body4d_blender` from a checkout and as an installed extension (`bl_ext.*.body4d`). `body4d_engine.take`, which reads takes, comes
with the extension as a wheel.
"""

from . import restart

_registered: list = []


def parts() -> tuple:
    """What is registered, in order. Imported only now: after an update the rest may not fit the engine's modules that are still loaded."""
    if restart.needed():
        return (restart,)
    from . import command, connection, drawing, generating, operators, panels, preferences, state

    return preferences, state, connection, drawing, generating, operators, panels, command


def register() -> None:
    for part in parts():
        part.register()
        _registered.append(part)


def unregister() -> None:
    while _registered:
        _registered.pop().unregister()
