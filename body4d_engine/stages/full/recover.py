# SPDX-License-Identifier: Apache-2.0
"""Full recover: SAM 3D Body on every person in every frame in which tracking has a mask of them, packed into full batches, streamed as it comes."""

from collections.abc import Callable, Iterator

import numpy as np

from ...events import Committed, Event, Notice, Progress
from ...memory import planned, release
from ...take import Take
from .costs import recovering, slow
from .records import Records
from .sightings import Shape, Sightings, trusted

CHUNK = 32  # samples between commits


class Recover:
    """hands: whether the hands get a look of their own. body: which network, of `weights.catalogue.BODIES`; folder: where its weights are; models: whose code
    runs it, see `settings`; networks(): makes another one, a `Sam3dBody` of `models.sam_3d_body.inference` or, where models is "official", of
    `models.official.sam_3d_body`, on its device. limit: bytes of memory that the user allows. batch: crops at once, in place of what
    fits, and chunk: samples between commits; in float32 the result depends on neither (1e-4 m). compiled: whether torch compiles our network first.

    The stream is ordered by frame: a frame is decoded once and uploaded once. Each crop is read by itself, so that a person's result does not depend on who
    else is there. What was not measured is interpolated, keeps its state and has confidence 0; `refine` smooths it. All that is needed to go on after a kill
    is how far each person's arrays reach. Heights and corrections change nothing here: `refine` acts upon them, so that the network is never asked again.
    """

    name = "recover"
    version = 1
    needs = ("track", "camera")

    def __init__(self, hands: bool = True, body: str = "dinov3", folder=None, limit: int | None = None, networks: Callable | None = None,
                 batch: int | None = None, chunk: int = CHUNK, models: str = "ours", compiled: bool = False):
        self.settings = {"hands": hands, "model": f"sam-3d-body-{body}", "models": models}
        self._networks = networks or (lambda: (official_of if models == "official" else network_of)(body, folder, limit))
        self._limit, self._batch, self.chunk, self._compiled = limit, batch, chunk, compiled

    def run(self, clip, people, take: Take, cursor: dict | None) -> Iterator[Event]:
        tracks = {person.id: Sightings(take, person.id) for person in people}
        if cursor is None:
            yield from self._notices(people, tracks)
        if not any(track.span[0] < track.span[1] for track in tracks.values()):
            return
        try:
            yield from self._recover(clip, take, tracks, self._networks(), cursor is None)
        finally:
            release()

    def _recover(self, clip, take: Take, tracks: dict[int, Sightings], network, begins: bool) -> Iterator[Event]:
        from ...models.sam_3d_body.figure import Figure

        figure, camera = Figure(network), take.camera()
        cuts = np.searchsorted(clip.frames, clip.shots)
        records = {number: Records(take, number, self.name, figure, track.span, track.state, cuts[(cuts > 0) & (cuts < take.samples)],
                                   *(camera[name].astype(np.float64) for name in ("focal_px", "principal_px"))) for number, track in tracks.items()}
        if begins:
            for record in records.values():
                record.write_body(figure.rest(figure.average, np.zeros(45, np.float32)))
        if begins and self._compiled:
            yield Notice(self.name, "compiling", "The networks are compiled first, which takes minutes.")
        if begins and (told := slow(self.name, network.mhr.base.device.type)):
            yield told
        yield from self._stream(clip, take, tracks, records, camera, self._through(clip, network, figure))
        for record in records.values():
            record.finish()
        take.commit({})
        yield from (Committed(self.name, number, *record.span) for number, record in records.items())
        yield Progress(self.name, take.samples, take.samples)

    def _through(self, clip, network, figure):
        """The network as a stream of crops."""
        mode = "full" if self.settings["hands"] else "body"
        if self.settings["models"] == "official":
            from ...models.official.sam_3d_body import Stream

            return Stream(network, figure, mode)
        from ...models.sam_3d_body.stream import Stream

        if self._compiled:
            network.compile_parts()
        return Stream(network, figure, mode, self._batch or self._planned(clip, network))

    def _planned(self, clip, network) -> int:
        """How many crops fit."""
        cost = recovering(clip.width, clip.height, network.backbone_dtype.itemsize < 4, self.settings["hands"])
        return planned(cost, str(network.mean.device), self._limit)

    def _notices(self, people, tracks: dict[int, Sightings]) -> Iterator[Notice]:
        """Who is left out."""
        for person in people:
            if not tracks[person.id].measured.any():
                yield Notice(self.name, "person_never_seen", f"{person.name} was never seen well enough to fit a body.", person=person.id)

    def _stream(self, clip, take: Take, tracks: dict[int, Sightings], records: dict[int, Records], camera: dict, stream) -> Iterator[Event]:
        """Crops in, records out, with a commit every now and then."""
        todo = {number: track.measured & (np.arange(take.samples) >= records[number].next) for number, track in tracks.items()}
        samples = np.flatnonzero(np.any(list(todo.values()), axis=0))
        told = not self._compiled
        committed, before = int(samples[0]) if len(samples) else 0, {number: record.next for number, record in records.items()}
        for sample, finished in self._batches(clip, take, samples, todo, tracks, camera, stream):
            if not told and stream.network.not_compiled:
                told = True
                yield Notice(self.name, "not_compiled", f"The network runs without being compiled, somewhat slower: torch could not do that here "
                             f"({stream.network.not_compiled}).")
            for label, record in finished:
                self._keep(clip, tracks[label[1]], records[label[1]], *label, record)
            if finished and sample - committed >= self.chunk:
                take.commit({})
                for number, record in records.items():
                    if record.next > before[number]:
                        yield Committed(self.name, number, before[number], record.next)
                        before[number] = record.next
                committed = sample
                yield Progress(self.name, sample, take.samples)

    def _batches(self, clip, take: Take, samples: np.ndarray, todo: dict[int, np.ndarray], tracks: dict[int, Sightings], camera: dict, stream):
        """(sample of the last crop, [(label, arrays of one crop)]) for each frame and each batch that was finished in it. Labels: sample, person, everyone's
        shapes in it."""
        for sample, (_, rgb) in zip(samples.tolist(), clip.iterate(take.frames[sample] for sample in samples.tolist())):
            shapes = {number: shape for number, track in tracks.items() if (shape := track.shape(sample)) is not None}
            people = [number for number in tracks if todo[number][sample]]
            crops = [_crop(rgb, shapes[number], camera, sample) for number in people]
            for found in stream.feed(crops, [(sample, number, shapes) for number in people]):
                yield _rows(*found)
        for found in stream.rest():
            yield _rows(*found)

    def _keep(self, clip, track: Sightings, records: Records, sample: int, person: int, shapes: dict[int, Shape], found: dict[str, np.ndarray]) -> None:
        found["root"] = found["translation"] + found["offset"]
        pixels = records.pixels(sample, found["keypoints_m"], found["root"])
        others = [shape for number, shape in shapes.items() if number != person]
        trust, share = trusted(pixels, shapes[person], others, clip.width, clip.height)
        records.measured(sample, found, trust, share * track.confidence(sample))


