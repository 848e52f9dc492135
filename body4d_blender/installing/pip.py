# SPDX-License-Identifier: GPL-3.0-or-later
"""pip as a child process: how it is called, what its lines say about progress, and why it failed, in words."""

import os
import re
from pathlib import Path

# A child ends with its parent, however that ends: whoever reads from a closed pipe knows.
WATCHED = """
import os, runpy, sys, threading
def watch():
    while os.read(0, 4096): pass
    os._exit(4)
threading.Thread(target=watch, daemon=True).start()
sys.argv = sys.argv[1:]
"""
# What the environment lets in from beside it is none of its own: pip would take it for installed, or replace it there.
PIP = WATCHED + """
first, *others = sys.argv[0].split(os.pathsep)
beside = os.path.join(os.path.dirname(sys.prefix), "full-")
sys.path[:] = [first, *(path for path in sys.path if not path.startswith(beside)), *others]
runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""
# The user's settings for mirrors, proxies and certificates count; those about where to install would break ours.
UNWANTED = ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER", "PIP_CONSTRAINT", "PIP_NO_BINARY", "PIP_PYTHON", "PIP_REQUIREMENT", "PIP_EDITABLE",
            "__PYVENV_LAUNCHER__", "VIRTUAL_ENV")


def command(python: Path, pip: Path, *arguments: str, seeing: list[Path] = ()) -> list[str]:
    """pip's wheel, run as it is by an environment's Python that has no pip. `seeing`: folders whose packages count as installed too."""
    return [str(python), "-I", "-u", "-X", "utf8", "-c", PIP, os.pathsep.join(map(str, (pip, *seeing))), *arguments]


def variables(temporary: Path) -> dict[str, str]:
    """The environment of a child; its temporary files go into that folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON") and name not in UNWANTED}
    return {**kept, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", "PIP_NO_COLOR": "1", "PIP_REQUIRE_VIRTUALENV": "1",
            "PIP_ROOT_USER_ACTION": "ignore", "PIP_NO_WARN_SCRIPT_LOCATION": "1", "PYTHONUTF8": "1", "PYTHONNOUSERSITE": "1",
            **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(temporary))}


class Reading:
    """What pip's lines say: `bytes` fetched so far, which `package` is being fetched, whether it is `unpacking`."""

    def __init__(self):
        self.package, self.unpacking = "", False
        self._whole = self._part = self._before = 0

    @property
    def bytes(self) -> int:
        return self._before + (self._part if self._part < self._whole else self._whole)

    def line(self, text: str) -> bool:
        """Take a line in; False for those that only tell progress and belong in no log."""
        if found := re.match(r"Progress (\d+) of \d+", text):
            self._part = int(found[1])
            return False
        if found := re.match(r"\s*(?:Downloading|Using cached) (\S+?)-\d\S* \(([\d.]+) (MB|kB|bytes)", text):
            unit = {"MB": 1e6, "kB": 1e3, "bytes": 1}[found[3]]
            self._next(found[1].rsplit("/", 1)[-1], float(found[2]) * unit, have=text.lstrip().startswith("Using"))
        elif found := re.match(r"Processing (.+?\.whl)", text):
            path = Path(found[1])
            self._next(path.name.split("-")[0], path.stat().st_size if path.is_file() else 0, have=True)
        elif "Installing collected packages" in text:
            self._next("", 0, have=True)
            self.unpacking = True
        return True

    def _next(self, package: str, whole: float, have: bool) -> None:
        self._before += self._whole
        self.package, self._whole = package.replace("_", "-"), int(whole)
        self._part = self._whole if have else 0


def explain(output: str) -> tuple[str, str, str]:
    """(message, hint, code) for a failed pip or venv, from its output."""
    if "DO NOT MATCH THE HASHES" in output:
        return ("A package is not the one that this version of Body4D was made with: its checksum differs.",
                "Try again. If a mirror or proxy is set up for pip, it may serve altered files.", "hash_mismatch")
    if re.search(r"No space left|Errno 28|not enough space|WinError 112|Disk quota|Errno 122", output, re.IGNORECASE):
        return "The disk is full.", "Make room, or choose a folder on another disk, then install again.", "disk_full"
    if re.search(r"ProxyError|Cannot connect to proxy|Tunnel connection failed|407 Proxy", output):
        return ("The proxy did not let the download through.",
                "Check the proxy: pip uses the environment variable HTTPS_PROXY or `proxy` in its own settings.", "proxy")
    if re.search(r"CERTIFICATE_VERIFY_FAILED|SSLError|SSLCertVerification|confirming the ssl certificate|TLS CA certificate", output):
        return ("The package registry could not be trusted: its certificate is not known here.",
                "In a network that inspects traffic, set PIP_CERT to the certificate file of your administrator. Also check this machine's clock.",
                "certificate")
    if re.search(r"NewConnectionError|NameResolution|getaddrinfo|Connection ?(refused|reset|Error|aborted)|ConnectTimeout|timed out|Max retries", output):
        return ("The packages could not be downloaded: no connection to the package registry.",
                "Check the connection (behind a proxy also HTTPS_PROXY) and install again.", "no_network")
    if re.search(r"No matching distribution|not a supported wheel", output):
        return ("A package does not exist for this machine, or a folder of wheels lacks it. pip said: " + last_lines(output, 2) + ".",
                "Choose another Python (64-bit, 3.11 to 3.13).", "no_package")
    if "Long Path support" in output:
        return ("The paths of a package's files become longer than Windows takes.", "Choose a short folder under Install In, such as C:\\body4d.",
                "path_too_long")
    if re.search(r"Permission denied|Errno 13|WinError 5\b", output):
        return "The engine's folder cannot be written. " + last_lines(output, 1) + ".", "Choose a folder that you may write to.", "not_writable"
    return "Installing failed. " + last_lines(output, 6) + ".", "Try again, or copy the details into a report.", "failed"


def last_lines(output: str, count: int) -> str:
    return " / ".join([line.strip() for line in output.splitlines() if line.strip()][-count:]).rstrip(".")
