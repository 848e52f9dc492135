# SPDX-License-Identifier: Apache-2.0
"""The engine as one long-lived child: requests on stdin, answers, events and growing takes on stdout. It ends when stdin closes.

Requests (JSON-RPC over `wire`; the two sides need not share a file system). Frames are clip frames from 0, positions px of the upright frame:
    hello {protocol}                  -> {protocol, engine, python, device, backends: {name: {lacks, models: {whose: lacks}}}, cache_bytes}
    offer {name, files: [{name, bytes}], sha256, path?, stamp?} -> {have, received?}: as `clip_files.identify` says it; whether the engine has that clip:
                                         a copy, or the very same bytes at `path`, which are then used in place, and not read where they have the very
                                         stamp. files: here, or as an array of its JSON (`wire.pack_json`): those of a long sequence of images are too
                                         many for a line. received: so many bytes of the whole came before; the rest may follow
    send  {sha256, file, offset} + array `bytes` -> {received}: bytes of the whole clip; files in order, each from its start
    open  {sha256, image_fps?}        -> {clip: {name, width, height, fps: [n, d], frames, notices, blender_reasons}}; it is what the next three are about.
                                         Its file is let go of while nobody asks
    close_clip {}                     -> {}: no clip is open any more
    picture {frame, max_side?}        -> {} + array `rgb` (H, W, 3) u1
    detect {frame, thorough?}         -> {people: [{box, score, click: [x, y] or null, mask}]} + arrays; a click there means this person.
                                         thorough: also those who are very small, which takes a second or so
    mask  {frame, person}             -> {box, confidence, hit, message, mask} + array: whom the person's prompts on that frame mean; where they mean
                                         nobody, hit is false, message says why, and the others are null
    run   {sha256, take, backend?, people?, settings?, range?, fresh?, until?, image_fps?, copy?} -> {summary}; meanwhile notifications `event` (progress with
                                         rate and seconds_left, or null), `take/bytes` and `take/commit`, what an event tells of always before it.
                                         range: [start, end or null, step]; until: the last stage to run. The same again goes on where it stopped.
                                         settings: see `settings`; people: as `Person.to_json`, with prompts, heights and corrections, all of them each
                                         time. What neither changes is not done again.
                                         copy: where the client has that take; it is gone on with where the engine's own is gone but sees that one.
                                         With the array `held` (`wire.pack_held` of the client's copy) only what that lacks is sent
    cancel {}                         -> {} at once; what was asked for before it answers with the error `cancelled`; what a run committed stays
    close {take, copy?}               -> {}: the engine's copy of that take is deleted; with `copy`, where the client has it, only if that is seen here
                                         and as good: a run goes on with it at once, and the disk holds the take once
    cache {}                          -> {bytes} that clips and takes occupy here
    clear {}                          -> {bytes} that were freed; nothing that is in use
    doctor {online?}                  -> {examination}: what `body4d doctor --json` says; online: the hub is asked too. It takes seconds

A mask is {size: [H, W], array}: the name of an array to unpack with `wire.unpack_mask`. Runs come one after the other; all other requests are answered
during a run too, at its next picture or event. Errors carry {code, message, data: {code, hint, traceback}}. Where a message cannot be understood, an
error without an id is sent and the engine ends.
"""

import os
import sys
from pathlib import Path

from .. import wire
from .server import Server

__all__ = ["Server", "serve"]


def serve() -> int:
    """Serve until stdin closes. File descriptors 0 and 1 are moved away first: what a library prints goes to the log, and none reads our input."""
    inn, out = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    folder = Path(os.environ.get("BODY4D_CACHE") or Path.home() / ".cache" / "body4d" / "serve")  # /tmp may be memory, and is everybody's
    folder.mkdir(parents=True, exist_ok=True)
    wire.greet(out)
    Server(inn, out, folder).serve()
    return 0
