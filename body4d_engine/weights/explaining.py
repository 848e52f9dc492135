# SPDX-License-Identifier: Apache-2.0
"""Why a file cannot be had from the hub, and what to do: the page to open and what to press there."""

import errno
import os

from ..errors import Body4DError
from .catalogue import HUB, Weights

TOKENS = f"{HUB}/settings/tokens"
LOGIN = f"Log in with an access token from {TOKENS}: hf auth login"
AGAIN = "Run the same command again: it goes on where it stopped."


def endpoint() -> str:
    """The hub that is asked."""
    return (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")


def explained(error: Exception, weights: Weights, name: str) -> Body4DError:
    """In the user's words, with the next step."""
    from huggingface_hub import errors

    what = f"{weights.title} ({weights.repository})"
    said = " ".join(filter(None, (str(error), getattr(error, "server_message", "")))).lower()
    status = getattr(getattr(error, "response", None), "status_code", None)
    missing = isinstance(error, errors.RepositoryNotFoundError) and not isinstance(error, errors.GatedRepoError)
    if status in (401, 403) and ("invalid credentials" in said or "token is expired" in said or not (missing or weights.form)):
        return Body4DError(f"The hub refuses {what}: it does not know the access token of this machine (any more).", f"{LOGIN}.", "bad_token")
    if isinstance(error, errors.GatedRepoError) or (status in (401, 403) and not missing):
        return _refused(weights, what, said)
    if missing or isinstance(error, errors.RevisionNotFoundError):
        return Body4DError(f"{endpoint()} has no {weights.repository}.", f"Look at {weights.page}; if HF_ENDPOINT names a mirror, try without.", "not_on_hub")
    if isinstance(error, errors.EntryNotFoundError):
        return Body4DError(f"{weights.repository} has no {name} any more.", f"Look at {weights.page}; a newer version may know its new name.", "not_on_hub")
    if isinstance(error, errors.OfflineModeIsEnabled):
        return Body4DError(f"{what} is not here, and HF_HUB_OFFLINE forbids to fetch it.", "Unset HF_HUB_OFFLINE and run again.", "offline")
    if isinstance(error, errors.FileMetadataError):
        return Body4DError(f"{endpoint()} does not answer as a hub does.", "Check HF_ENDPOINT and the proxy.", "hub_strange")
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return Body4DError(f"The disk is full: {name} of {what} did not fit.", f"Make room, or name another folder with --weights. {AGAIN}", "disk_full")
    if isinstance(error, PermissionError):
        return Body4DError(f"{error.filename} may not be written.", "Name another folder with --weights.", "not_writable")
    if status == 429:
        return Body4DError("The hub has had too many requests from here.", f"Wait some minutes. {AGAIN}", "hub_busy")
    if status and status >= 500:
        return Body4DError(f"The hub has trouble (it answers {status}).", AGAIN, "hub_trouble")
    if "consistency check failed" in said:
        return Body4DError(f"{name} of {what} came cut short.", AGAIN, "download_cut")
    return Body4DError(f"{name} of {what} could not be fetched from {endpoint()}: {(str(error).splitlines() or [repr(error)])[0]}.",
                       f"Check the connection (and HF_ENDPOINT, HTTPS_PROXY). {AGAIN}", "no_network")


def _refused(weights: Weights, what: str, said: str) -> Body4DError:
    from huggingface_hub import get_token

    if "fine-grained" in said:
        return Body4DError(f"The access token of this machine may not read {what}.", f"Open {TOKENS}, edit the token, tick 'Read access to contents of all "
                           "public gated repos you can access', and run the same command again.", "token_too_narrow")
    if "awaiting" in said:
        return Body4DError(f"Access to {what} is asked for, and not granted yet.", f"Wait for the mail, or look at {HUB}/settings/gated-repos; then run the "
                           "same command again.", "access_pending")
    if "rejected" in said:
        return Body4DError(f"Access to {what} was refused to this account by its owner.", f"See {weights.page} for what they ask for.", "access_rejected")
    steps = f"Open {weights.page} in a browser where you are logged in, fill in the form and press '{weights.form or 'Agree and access repository'}'."
    then = "When the mail says that access is granted, run the same command again."
    if not get_token():
        return Body4DError(f"{what} is given only to those who are logged in and were granted access.", f"1. {steps} 2. {LOGIN}. 3. {then}", "no_login")
    return Body4DError(f"This account has no access to {what}.", f"{steps} {then}", "no_access")
