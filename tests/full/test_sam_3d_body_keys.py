# SPDX-License-Identifier: Apache-2.0
"""The published checkpoint's layout, both ways, and files that are not one."""

import pickle
import sys
import types
import zipfile

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from body4d_engine.errors import Body4DError  # noqa: E402
from body4d_engine.models.mhr import stand_in  # noqa: E402
from body4d_engine.models.sam_3d_body import keys  # noqa: E402
from body4d_engine.models.sam_3d_body.inference import Sam3dBody  # noqa: E402

from .sam_3d_body_nets import TINY, TINY_VIT, network, people  # noqa: E402

CONFIGS = (TINY, TINY_VIT)


@pytest.fixture(scope="module", params=CONFIGS, ids=["dinov3", "vit"])
def ours(request):
    return network(request.param)


@pytest.fixture(scope="module")
def mhr():
    return stand_in.mhr(TINY.vertices)


def saved(content, folder):
    torch.save(content, folder / "model.ckpt")
    return folder


def refusal(folder, mhr) -> str:
    with pytest.raises(Body4DError) as refused:
        Sam3dBody.load(folder, mhr, CONFIGS)
    assert refused.value.hint
    return refused.value.code


def test_both_ways(ours):
    """Fails if a tensor is lost, doubled or reshaped wrongly in either direction."""
    config, state = ours.config, ours.state_dict()
    published = keys.to_published(state, config)
    again = keys.from_published(published, config)
    assert set(again) == set(state) and all(torch.equal(again[name], state[name]) for name in state)
    torch.manual_seed(1)
    other = {name: torch.randn_like(value) if value.is_floating_point() and not name.endswith(("bias_mask", "periods")) else value
             for name, value in published.items()}
    back = keys.to_published(keys.from_published(other, config), config)
    assert set(back) == set(published)
    differ = {name for name in back if not torch.equal(back[name], other[name])}
    dim = config.backbone.dim
    for name in list(differ):
        if name.endswith("attn.qkv.bias") and torch.equal(back[name][:dim], other[name][:dim]) and torch.equal(back[name][2 * dim:], other[name][2 * dim:]):
            differ.remove(name)                          # keys have no bias: the published network masks it
        if name.endswith("keypoint_mapping") and torch.equal(back[name][:70], other[name][:70]):
            differ.remove(name)                          # keypoints beyond the 70 are not read
    unused = {"head_pose_hand.joint_rotation", "head_pose.right_wrist_coords", "head_pose.root_coords", "head_pose.local_to_world_wrist"}
    assert {name for name in differ if not name.startswith(keys._IGNORED_PREFIXES) and not name.endswith(keys._IGNORED_SUFFIXES)} <= unused


def test_where_things_go(ours):
    """Fails if queries and keys, the two decoders, or the rows of the label table are exchanged in both directions alike."""
    published = keys.to_published(ours.state_dict(), ours.config)
    assert torch.equal(published["init_pose.weight"], ours.body.initial_pose) and torch.equal(published["init_pose_hand.weight"], ours.hand.initial_pose)
    assert torch.equal(published["prompt_encoder.point_embeddings.41.weight"][0], ours.prompts.labels.weight[43])
    assert torch.equal(published["prompt_encoder.invalid_point_embed.weight"][0], ours.prompts.labels.weight[0])
    assert torch.equal(published["decoder.layers.0.cross_attn.k_proj.weight"], ours.body.layers[0].cross_attention.k.weight)
    assert published["head_pose.keypoint_mapping"].shape[0] == 308 and published["ray_cond_emb.conv.weight"].shape[1:] == (ours.config.backbone.dim + 99, 1, 1)
    if ours.config is TINY:
        attention = ours.backbone.model.model.layer[0].attention
        weight = published["backbone.encoder.blocks.0.attn.qkv.weight"]
        assert torch.equal(weight[:32], attention.q_proj.weight) and torch.equal(weight[64:], attention.v_proj.weight)


