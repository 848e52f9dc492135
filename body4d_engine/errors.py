# SPDX-License-Identifier: Apache-2.0
"""The one kind of error that a user is meant to read."""


class Body4DError(Exception):
    """What happened, to which file, frame or person, and what to do next.

    `message` says what happened, `hint` what to do about it, `code` is a short stable name for programs.
    """

    def __init__(self, message: str, hint: str = "", code: str = "error"):
        super().__init__(f"{message} {hint}".strip())
        self.message, self.hint, self.code = message, hint, code

    def to_json(self) -> dict:
        return {"message": self.message, "hint": self.hint, "code": self.code}


class TakeError(Body4DError):
    """The take folder cannot be made, read or written."""
