# SPDX-License-Identifier: Apache-2.0
"""Which published weights the full backend uses: files, sizes, checksums, licences, and where access is granted.

Sizes and checksums are those of the files that several public projects pin for these repositories; the hub's own are what a download is checked
against. A file that the hub has replaced since is therefore fetched all the same, and said to be another than the known one.
"""

from dataclasses import dataclass

HUB = "https://huggingface.co"
SAM_LICENCE = "SAM License"
SAM_TERMS = "no military use; to be passed on only under the same licence"


@dataclass(frozen=True)
class File:
    """`name`: its path in the repository. `bytes`, `sha256`: None where not known before the hub is asked. `needed`: False for what only other
    programs read."""

    name: str
    bytes: int | None = None
    sha256: str | None = None
    needed: bool = True


@dataclass(frozen=True)
class Weights:
    """One repository of the hub and the files of it that are used.

    `instead`: sets of files of the same weights in another form, any of which serves as well. `commercial`: whether the licence allows commercial use,
    None where that is not clear. `form`: the words on the button of the access form; '' where nobody has to ask.
    """

    name: str  # the last part of the repository, and the folder in a weights folder
    title: str
    stage: str
    repository: str
    files: tuple[File, ...]
    licence: str
    commercial: bool | None
    terms: str = ""
    form: str = ""
    instead: tuple[tuple[str, ...], ...] = ()

    @property
    def page(self) -> str:
        return f"{HUB}/{self.repository}"

    @property
    def bytes(self) -> int | None:
        """Of all files, None where one is not known."""
        sizes = [file.bytes for file in self.files]
        return None if None in sizes else sum(sizes)

    @property
    def use(self) -> str:
        """Whether it may be used commercially, in words."""
        return {True: "commercial use allowed", False: "NON-COMMERCIAL use only", None: "commercial use NOT CLEAR"}[self.commercial]

    def file(self, name: str) -> File:
        return next(file for file in self.files if file.name == name)


_MHR = File("assets/mhr_model.pt", 696_110_248, "352e271a6c42729c68554ceaea0c955e866970160c31e35506d782dc0f7377bc")

CATALOGUE = {weights.name: weights for weights in (
    Weights("sam3", "SAM 3", "track", "facebook/sam3",
            (File("sam3.pt", 3_450_062_241, "9999e2341ceef5e136daa386eecb55cb414446a00ac2b55eb2dfd2f7c3cf8c9e"),),
            SAM_LICENCE, True, SAM_TERMS, form="Submit", instead=(("model.safetensors",),)),
    Weights("sam-3d-body-dinov3", "SAM 3D Body (DINOv3-H+) with MHR", "recover", "facebook/sam-3d-body-dinov3",
            (File("model.ckpt", 2_109_129_346, "b5a2f9d305dd02626b967aa2e86021fba07065df66ce7a7e00ffb9664f150abf"), _MHR,
             File("model_config.yaml", 1_488, "1012fc3f39cb5e90e3f8fbadf7bded31604bfafdce0321d17a7c1a2d3f08b88d", needed=False)),
            SAM_LICENCE, True, SAM_TERMS + "; MHR itself is Apache-2.0", form="Submit"),
    Weights("sam-3d-body-vith", "SAM 3D Body (ViT-H) with MHR", "recover", "facebook/sam-3d-body-vith",
            (File("model.ckpt", 1_691_205_237, "3b1cb897f4bbd977bf81cbb0b30780a9582681ac642ee112865790ceb4d66056"), File(_MHR.name),
             File("model_config.yaml", 1_486, "d2e772e108b8727e9367681845fecb32806144acd0debc20868d100689470570", needed=False)),
            SAM_LICENCE, True, SAM_TERMS + "; MHR itself is Apache-2.0", form="Submit"),
    Weights("moge-2-vitl-normal", "MoGe-2 (ViT-L)", "camera", "Ruicheng/moge-2-vitl-normal",
            (File("model.pt", 1_323_815_904, "280741fd09bc3f403ccff9967784c2a391b52d2c0742ae3efdb21d9f90cc1a01"),), "MIT", True),
)}

BODIES = ("dinov3", "vith")  # the published sizes of SAM 3D Body; the first is the default


def needed(body: str = BODIES[0]) -> list[Weights]:
    """What the full backend needs, in the order of its stages."""
    return [CATALOGUE[name] for name in ("sam3", "moge-2-vitl-normal", f"sam-3d-body-{body}")]
