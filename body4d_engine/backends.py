# SPDX-License-Identifier: Apache-2.0
"""Backends by name: the stages each is made of, and what it lacks on this machine."""

from importlib.util import find_spec
from pathlib import Path

from .errors import Body4DError
from .models import official
from .settings import DEFAULTS


class Lite:
    """Small models on a CPU: BlazePose landmarks and masks, MediaPipe's hands and faces, the Anny body fitted by least squares."""

    name = "lite"
    models = ("ours",)
    remedy = "Install it again: pip install --force-reinstall 'body4d-engine[lite]'."
    packages = {"numpy": "numpy", "scipy": "scipy", "cv2": "opencv-python-headless", "av": "av", "ai_edge_litert": "ai-edge-litert",
                "scenedetect": "scenedetect-headless", "body4d_lite_models": "body4d-lite-models"}

    def lacks(self, weights=None, models: str = "ours") -> list[str]:
        """What is missing here, in words; nothing where the backend works. Its weights come with a package, whatever the folder."""
        missing = _missing(self.packages)
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


class Full:
    """The networks of SAM-Body4D, on a GPU if there is one: SAM 3 follows people, MoGe-2 measures the focal length, SAM 3D Body makes MHR bodies."""

    name = "full"
    models = official.MODELS
    remedy = "Run `body4d setup full`, which installs and fetches what is missing."
    packages = {"numpy": "numpy", "scipy": "scipy", "cv2": "opencv-python-headless", "av": "av", "scenedetect": "scenedetect-headless", "torch": "torch",
                "transformers": "transformers", "safetensors": "safetensors"}

    def lacks(self, weights=None, models: str = "ours") -> list[str]:
        """What is missing here, in words; nothing where the backend works. Without a GPU it works slowly. weights: their folder, else the usual ones.
        models: "official" to run the published code (see `models.official`), which needs its own packages and a GPU beside all that ours needs."""
        from .weights.catalogue import needed
        from .weights.places import locate

        missing = _missing(self.packages)
        for network in needed(self._body(weights)):
            found = locate(network.name, weights)
            missing += [f"the weights of {network.title} ({name})" for name in found.missing]
            missing += [f"the whole of the weights of {network.title} ({name} is cut short)" for name in found.short]
        if models == "official":
            there = locate(f"sam-3d-body-{self._body(weights)}", weights).files
            missing += [] if official.OPTIONS in there else [f"{official.OPTIONS} of SAM 3D Body (`body4d setup full` fetches it)"]
            missing += official.lacks()
        return missing

    def stages(self, settings: dict) -> list:
        """The stages of a run under these settings (see `settings`), in order."""
        from .stages.full.camera import Camera
        from .stages.full.recover import Recover
        from .stages.full.refine import Refine
        from .stages.full.track import Track
        from .stages.prepare import Prepare

        settings = {**DEFAULTS, **settings}
        folder, limit, models = settings["weights"], settings["memory_limit"], settings["models"]
        if limit is not None and models == "ours":
            self.check_limit(limit, settings["hands"])
        camera = Camera(settings["focal_px"], settings["focal_mm"], folder, limit, models=models)  # before track: an impossible focal length is told at once
        body = self._body(folder)
        recover = Recover(settings["hands"], body, folder, limit, models=models, compiled=settings["compile"])
        return [Prepare(), camera, Track(folder, limit, models=models), recover,
                Refine(settings["smoothing"], settings["foot_lock"], settings["heights"], body, folder)]

    def check_limit(self, limit: int, hands: bool) -> None:
        """Raises Body4DError where our networks do not fit into so many bytes."""
        from .memory import best_device
        from .stages.full.costs import check_limit

        check_limit(limit, best_device(), hands)

    def _body(self, folder) -> str:
        """Which of the published networks for bodies: the first that is whole here, else the first."""
        from .weights.catalogue import BODIES
        from .weights.places import locate

        return next((body for body in BODIES if locate(f"sam-3d-body-{body}", folder).whole), BODIES[0])


BACKENDS = {backend.name: backend for backend in (Lite(), Full())}


def get_backend(name: str, weights=None, models: str = "ours"):
    """The backend of that name; weights: their folder, where it is not a usual one; models: whose code runs its networks, see `settings`. Raises Body4DError
    where there is none or it cannot work here."""
    if name not in BACKENDS:
        raise Body4DError(f"There is no backend called {name}.", f"Choose one of: {', '.join(BACKENDS)}.", "no_backend")
    backend = BACKENDS[name]
    if models not in backend.models:
        raise Body4DError(f"The {name} backend has no {models} models.", "They belong to --backend full.", "no_backend")
    lacks = backend.lacks(weights, models)
    if lacks:
        remedy = backend.remedy if weights is None else backend.remedy.replace("setup full", f"setup full --weights {weights}")
        if weights is not None and not Path(weights).is_dir():
            lacks.append(f"the folder {weights}, which is not there")
        steps = [remedy] if backend.lacks(weights) else []
        raise Body4DError(f"The {name} backend lacks {', '.join(lacks)}.", " ".join(steps + ([official.remedy()] if models == "official" else [])),
                          "backend_incomplete")
    return backend


def _missing(packages: dict[str, str]) -> list[str]:
    return [f"the package {package}" for module, package in packages.items() if find_spec(module) is None]