@pytest.mark.parametrize("wrapped", [True, False])
def test_load(ours, mhr, tmp_path, wrapped):
    """Fails if a loaded network computes something else than the one that was saved, or leaves weights empty."""
    published = keys.to_published(ours.state_dict(), ours.config)
    published = {name: value.half() if name.startswith("backbone.encoder.norm") else value for name, value in published.items()}
    loaded = Sam3dBody.load(saved({"state_dict": published} if wrapped else published, tmp_path), mhr, CONFIGS)
    assert loaded.config == ours.config and all(value.dtype != torch.float16 and not value.is_meta for value in loaded.state_dict().values())
    first, second = loaded.infer(people()[:2], "full"), ours.infer(people()[:2], "full")
    assert torch.allclose(first["pred_vertices"], second["pred_vertices"], atol=0.02 if ours.config is TINY else 1e-6)    # one norm went through half precision


def test_another_network_and_missing_and_extra_keys(ours, mhr, tmp_path):
    published = keys.to_published(ours.state_dict(), ours.config)
    without = {name: value for name, value in published.items() if name != "decoder.layers.1.ln3.weight"}
    extra = published | {"decoder.layers.7.ln3.weight": torch.zeros(3)}
    sized = published | {"init_camera.weight": torch.zeros(1, 4)}
    other = {"model.0.weight": torch.zeros(3, 3)}
    for content, word in ((without, "decoder.layers.1.ln3.weight"), (extra, "decoder.layers.7.ln3.weight"), (sized, "body.initial_camera"), (other, "none of")):
        with pytest.raises(Body4DError, match=word) as refused:
            Sam3dBody.load(saved({"state_dict": content}, tmp_path), mhr, CONFIGS)
        assert refused.value.code == "checkpoint_keys"
    more = published | {"head_pose.mhr.buffer": torch.zeros(2), "training_only.weight": torch.zeros(2)}
    assert Sam3dBody.load(saved({"state_dict": more}, tmp_path), mhr, CONFIGS).unread == ("training_only.weight",)


def test_broken_files(ours, mhr, tmp_path):
    assert refusal(tmp_path, mhr) == "checkpoint_missing"
    file = saved({"state_dict": keys.to_published(ours.state_dict(), ours.config)}, tmp_path) / "model.ckpt"
    whole = file.read_bytes()
    for content in (whole[:len(whole) // 2], b"", b"version https://git-lfs.github.com/spec/v1\n", pickle.dumps({"state_dict": {}})):
        file.write_bytes(content)
        assert refusal(tmp_path, mhr) == "checkpoint_unreadable"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.txt", "not a checkpoint")
    assert refusal(tmp_path, mhr) == "checkpoint_unreadable"


class Evil:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code of a checkpoint was run')",))


def test_code_in_a_checkpoint_is_never_run(ours, mhr, tmp_path):
    """Fails if loading falls back to plain unpickling."""
    published = keys.to_published(ours.state_dict(), ours.config)
    assert refusal(saved({"state_dict": published, "hyper_parameters": Evil()}, tmp_path), mhr) == "checkpoint_unreadable"


def test_training_options_beside_the_weights(ours, mhr, tmp_path, monkeypatch):
    """A checkpoint with its options is read without their package. Fails if their class is imported, or refused."""
    module = types.ModuleType("yacs.config")

    class CfgNode(dict):
        __module__, __qualname__ = "yacs.config", "CfgNode"

    module.CfgNode = CfgNode
    monkeypatch.setitem(sys.modules, "yacs", types.ModuleType("yacs"))
    monkeypatch.setitem(sys.modules, "yacs.config", module)
    options = CfgNode(MODEL=CfgNode(DIM=3))
    options.frozen = True
    folder = saved({"state_dict": keys.to_published(ours.state_dict(), ours.config), "hyper_parameters": options}, tmp_path)
    monkeypatch.delitem(sys.modules, "yacs.config")
    monkeypatch.delitem(sys.modules, "yacs")
    assert Sam3dBody.load(folder, mhr, CONFIGS).config == ours.config
