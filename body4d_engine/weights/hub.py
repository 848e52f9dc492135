# SPDX-License-Identifier: Apache-2.0
"""Fetches weights from the hub as its user: their login, HF_ENDPOINT, HF_HOME; goes on where a broken download stopped; checks what came.

huggingface_hub knows logins, addresses and refusals, and is asked for them and for the bytes; the unfinished file is kept here, since that library
throws it away when a download fails. What is whole and sound is moved to its place at once, so nothing half can be taken for a file.
"""

import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ..errors import Body4DError
from .catalogue import HUB, Weights
from .explaining import endpoint, explained
from .places import hub_cache
from .verifying import digest, is_checksum

ATTEMPTS = 3  # of one file, each with a new address: those of the hub's storage end after some time


@dataclass(frozen=True)
class Remote:
    """What the hub says of a file. `etag`: its checksum, as a rule."""

    address: str
    etag: str
    bytes: int


def ask(weights: Weights, name: str) -> Remote:
    """What the hub says of a file, which also shows whether this user may have it. Raises Body4DError with the way on."""
    huggingface_hub = library()
    try:
        url = huggingface_hub.hf_hub_url(weights.repository, name, endpoint=endpoint())
        found = huggingface_hub.get_hf_file_metadata(url, token=huggingface_hub.get_token() or False, endpoint=endpoint())
    except Exception as error:
        raise explained(error, weights, name) from error
    if not found.etag or found.size is None:
        raise Body4DError(f"{endpoint()} does not answer as a hub does.", "Check HF_ENDPOINT and the proxy.", "hub_strange")
    return Remote(found.location, found.etag, found.size)


def fetch(weights: Weights, name: str, folder: Path | None, remote: Remote, progress: Callable[[int, int], None] = lambda done, total: None) -> Path:
    """The file, in `folder`/<weights>/<name>, or in the hub's cache where `folder` is None. `progress`: bytes done, of how many; what an earlier run
    fetched counts as done. Raises Body4DError; what came so far is kept, unless it is damaged."""
    if folder is None:
        blobs = hub_cache() / f"models--{weights.repository.replace('/', '--')}" / "blobs"
        target, part = blobs / remote.etag, blobs / f"{remote.etag}.part"
    else:
        target = folder / weights.name / name
        part = target.with_name(f"{target.name}.{remote.etag[:12]}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for old in set(target.parent.glob(f"{target.name}.*.part")) - {part}:  # of a file that the hub has replaced since
            old.unlink()
        if folder or not (target.is_file() and target.stat().st_size == remote.bytes and digest(target, remote.etag) == remote.etag):
            _download(weights, name, part, remote, progress)
            _check(weights, name, part, remote)
            os.replace(part, target)
        return target if folder else Path(library().hf_hub_download(weights.repository, name, cache_dir=str(hub_cache()), endpoint=endpoint()))
    except Body4DError:
        raise
    except Exception as error:
        raise explained(error, weights, name) from error


def _download(weights: Weights, name: str, part: Path, remote: Remote, progress: Callable[[int, int], None]) -> None:
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import are_progress_bars_disabled, build_hf_headers, disable_progress_bars, enable_progress_bars

    part.touch()
    if part.stat().st_size > remote.bytes:
        part.write_bytes(b"")
    quiet, total = are_progress_bars_disabled(), remote.bytes
    disable_progress_bars()  # ours are shown
    try:
        for attempt in range(ATTEMPTS):
            before = part.stat().st_size
            progress(before, total)
            headers = build_hf_headers(token=_token_for(remote.address))
            headers["Accept-Encoding"] = "identity"  # else no server can go on in the middle
            try:
                with _Part(part, lambda done: progress(done, total)) as file:
                    file.seek(0, io.SEEK_END)
                    http_get(remote.address, file, resume_size=before, headers=headers, expected_size=total)
                return
            except HfHubHTTPError:
                if attempt + 1 == ATTEMPTS:
                    raise
                remote = ask(weights, name)
    finally:
        if not quiet:
            enable_progress_bars()


def _check(weights: Weights, name: str, part: Path, remote: Remote) -> None:
    size = part.stat().st_size
    if size != remote.bytes or (is_checksum(remote.etag) and digest(part, remote.etag) != remote.etag):
        part.unlink()
        raise Body4DError(f"{name} of {weights.title} was damaged on its way ({size} of {remote.bytes} bytes came, or others than the published ones).",
                          "Run the same command again. If it stays so, a proxy or mirror changes the file: try without it.", "download_damaged")


class _Part(io.BufferedRandom):
    """The file that grows; says so."""

    def __init__(self, path: Path, progress: Callable[[int], None]):
        super().__init__(io.FileIO(path, "r+"))
        self.progress = progress

    def write(self, data) -> int:
        written = super().write(data)
        self.progress(self.tell())
        return written


def _token_for(address: str) -> str | bool:
    """The user's token goes to the hub and to nobody whom it points to."""
    own = {urlsplit(endpoint()).netloc, urlsplit(HUB).netloc}
    return (library().get_token() or False) if urlsplit(address).netloc in own else False


def library():
    """huggingface_hub. Raises Body4DError."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise Body4DError("The package huggingface_hub is not installed.", "Run `body4d setup full`, which installs it.", "no_hub_library") from error
    return huggingface_hub
