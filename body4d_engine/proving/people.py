# SPDX-License-Identifier: Apache-2.0
"""Two people whom SAM 3D Body found in one photograph are built again from their parameters.

Parameters and vertices are those that facebookresearch/MHR publishes (Apache-2.0, tools/mhr_smpl_conversion/data); every 16th vertex is kept here.
"""

import time
from pathlib import Path

from ..errors import Body4DError
from ..examining import SET_UP, Check
from ..weights.places import Located, settings_folder

SAMPLES = Path(__file__).with_name("sample_people.npz")
CLOSE_M = 1e-4
RIG = "assets/mhr_model.pt"


def mhr(bodies: list[Located], samples: Path = SAMPLES) -> Check:
    """Whether the sample people come out of mhr_model.pt and their parameters as they were published."""
    name, found = "MHR rebuilds the sample people", next((one for one in bodies if RIG in one.files), None)
    if found is None:
        return Check(name, "missing", f"{RIG} is not here", f"{SET_UP} fetches it.")
    try:
        import torch  # noqa: F401
    except Exception as error:  # a broken one fails in many ways; its own check tells which
        return Check(name, "missing", f"torch does not load: {error}", SET_UP)
    began = time.perf_counter()
    try:
        worst = rebuilding_errors(found.path(RIG), samples)
    except Body4DError as error:
        return Check(name, "wrong", error.message, error.hint)
    words = f"to {max(worst) * 1e3:.4f} mm in {time.perf_counter() - began:.1f} s ({found.path(RIG)})"
    if max(worst) < CLOSE_M:
        return Check(name, "ok", words)
    return Check(name, "wrong", f"only {words}, where {CLOSE_M * 1e3:g} mm are needed", f"It may be another version of MHR: {SET_UP} --only weights verifies "
                 "the file. If its checksum is right, please report this.")


def rebuilding_errors(rig: Path, samples: Path = SAMPLES) -> list[float]:
    """Per sample person the largest distance, in metres, between a published vertex and ours. Raises Body4DError for a file that is no MHR."""
    import numpy as np
    import torch

    from ..models.mhr import Mhr
    from ..models.mhr.reader import extracted

    with np.load(samples) as data:
        people = {key: torch.from_numpy(data[key]) for key in data}
    with torch.no_grad():
        model = Mhr.load(extracted(rig, settings_folder()))
        if int(people["indices"].max()) >= model.vertex_count:
            raise Body4DError(f"{rig} has {model.vertex_count} vertices: it is another body.", f"{SET_UP} fetches the right one.", "mhr_other_model")
        vertices, _ = model(people["shape"], people["model_params"], people["expression"], people["indices"].long())
        ours = model.to_camera(vertices)
    return [float(distance) for distance in (ours - people["vertices_m"]).norm(dim=-1).amax(-1)]
