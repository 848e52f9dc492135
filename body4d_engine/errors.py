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


_MEMORY_WORDS = ("cannot allocate memory", "failed to map segment", "insufficient memory", "bad_alloc", "failed to reshape", "failed to prepare",
                 "resource temporarily unavailable", "out of memory", "defaultcpuallocator", "alloc_failed",
                 "unable to find an engine")  # a convolution on CUDA: torch has tried all ways, and none got the memory that it works in
_LOST_WORDS = ("cuda error", "cudnn error", "cublas_status", "cusolver error", "hip error", "command buffer")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this is a lack of memory, in the words of any library that we call: only Python and numpy say MemoryError."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in _MEMORY_WORDS)


def is_device_lost(error: BaseException) -> bool:
    """Whether this is a GPU that has failed, or its driver: after that it computes nothing more for this program. In the words of torch, whose class for it
    not all of its versions have."""
    return isinstance(error, RuntimeError) and not is_out_of_memory(error) and any(words in str(error).lower() for words in _LOST_WORDS)


def device_lost(where: str, error: BaseException) -> Body4DError:
    """What a user is told of it. where: in the middle of what."""
    line = (str(error).splitlines() or [""])[0]
    return Body4DError(f"The GPU has failed in the middle of {where}: {line}", "Run it again: it goes on where it stopped. If it fails again, restart the "
                       "computer or look for a newer driver.", "gpu_lost")
