# SPDX-License-Identifier: Apache-2.0
"""The MoGe-2 network with small random weights: what it computes, what it reads, and how it refuses."""
import copy
import math
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from body4d_engine.errors import Body4DError  # noqa: E402
from body4d_engine.models.moge import config as configs  # noqa: E402
from body4d_engine.models.moge import keys  # noqa: E402
from body4d_engine.models.moge.model import MoGe  # noqa: E402

GOLDEN_POINTS = [[0.1698355, -0.1010315, 0.8760446], [-0.1125002, -0.1112840, 0.6918134], [-0.3618445, -0.3526292, 0.5297440],
                 [-0.1329709, -0.5252896, 0.6747426], [0.0741338, -0.1570433, 0.1156765]]
GOLDEN_MASK = [0.6935578, 0.5160105, 0.4820196, 0.7296801, 0.5273787]
GOLDEN_FOCAL = 56.146282


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def numbers(shapes: dict) -> dict:
    """Weights of numpy's making, the same on every machine: by sorted published name, wide enough that everything matters."""
    rng, weights = np.random.default_rng(7), {}
    for name in sorted(shapes):
        shape = tuple(shapes[name])
        values = rng.normal(size=shape).astype(np.float32)
        if name.endswith("gamma") or ".norm" in name and name.endswith("weight"):
            values = 1 + 0.1 * values
        elif "pos_embed" in name or "cls_token" in name:
            values = 0.3 * values
        else:
            values = 0.05 * values if name.endswith("bias") else values / math.sqrt(math.prod(shape[1:]))
        weights[name] = torch.from_numpy(values)
    weights["encoder.image_mean"] = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    weights["encoder.image_std"] = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    return weights


@pytest.fixture(scope="module")
def published():
    """The tensors of a published checkpoint of the tiny network, without the heads that are not read."""
    return numbers({name: tensor.shape for name, tensor in keys.to_published(MoGe.build("tiny").state_dict()).items()})


@pytest.fixture
def checkpoint(published, tmp_path):
    """Writes a `model.pt`, changed as asked."""
    def write(change=lambda config, tensors: None, name="model.pt"):
        config, tensors = copy.deepcopy(configs.CONFIGS["tiny"]), dict(published)
        change(config, tensors)
        torch.save({"model_config": config, "model": tensors}, tmp_path / name)
        return tmp_path / name
    return write


@pytest.fixture
def moge(checkpoint):
    return MoGe.load(checkpoint())


def picture(width=40, height=30, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (1, height, width, 3)).astype(np.uint8)


def camera(degrees, mask=8.0):
    """A network that sees the same tilted wall in every picture, with a camera of `degrees` along the diagonal: the view plane that enters the finest
    level goes through to the points, everything else is shut off."""
    model = MoGe.build("tiny")
    for name, tensor in model.state_dict().items():
        if not name.startswith(("backbone", "mean", "std")):
            tensor.zero_()
    model.neck.inputs[-1].weight[:2, :, 0, 0] = torch.eye(2)
    for stack in (model.points, model.mask):
        stack.inputs[-1].weight[:, :, 0, 0] = torch.eye(4)
    out = model.points.outputs[-1]
    out.weight[:2, :2, 0, 0] = math.tan(math.radians(degrees / 2)) * torch.eye(2)
    out.weight[2, :2, 0, 0] = torch.tensor([0.5, 0.3])
    model.mask.outputs[-1].bias.fill_(mask)
    return model


# ---- what it computes ----

