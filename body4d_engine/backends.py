# SPDX-License-Identifier: Apache-2.0
"""Backends by name: the stages each is made of, and what it lacks on this machine."""

from importlib.util import find_spec

from .errors import Body4DError
from .settings import DEFAULTS


class Lite:
    """Small models on a CPU: BlazePose landmarks and masks, MediaPipe's hands and faces, the Anny body fitted by least squares."""

    name = "lite"
    packages = {"numpy": "numpy", "scipy": "scipy", "cv2": "opencv-python-headless", "av": "av", "ai_edge_litert": "ai-edge-litert",
                "scenedetect": "scenedetect-headless", "body4d_lite_models": "body4d-lite-models"}

    def lacks(self) -> list[str]:
        """What is missing here, in words; nothing where the backend works."""
        missing = [f"the package {package}" for module, package in self.packages.items() if find_spec(module) is None]
        if find_spec("body4d_lite_models") is not None:
            from body4d_lite_models import verify

            missing += [f"the model file {name} (missing or damaged)" for name in verify()]
        return missing

    def stages(self, settings: dict) -> list:
        """The stages of a run under these settings (see `settings`), in order."""
        from .stages.camera import Camera
        from .stages.detail import Detail
        from .stages.prepare import Prepare
        from .stages.recover import Recover
        from .stages.refine import Refine
        from .stages.track import Track

        settings = {**DEFAULTS, **settings}
        camera = Camera(settings["focal_px"], settings["focal_mm"])  # before track: an impossible focal length is told at once
        refine = Refine(smoothing=settings["smoothing"], foot_lock=settings["foot_lock"])
        return [Prepare(), camera, Track(), Detail(), Recover(settings["heights"]), refine]


BACKENDS = {backend.name: backend for backend in (Lite(),)}


def get_backend(name: str):
    """The backend of that name. Raises Body4DError where there is none or it cannot work here."""
    if name not in BACKENDS:
        raise Body4DError(f"There is no backend called {name}.", f"Choose one of: {', '.join(BACKENDS)}.", "no_backend")
    lacks = BACKENDS[name].lacks()
    if lacks:
        raise Body4DError(f"The {name} backend lacks {', '.join(lacks)}.", f"Install it again: pip install --force-reinstall 'body4d-engine[{name}]'.", "backend_incomplete")
    return BACKENDS[name]
