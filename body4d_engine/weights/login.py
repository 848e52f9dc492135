# SPDX-License-Identifier: Apache-2.0
"""The user's login at the hub. It is the one that huggingface_hub keeps for all programs; nothing of it is kept here."""

import os
from pathlib import Path

from ..errors import Body4DError
from .explaining import TOKENS, endpoint
from .places import hub_home


def logged_in() -> bool:
    """Whether this user has an access token, by the same variables and file that huggingface_hub reads; whether it is valid only the hub knows."""
    if os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN"):
        return True
    try:
        return bool(Path(os.environ.get("HF_TOKEN_PATH") or hub_home() / "token").read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError):
        return False


def log_in(token: str) -> None:
    """Have huggingface_hub try the token and keep it for all programs of this user. Raises Body4DError."""
    from .hub import library

    if not token.strip():
        raise Body4DError("No access token was given.", f"Copy one from {TOKENS}.", "bad_token")
    login = library().login
    try:
        login(token.strip())
    except Exception as error:  # what it says in full might hold the token
        if isinstance(error, ValueError) or getattr(getattr(error, "response", None), "status_code", None) in (401, 403):
            raise Body4DError("The hub does not know this access token.", f"Copy one from {TOKENS}: all of it, beginning with hf_.", "bad_token") from None
        raise Body4DError(f"{endpoint()} could not be asked about the access token ({type(error).__name__}).",
                          "Check the connection (and HF_ENDPOINT, HTTPS_PROXY), then try again.", "no_network") from None
