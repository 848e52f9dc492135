# SPDX-License-Identifier: Apache-2.0
"""SAM 3's two checkpoint layouts, both ways, and the faults of a folder of weights."""

import json

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
from safetensors.torch import save_file  # noqa: E402

from body4d_engine.errors import Body4DError  # noqa: E402
from body4d_engine.models.sam3.config import CONFIGS, library_config  # noqa: E402
from body4d_engine.models.sam3.keys import from_published, published_name, to_published  # noqa: E402
from body4d_engine.models.sam3.model import Sam3  # noqa: E402

from .sam3_nets import lively, pictures  # noqa: E402

COMPUTED = {"detector.backbone.vision_backbone.trunk.blocks.0.attn.freqs_cis": torch.ones(4, dtype=torch.complex64),
            "detector.geometry_encoder.points_pool_project.bias": torch.ones(128)}


@pytest.fixture(scope="module")
def sam3():
    return lively(3)


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_names_both_ways(sam3):
    # Mutations: q, k, v in another order, the projection not transposed, the class token's row kept, two necks exchanged.
    weights = sam3.net.state_dict()
    published = to_published(weights)
    assert same(from_published(published | COMPUTED, weights), weights)
    assert same(to_published(from_published(published, weights)), published)
    vit = "detector.backbone.vision_backbone.trunk."
    assert published[vit + "pos_embed"].shape == (1, 17, 32) and published[vit + "blocks.1.attn.qkv.weight"].shape == (96, 32)
    ours = "detector_model.vision_encoder.backbone.layers.1.attention."
    assert torch.equal(published[vit + "blocks.1.attn.qkv.bias"], torch.cat([weights[f"{ours}{p}_proj.bias"] for p in "qkv"]))


def test_the_full_network_has_the_published_names():
    # The names were compared with those of the published code, built at full size.
    from transformers import Sam3VideoModel

    with torch.device("meta"):
        names = list(Sam3VideoModel(library_config(CONFIGS["full"])).state_dict())
    published = {piece for whole, part in map(published_name, names) for piece in ([f"{whole}.{i}.weight" for i in range(4)] if part == "rows" else [whole])}
    assert len(names) == 1797 and len(published) == 1427
    for name in ("detector.backbone.vision_backbone.trunk.blocks.31.mlp.fc2.weight", "detector.backbone.vision_backbone.sam2_convs.0.dconv_2x2_1.weight",
                 "detector.backbone.language_backbone.encoder.transformer.resblocks.23.attn.in_proj_weight", "detector.geometry_encoder.encode.2.norm3.bias",
                 "detector.transformer.decoder.layers.5.ca_text.in_proj_bias", "detector.transformer.decoder.boxRPB_embed_x.layers.1.weight",
                 "detector.segmentation_head.mask_predictor.mask_embed.layers.2.weight", "detector.dot_prod_scoring.prompt_mlp.out_norm.weight",
                 "tracker.sam_prompt_encoder.point_embeddings.3.weight", "tracker.sam_mask_decoder.transformer.layers.1.mlp.lin2.weight",
                 "tracker.maskmem_backbone.fuser.layers.1.gamma", "tracker.transformer.encoder.layers.3.cross_attn_image.out_proj.weight",
                 "tracker.obj_ptr_proj.layers.2.weight", "tracker.maskmem_tpos_enc", "tracker.no_obj_embed_spatial"):
        assert name in published


@pytest.mark.parametrize("layout", ["hub", "hub in parts", "published", "published, bare"])
def test_every_layout_loads_to_the_same_network(sam3, layout, tmp_path):
    weights = sam3.net.state_dict()
    hub = {name: tensor.clone().contiguous() for name, tensor in weights.items()}
    if layout == "hub":
        save_file(hub, tmp_path / "model.safetensors")
    elif layout == "hub in parts":
        where = {name: f"model-{1 + i % 2}-of-2.safetensors" for i, name in enumerate(hub)}
        for part in set(where.values()):
            save_file({n: t for n, t in hub.items() if where[n] == part}, tmp_path / part)
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    else:
        content = to_published(weights) | COMPUTED
        torch.save({"model": content} if layout == "published" else content, tmp_path / "sam3.pt")
    loaded = Sam3.load(tmp_path, "tiny")
    assert same(loaded.net.state_dict(), weights)
    picture = pictures(1)[0]
    assert loaded.detect(picture, threshold=0).scores == pytest.approx(sam3.detect(picture, threshold=0).scores, abs=1e-5)


def fault_in(folder, weights, fault):
    hub = {name: tensor.clone().contiguous() for name, tensor in weights.items()}
    if fault == "nothing":
        return "checkpoint_missing", "sam3.pt"
    if fault in ("cut off", "no pickle"):
        torch.save({"model": to_published(weights)}, folder / "sam3.pt")
        data = (folder / "sam3.pt").read_bytes()
        (folder / "sam3.pt").write_bytes(data[: len(data) // 2] if fault == "cut off" else b"PK" + bytes(100))
        return "checkpoint_unreadable", "cannot be read"
    if fault == "code":
        torch.save({"model": Sam3}, folder / "sam3.pt")
        return "checkpoint_unreadable", "cannot be read"
    if fault == "half of safetensors":
        save_file(hub, folder / "model.safetensors")
        data = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
        return "checkpoint_unreadable", "cannot be read"
    if fault == "missing":
        hub.pop("tracker_model.no_object_pointer")
    elif fault == "unknown":
        hub["tracker_model.something"] = torch.zeros(1)
    elif fault == "size":
        hub["tracker_model.no_object_pointer"] = torch.zeros(1, 64)
    elif fault == "another model":
        hub = {"blocks.0.weight": torch.zeros(2)}
    save_file(hub, folder / "model.safetensors")
    return "checkpoint_mismatch", {"missing": "no_object_pointer", "unknown": "something", "size": "[1, 64]", "another model": "blocks.0.weight"}[fault]


@pytest.mark.parametrize("fault", ["nothing", "cut off", "no pickle", "code", "half of safetensors", "missing", "unknown", "size", "another model"])
def test_faults_are_named(sam3, fault, tmp_path):
    code, said = fault_in(tmp_path, sam3.net.state_dict(), fault)
    with pytest.raises(Body4DError) as caught:
        Sam3.load(tmp_path, "tiny")
    assert caught.value.code == code and said in str(caught.value)
