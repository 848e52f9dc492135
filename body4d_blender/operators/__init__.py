# SPDX-License-Identifier: GPL-3.0-or-later
from . import convert, import_take


def register() -> None:
    import_take.register()
    convert.register()


def unregister() -> None:
    convert.unregister()
    import_take.unregister()
