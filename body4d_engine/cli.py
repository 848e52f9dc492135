# SPDX-License-Identifier: Apache-2.0
"""The command `body4d`: parses, calls, prints; no work of its own."""

import os

for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # before numpy: our matrices are small, threads only cost
    os.environ.setdefault(name, "1")

import argparse  # noqa: E402
import json  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402
import traceback  # noqa: E402
from pathlib import Path  # noqa: E402

from . import __version__  # noqa: E402
from .config_file import OPTION, expanded  # noqa: E402
from .errors import Body4DError, is_out_of_memory  # noqa: E402


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser("body4d", description="People in a video become moving meshes.")
    top.add_argument("--version", action="version", version=f"body4d {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="make a take from a video or a folder of images, or go on with one")
    run.add_argument("video", type=Path)
    run.add_argument("--out", "-o", type=Path, required=True, metavar="X.take")
    run.add_argument("--backend", default="lite")
    run.add_argument("--people", default="auto", metavar="auto|FILE.json", help="find everyone, or those of the file")
    run.add_argument("--click", action="append", default=[], metavar="ID:FRAME,X,Y[,-]", help="a point on a person; with ,- one that is not")
    run.add_argument("--box", action="append", default=[], metavar="ID:FRAME,X0,Y0,X1,Y1", help="a box around a person")
    focal = run.add_mutually_exclusive_group()
    focal.add_argument("--focal-px", type=float, metavar="F", help="focal length in pixels of the upright frame")
    focal.add_argument("--focal-mm", type=float, metavar="F", help="focal length in mm on a sensor 36 mm long on the longer side of the frame, as in Blender")
    run.add_argument("--height", action="append", default=[], metavar="[ID=]METRES", help="how tall a person, or everyone, is")
    run.add_argument("--smoothing", type=float, default=1.0, metavar="F", help="how calm the motion is made: 0 as measured, 1 as a rule, at most 4")
    run.add_argument("--no-foot-lock", action="store_true", help="do not hold planted feet in place")
    run.add_argument("--body-only", action="store_true", help="full: hands get no look of their own, which is quicker")
    run.add_argument("--models", choices=("ours", "official"), default="ours", help="full: whose code runs the networks: ours, or the published packages "
                     "sam3, moge and sam_3d_body that you have installed")
    run.add_argument("--compile", action="store_true", help="full: have torch compile the network for bodies, which takes minutes, before it runs")
    run.add_argument("--weights", type=Path, metavar="FOLDER", help="full: where its weights are; else as for setup")
    run.add_argument("--memory-limit", type=float, metavar="GB", help="full: how much of the device's memory it may take")
    run.add_argument("--start", type=int, default=0, metavar="S", help="first frame")
    run.add_argument("--end", type=int, metavar="E", help="the frame after the last")
    run.add_argument("--step", type=int, default=1, metavar="N", help="every N-th frame")
    run.add_argument("--image-fps", type=float, metavar="R", help="frames per second of a folder of images")
    run.add_argument("--fresh", action="store_true", help="forget what an earlier run left in the take")
    run.add_argument("--summary-json", type=Path, metavar="FILE")
    run.add_argument("--stop-with-stdin", action="store_true", help="end when standard input closes: a parent that dies takes the run with it")
    run.set_defaults(call=run_take)

    importing = commands.add_parser("import", help="make a take from meshes: a SAM-Body4D folder or SAM 3D Body .npz files")
    importing.add_argument("source", type=Path, nargs="+")
    importing.add_argument("--out", "-o", type=Path, required=True, metavar="X.take")
    importing.add_argument("--topology", type=Path, metavar="FILE", help="faces for meshes that come without (.ply, or .npz with faces)")
    importing.add_argument("--focal-px", type=float, metavar="F")
    importing.add_argument("--fps", type=float)
    importing.add_argument("--clip", type=Path, help="the video or folder of images that the meshes belong to")
    importing.add_argument("--fresh", action="store_true", help="replace a take that is there already")
    importing.set_defaults(call=import_take)

    exporting = commands.add_parser("export", help="write a take in another form")
    exporting.add_argument("take", type=Path)
    exporting.add_argument("--layout", required=True, choices=("overlay", "report", "sam-body4d"), help="a video with the meshes over the clip, "
                           "a page by which to judge the result, or SAM-Body4D's folder")
    exporting.add_argument("--out", "-o", type=Path, required=True)
    exporting.add_argument("--clip", type=Path, help="where the clip is now, if it was moved")
    exporting.add_argument("--parts", metavar="A,B", help="only these parts of sam-body4d: images, masks, masks_vis, ply, obj, focal, renders, "
                           "individual_renders, videos")
    exporting.set_defaults(call=export_take)

    evaluating = commands.add_parser("evaluate", help="the quality of a take in numbers, by itself or against a reference")
    evaluating.add_argument("take", type=Path)
    evaluating.add_argument("--reference", type=Path, metavar="FILE.npz", help="one person's true joints")
    evaluating.add_argument("--person", type=int, metavar="ID", help="only this person; the reference's, where there is one")
    evaluating.add_argument("--tracking", type=Path, metavar="TRUTH.npz", help="everyone's true boxes")
    evaluating.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too, with their values per sample")
    evaluating.set_defaults(call=evaluate_take)

    doctor = commands.add_parser("doctor", help="what works on this machine and what each backend lacks")
    doctor.add_argument("--json", action="store_true")
    doctor.add_argument("--online", action="store_true", help="also ask the hub whether you may have the weights")
    doctor.add_argument("--verify", action="store_true", help="also prove, with the weights that are here, what only they can show")
    doctor.set_defaults(call=examine)

    setup = commands.add_parser("setup", help="install what a backend needs, after showing what that is")
    setup.add_argument("backend", choices=("full",))
    setup.add_argument("--weights", type=Path, metavar="FOLDER", help="where weights are or go, from now on; else BODY4D_WEIGHTS, else the hub's cache")
    setup.add_argument("--body", choices=("dinov3", "vith"), default="dinov3", help="which of the published networks of SAM 3D Body")
    setup.add_argument("--only", choices=("packages", "weights"), default="", help="leave the other out")
    setup.add_argument("--show", action="store_true", help="only show what would be done")
    setup.add_argument("--yes", action="store_true", help="do not ask")
    setup.add_argument("--login", action="store_true", help="only log in at the hub: takes an access token from standard input, for all programs of this user")
    setup.add_argument("--json", action="store_true", help="for programs: the plan, then events, one JSON object per line")
    setup.set_defaults(call=set_up)

    serve = commands.add_parser("serve", help="serve a Body4D add-on over stdin and stdout")
    serve.set_defaults(call=serve_pipe)

    for command in commands.choices.values():
        command.add_argument(OPTION, type=Path, metavar="FILE.toml", help="options from a file; those given here win")
    return top


def run_take(args) -> int:
    from .backends import get_backend
    from .clip import open_clip
    from .people import heights_from_options, people_from_options
    from .pipeline import run
    from .report import Display, print_summary, summarise
    from .settings import checked
    from .take import Take

    if args.stop_with_stdin:
        threading.Thread(target=_stop_with_stdin, daemon=True).start()
    people = people_from_options(args.people, args.click, args.box, args.height)
    settings = checked({"focal_px": args.focal_px, "focal_mm": args.focal_mm, "heights": heights_from_options(args.height),
                        "smoothing": args.smoothing, "foot_lock": not args.no_foot_lock, "hands": not args.body_only, "models": args.models,
                        "compile": args.compile, "weights": args.weights,
                        "memory_limit": None if args.memory_limit is None else args.memory_limit * 1e9})
    backend = get_backend(args.backend, args.weights, args.models)
    full = {"--body-only": args.body_only, "--compile": args.compile, "--weights": args.weights, "--memory-limit": args.memory_limit}
    unused = [option for option, value in full.items() if value]
    if unused and backend.name == "lite":
        print(f"body4d: {', '.join(unused)} mean nothing to the lite backend.", file=sys.stderr)
    clip = open_clip(args.video, args.start, args.end, args.step, image_fps=args.image_fps)
    with Display().showing() as display:
        for event in run(clip, args.out, backend, people, settings, args.fresh):
            display.show(event)
    with Take.open(args.out) as take:
        summary = summarise(take)
    print_summary(summary)
    _write_json(args.summary_json, summary)
    return 0


def import_take(args) -> int:
    from .imports import import_any
    from .report import Display, print_summary, summarise
    from .take import Take

    with Display().showing() as display:
        for event in import_any(args.source, args.out, topology=args.topology, focal_px=args.focal_px, fps=args.fps, clip=args.clip, fresh=args.fresh):
            display.show(event)
    with Take.open(args.out) as take:
        print_summary(summarise(take))
    return 0


def export_take(args) -> int:
    from .exports import export
    from .report import Display
    from .take import Take

    options = {"parts": args.parts.split(",")} if args.parts else {}
    if options and args.layout != "sam-body4d":
        raise Body4DError("--parts belongs to --layout sam-body4d.", "Leave it out.", "bad_option")
    with Take.open(args.take) as take, Display().showing() as display:
        for event in export(take, args.layout, args.out, clip_path=args.clip, **options):
            display.show(event)
    print(args.out)
    return 0


def evaluate_take(args) -> int:
    from .metrics import evaluate, print_results, write_results
    from .take import Take

    with Take.open(args.take) as take:
        results = evaluate(take, args.reference, args.person, args.tracking)
        if args.json:
            write_results(args.json, take, results, reference=args.reference, tracking=args.tracking)
        print_results(take, results)
    return 0


def examine(args) -> int:
    from .doctor import examination, print_examination

    result = examination(args.online, args.verify)
    print(json.dumps(result, indent=1)) if args.json else print_examination(result)
    return 1 if result["proven"] is False or not any(backend["works"] for backend in result["backends"].values()) else 0


def set_up(args) -> int:
    from .setup.command import log_in, set_up

    return log_in(args.json) if args.login else set_up(args.weights, args.body, args.only, args.yes, args.show, args.json)


def serve_pipe(args) -> int:
    from .serve import serve

    return serve()


def _stop_with_stdin() -> None:
    while sys.stdin.buffer.read(1 << 16):
        continue
    os._exit(130)  # at once: every commit is safe against that, and the parent that would want a message is gone


def _write_json(path: Path | None, data: dict) -> None:
    if path:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
        except OSError as error:
            print(f"body4d: {path} could not be written: {error.strerror or error}.", file=sys.stderr)


def _explain(error: Body4DError, args) -> int:
    _write_json(getattr(args, "summary_json", None), {"error": error.to_json()})
    print(f"body4d: {error.message}" + (f"\n        {error.hint}" if error.hint else ""), file=sys.stderr)
    return 1


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 an error that is explained, 2 wrong usage, 130 stopped by the user."""
    args = None
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show is no reason to fail
    try:
        args = parser().parse_args(expanded(parser(), sys.argv[1:] if argv is None else argv))
        return args.call(args)
    except Body4DError as error:
        return _explain(error, args)
    except Exception as error:
        if is_out_of_memory(error):
            return _explain(Body4DError("There is not enough memory to start.", "Close other programs and run again.", "out_of_memory"), args)
        traceback.print_exc()
        return _explain(Body4DError(f"Something went wrong that should not: {error!r}.", "What is done is kept. Please report this with the lines "
                                    "above.", "internal"), args)
    except KeyboardInterrupt:
        print("body4d: stopped. What is done is kept; run the same command again to go on.", file=sys.stderr)
        return 130