def _crop(rgb: np.ndarray, shape: Shape, camera: dict, sample: int):
    """The network counts pixels from their centres, the take from the frame's corner."""
    from ...models.sam_3d_body.crops import CropInput

    focal, (x, y) = float(camera["focal_px"][sample]), camera["principal_px"][sample] - 0.5
    return CropInput(rgb, shape.box, np.array([[focal, 0, x], [0, focal, y], [0, 0, 1]]), shape.mask(rgb.shape[1], rgb.shape[0]))


def _rows(labels: list, found: dict[str, np.ndarray]) -> tuple[int, list]:
    return labels[-1][0], [(label, {name: values[row] for name, values in found.items()}) for row, label in enumerate(labels)]


def network_of(body: str, folder, limit: int | None = None):
    """SAM 3D Body with MHR, on the best device there is, held to `limit` bytes. Raises Body4DError."""
    import torch

    from ...memory import computing_device

    device = computing_device(limit)
    return load(body, folder, device, backbone=torch.bfloat16 if device == "cuda" else torch.float32)


def official_of(body: str, folder, limit: int | None = None):
    """The published SAM 3D Body on the best device there is, with what of ours makes records of what it says. Raises Body4DError."""
    from ...memory import computing_device
    from ...models.official.sam_3d_body import Sam3dBody
    from ...weights.places import locate

    found, device = locate(f"sam-3d-body-{body}", folder), computing_device(limit)
    return Sam3dBody.load(found.path("model.ckpt"), found.path("assets/mhr_model.pt"), body_of(body, folder, device), device)


def body_of(body: str, folder, device: str):
    """Of the network no more than MHR and what reads it, for a `Figure`, on the device; the rest stays in its file. Raises Body4DError."""
    network = load(body, folder, only="body.pose_head.")
    network.mhr.to(device)
    network.body.pose_head.to(device)
    return network


def load(body: str, folder, device: str = "cpu", **options):
    """SAM 3D Body with MHR, on the device. options: those of `Sam3dBody.load`. Raises Body4DError."""
    from ...models.mhr import Mhr
    from ...models.mhr.reader import extracted
    from ...models.sam_3d_body.inference import Sam3dBody
    from ...weights.places import locate, settings_folder

    found = locate(f"sam-3d-body-{body}", folder)
    mhr = Mhr.load(extracted(found.path("assets/mhr_model.pt"), settings_folder()))
    return Sam3dBody.load(found.path("model.ckpt").parent, mhr, device=device, **options)