def test_the_published_code_gives_the_same(moge):
    """The numbers are what microsoft/MoGe at 0744441 gives for these weights. Fails for a change of any layer, of the positions' stretch, the colours'
    order or scale, the view planes, the remapping or the mask's threshold."""
    points, mask = moge(picture(), 48)
    np.testing.assert_allclose(points[0, [0, 7, 15, 22, 29], [0, 33, 20, 5, 39]], GOLDEN_POINTS, rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose(mask[0, [0, 7, 15, 22, 29], [0, 33, 20, 5, 39]], GOLDEN_MASK, rtol=2e-5)
    assert points.dtype == mask.dtype == torch.float32
    assert moge.focal(picture(), 48)[0] == pytest.approx(GOLDEN_FOCAL, rel=1e-3)


@pytest.mark.parametrize("size", [(640, 360), (360, 640), (7, 5), (90, 30), (2160, 3840)])
def test_the_focal_length_of_a_known_camera(size):
    # Fails where width and height change places, where the view plane has the proportions of the token grid, or samples do not meet their own pixels.
    width, height = size
    focal, share = camera(65).focal(np.zeros((1, height, width, 3), np.uint8))
    assert focal == pytest.approx(math.hypot(*size) / 2 / math.tan(math.radians(65 / 2)), rel=0.03 if min(size) < 64 else 0.01)
    assert share == [1.0]


def test_several_frames_do_not_depend_on_each_other(moge):
    frames = np.concatenate([picture(seed=seed) for seed in range(3)])
    points, mask = moge(frames)
    for index, frame in enumerate(frames):
        alone = moge(frame[None])
        np.testing.assert_allclose(points[index], alone[0][0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(mask[index], alone[1][0], atol=1e-5)
    focal, share = moge.focal(frames)
    assert focal.shape == share.shape == (3,) and len({*share}) > 1
    np.testing.assert_array_equal(focal[1:2], moge.focal(torch.from_numpy(frames[1:2]))[0])


def test_frames_that_are_views(moge):
    # Fails for torch's refusal of negative strides, with which BGR becomes RGB, and its warning about read-only arrays.
    frame = picture()
    frame.setflags(write=False)
    np.testing.assert_array_equal(moge(frame[..., ::-1])[1], moge(frame[..., ::-1].copy())[1])


def test_a_picture_without_depth_has_no_focal_length():
    # Fails for the published fallback of a 90 degree view.
    focal, share = camera(65, mask=-8.0).focal(picture())
    assert np.isnan(focal).all() and share == [0.0]


def test_the_mask_keeps_the_rest_out():
    # Fails if the mask is not used, is turned round or cut elsewhere than at one half.
    model = camera(65)
    model.mask.outputs[-1].weight[0, 0, 0, 0] = 20.0                # valid where u > 0: the right half
    model.mask.outputs[-1].bias.zero_()
    model.points.inputs[-1].weight[3, 0] = 1.0
    focal, share = model.focal(picture(640, 360))
    assert share == pytest.approx([0.5], abs=0.02) and focal == pytest.approx(math.hypot(640, 360) / 2 / math.tan(math.radians(65 / 2)), rel=0.02)


def test_points_that_are_not_finite_are_not_valid():
    model = camera(65)
    model.points.outputs[-1].weight[2, 0] = 300.0                   # exp overflows on the right
    focal, share = model.focal(picture(640, 360))
    assert 0.5 < share[0] < 0.9 and not focal[0] < 0


def test_colours_are_red_green_blue_and_normalised(moge):
    # Fails for BGR, for 0..255 and for another mean.
    seen = []
    moge.backbone.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    moge(np.tile(np.array([255, 128, 0], np.uint8), (1, 30, 40, 1)))
    expected = (np.array([1, 128 / 255, 0]) - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(seen[0].mean((0, 2, 3)), expected, rtol=1e-5)


def test_large_frames_are_averaged_not_skipped_through(moge):
    # Fails without antialiasing: a checkerboard of pixels must become grey.
    seen = []
    moge.backbone.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    moge(np.broadcast_to((np.indices((600, 800)).sum(0) % 2 * 255).astype(np.uint8)[None, ..., None], (1, 600, 800, 3)).copy())
    assert seen[0].std((0, 2, 3)).max() < 0.05            # 2 if pixels are picked


def _stretched(count):
    """A ramp over 37 places as DINOv2 stretches it to `count`: cubic convolution (Keys 1981, a = -0.75) at (i + 0.5) * 37 / (count + 0.1) - 0.5."""
    at = (np.arange(count) + 0.5) * 37 / (count + 0.1) - 0.5
    taps = np.floor(at)[:, None] + np.arange(-1, 3)
    far = np.abs(at[:, None] - taps)
    weight = np.where(far <= 1, 1.25 * far**3 - 2.25 * far**2 + 1, -0.75 * far**3 + 3.75 * far**2 - 6 * far + 3)
    return (weight * taps.clip(0, 36)).sum(1)


def test_positions_are_stretched_as_in_training(moge):
    # Fails for transformers' own rule, which is 0.06 off here, and for rows and columns that change places.
    rows, columns = 60, 80
    embeddings = moge.backbone.embeddings
    embeddings.position_embeddings[0, 1:, 0] = torch.arange(37.0).repeat(37)
    embeddings.position_embeddings[0, 1:, 1] = torch.arange(37.0).repeat_interleave(37)
    stretched = embeddings.interpolate_pos_encoding(torch.zeros(1, 1 + rows * columns, 32), rows * 14, columns * 14)
    assert stretched.shape == (1, 1 + rows * columns, 32)
    np.testing.assert_array_equal(stretched[0, 0], embeddings.position_embeddings[0, 0])
    grid = stretched[0, 1:].unflatten(0, (rows, columns))
    np.testing.assert_allclose(grid[..., 0], np.tile(_stretched(columns), (rows, 1)), atol=1e-4)
    np.testing.assert_allclose(grid[..., 1], np.tile(_stretched(rows)[:, None], (1, columns)), atol=1e-4)
    trained = embeddings.interpolate_pos_encoding(torch.zeros(1, 1 + 37 * 37, 32), 37 * 14, 37 * 14)
    np.testing.assert_array_equal(trained, embeddings.position_embeddings)
    own = super(type(embeddings), embeddings).interpolate_pos_encoding(torch.zeros(1, 1 + rows * columns, 32), rows * 14, columns * 14)
    assert (own - stretched).abs().max() > 0.05


def test_the_chosen_layers_are_normalised(moge):
    # Fails for layers that are one off, and without the last norm.
    pictures = torch.randn(1, 3, 28, 42, generator=torch.manual_seed(0))
    hidden, expected = moge.backbone.embeddings(pictures), []
    for index, layer in enumerate(moge.backbone.encoder.layer):
        hidden = layer(hidden)
        if index in moge.config["encoder"]["intermediate_layers"]:
            expected.append(moge.backbone.layernorm(hidden))
    found = moge.backbone(pictures).feature_maps
    assert len(found) == len(expected) == 2
    for a, b in zip(found, expected):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_the_token_grid():
    model = MoGe(configs.CONFIGS["tiny"] | {"num_tokens_range": [1200, 3600]})
    assert model.grid(1920, 1080) == (45, 80) and model.grid(1080, 1920) == (80, 45) and model.grid(500, 500, 1200) == (35, 35)
    assert model.grid(200000, 1) == (1, 26833)
    for tokens in (1199, 3601):
        with pytest.raises(Body4DError) as error:
            model.grid(1920, 1080, tokens)
        assert error.value.code == "tokens"


def test_a_backbone_in_half_precision(moge, checkpoint):
    # Fails if the type is not used (equal) or spreads to the decoder (type, distance).
    half = MoGe.load(checkpoint(), backbone_dtype=torch.bfloat16)
    (points, mask), (other, other_mask) = moge(picture()), half(picture())
    assert other.dtype == other_mask.dtype == torch.float32 and all(tensor.dtype == torch.float32 for tensor in half.state_dict().values())
    assert not torch.equal(points, other)
    np.testing.assert_allclose(mask, other_mask, atol=0.05)


@pytest.mark.parametrize("frames", [np.zeros((4, 4, 3), np.uint8), np.zeros((1, 4, 4, 4), np.uint8), np.zeros((1, 4, 4, 3), np.float32),
                                    np.zeros((0, 4, 4, 3), np.uint8), np.zeros((1, 0, 4, 3), np.uint8)])
def test_frames_of_another_kind(moge, frames):
    with pytest.raises(Body4DError) as error:
        moge(frames)
    assert error.value.code == "frames"


def test_every_option_of_a_published_stack():
    # Fails if an option is read but builds nothing, or builds what does not fit the next level.
    config, dims = copy.deepcopy(configs.CONFIGS["tiny"]), [32, 64, 32, 32, 32]
    config["encoder"]["intermediate_layers"] = 3
    config["neck"] |= {"dim_res_blocks": dims, "num_res_blocks": 1, "res_block_in_norm": "layer_norm", "res_block_hidden_norm": "group_norm",
                       "activation": "silu", "dim_times_res_block_hidden": 2, "resamplers": ["pixel_shuffle", "nearest", "bilinear", "conv_transpose"]}
    for head in ("points_head", "mask_head"):
        config[head] |= {"dim_in": dims, "dim_res_blocks": dims, "activation": "leaky_relu", "res_block_in_norm": "instance_norm"}
    model = MoGe.build(config)
    assert len(model.projections) == 3 and model.neck.blocks[1][0].conv1.weight.shape == (128, 64, 3, 3) and model.neck.blocks[1][0].norm2.num_groups == 4
    assert model(picture())[0].shape == (1, 30, 40, 3)
    point = torch.tensor([0.5, -0.5, 0.25]).view(1, 1, 1, 3)
    e, s = math.exp(0.25), math.sinh(0.5)
    for remap, expected in {"linear": (0.5, -0.5, 0.25), "sinh": (s, -s, math.sinh(0.25)), "exp": (0.5 * e, -0.5 * e, e), "sinh_exp": (s, -s, e)}.items():
        found = torch.cat(MoGe(config | {"remap_output": remap}).remap(point[..., :2], point[..., 2:]), -1)
        np.testing.assert_allclose(found.flatten(), expected, rtol=1e-6)


# ---- what it reads ----

def test_keys_there_and_back():
    # Fails for any tensor dropped, doubled or given to another: every number is its own.
    model = MoGe.build("tiny")
    for start, tensor in enumerate(model.state_dict().values()):
        tensor.copy_(torch.arange(tensor.numel()).view(tensor.shape) + start * 1e-3)
    ours = model.state_dict()
    theirs = keys.to_published(ours)
    back = keys.from_published(theirs, {name: tensor.shape for name, tensor in ours.items()})
    assert set(back) == set(ours) and all(torch.equal(back[name], ours[name]) for name in ours)
    again = keys.to_published(back)
    assert set(again) == set(theirs) and all(torch.equal(again[name], theirs[name]) for name in theirs)
    assert sum(tensor.numel() for tensor in ours.values()) == sum(tensor.numel() for tensor in theirs.values())


def test_the_published_names(published):
    """The names of the published layout, listed. Fails for a renaming that merely inverts itself."""
    expected = {f"encoder.backbone.{name}.{part}" for name in ("patch_embed.proj", "norm") for part in ("weight", "bias")}
    expected |= {"encoder.backbone.cls_token", "encoder.backbone.pos_embed", "encoder.image_mean", "encoder.image_std"}
    expected |= {f"encoder.output_projections.{i}.{part}" for i in range(2) for part in ("weight", "bias")}
    for i in range(4):
        block = f"encoder.backbone.blocks.{i}"
        expected |= {f"{block}.{layer}.{part}" for layer in ("norm1", "norm2", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2") for part in ("weight", "bias")}
        expected |= {f"{block}.ls1.gamma", f"{block}.ls2.gamma"}
    for stack in ("neck", "points_head", "mask_head"):
        modules = [f"input_blocks.{i}" for i in range(5)] + [f"res_blocks.{i}.0.layers.{j}" for i in (1, 2, 3) for j in (2, 5)]
        modules += [f"resamplers.{i}.{j}" for i in range(3) for j in (0, 1)] + ["resamplers.3.1"] + ([] if stack == "neck" else ["output_blocks.4"])
        expected |= {f"{stack}.{module}.{part}" for module in modules for part in ("weight", "bias")}
    assert set(published) == expected
    assert published["encoder.backbone.blocks.0.attn.qkv.weight"].shape == (96, 32) and published["encoder.backbone.pos_embed"].shape == (1, 1370, 32)


def test_queries_keys_and_values_keep_their_order(moge, published):
    qkv = published["encoder.backbone.blocks.2.attn.qkv.bias"]
    for part, name in enumerate("qkv"):
        np.testing.assert_array_equal(getattr(moge.backbone.encoder.layer[2].attention, f"{name}_proj").bias, qkv[32 * part:32 * part + 32])


def test_what_is_not_read_may_be_there(checkpoint, moge):
    """The published files hold a scale head, some a normal head, and DINOv2's mask token."""
    def change(config, tensors):
        config |= {"normal_head": config["points_head"], "scale_head": {"dims": [32, 32, 1]}, "some_training_option": 3}
        tensors |= {"encoder.backbone.mask_token": torch.zeros(1, 32), "scale_head.0.weight": torch.zeros(32, 32),
                    "normal_head.output_blocks.4.weight": torch.zeros(3, 4, 1, 1)}
    path = checkpoint(change, "other.pt")
    np.testing.assert_array_equal(MoGe.load(path)(picture())[0], moge(picture())[0])


def test_a_folder_and_half_precision_weights(checkpoint, moge):
    def change(config, tensors):
        tensors |= {name: tensor.half() for name, tensor in tensors.items()}
    model = MoGe.load(checkpoint(change).parent)
    assert all(tensor.dtype == torch.float32 for tensor in model.state_dict().values()) and not any(p.requires_grad for p in model.parameters())
    np.testing.assert_allclose(model(picture())[1], moge(picture())[1], atol=0.02)


def test_the_file_may_change_while_the_network_lives(checkpoint):
    # Fails if the weights stay mapped from the file.
    path = checkpoint()
    model = MoGe.load(path)
    before = model(picture())[0]
    with open(path, "r+b") as stream:
        stream.write(bytes(path.stat().st_size))
    np.testing.assert_array_equal(model(picture())[0], before)


@pytest.mark.parametrize("change, says", [
    (lambda config, tensors: tensors.pop("points_head.output_blocks.4.bias"), "lacks points_head.output_blocks.4.bias"),
    (lambda config, tensors: tensors.update({"refiner.weight": torch.zeros(1)}), "has refiner.weight"),
    (lambda config, tensors: tensors.update({"encoder.backbone.register_tokens": torch.zeros(1)}), "register_tokens"),
    (lambda config, tensors: tensors.update({"encoder.backbone.blocks.1.attn.qkv.weight": torch.zeros(90, 32)}), "another size"),
    (lambda config, tensors: config.update(encoder="dinov2_vitl14"), "first MoGe"),
    (lambda config, tensors: config["encoder"].update(backbone="dinov2_vitg14"), "dinov2_vitg14"),
    (lambda config, tensors: config.pop("mask_head"), "no mask_head"),
    (lambda config, tensors: config["neck"].update(resamplers="avg_pool"), "not known"),
    (lambda config, tensors: config["neck"].update(attention=True), "not known"),
    (lambda config, tensors: config.update(remap_output="log"), "not known"),
])
def test_a_checkpoint_of_something_else(checkpoint, change, says):
    # Fails if a tensor is left as random numbers, or one that matters is ignored.
    with pytest.raises(Body4DError, match=says) as error:
        MoGe.load(checkpoint(change))
    assert error.value.code == "checkpoint_keys" and "Ruicheng/moge-2-vitl" in error.value.hint


def test_files_that_cannot_be_read(tmp_path, checkpoint):
    def code(path):
        with pytest.raises(Body4DError) as error:
            MoGe.load(path)
        return error.value.code

    whole = checkpoint().read_bytes()
    for name, content in {"half.pt": whole[:len(whole) // 2], "empty.pt": b"", "text.pt": b"<html>Access denied</html>", "zip.pt": b"PK\x03\x04"}.items():
        (tmp_path / name).write_bytes(content)
        assert code(tmp_path / name) == "checkpoint_unreadable", name
    assert code(tmp_path / "absent.pt") == "checkpoint_missing" and code(tmp_path / "..") == "checkpoint_missing"
    torch.save({"state_dict": {}}, tmp_path / "other.pt")
    assert code(tmp_path / "other.pt") == "checkpoint_keys"


class Harmful:
    def __reduce__(self):
        return (print, ("this must never run",))


def test_nothing_in_a_file_is_executed(tmp_path, capsys):
    torch.save({"model_config": {}, "model": {}, "more": Harmful()}, tmp_path / "model.pt")
    with pytest.raises(Body4DError) as error:
        MoGe.load(tmp_path)
    assert error.value.code == "checkpoint_unreadable" and "never run" not in capsys.readouterr().out


def test_the_large_network_has_its_published_size():
    # Fails for a change of any published size. Built without memory.
    with torch.device("meta"):
        model = MoGe.build("vitl")
    assert sum(parameter.numel() for parameter in model.backbone.parameters()) == 304_368_640 - 1024        # DINOv2 ViT-L/14, less the mask token
    assert model.token_range == (1200, 3600) and len(model.projections) == 4
    assert model.backbone.layernorm.eps == model.backbone.encoder.layer[0].norm1.eps == 1e-6


def test_the_solve_needs_no_torch():
    code = "import sys; sys.modules['torch'] = None; import body4d_engine.models.moge.focal"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0
