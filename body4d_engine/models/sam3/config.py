# SPDX-License-Identifier: Apache-2.0
"""The sizes of SAM 3: the published one and a tiny one for tests, as configurations of the library's classes."""

from dataclasses import dataclass

from .text import CONTEXT, END, START, VOCABULARY

PATCH = 14                   # pixels per side of an image token


@dataclass(frozen=True)
class Config:
    """Sizes of one network. `window`: tokens per side of windowed attention; `global_layers`: the layers that see the whole picture."""

    image: int = 1008
    vit_dim: int = 1024
    vit_hidden: int = 4736
    vit_layers: int = 32
    vit_heads: int = 16
    window: int = 24
    global_layers: tuple[int, ...] = (7, 15, 23, 31)
    pretrain_image: int = 336
    text_dim: int = 1024
    text_hidden: int = 4096
    text_layers: int = 24
    text_heads: int = 16
    text_projection: int = 512
    dim: int = 256
    heads: int = 8
    hidden: int = 2048
    geometry_layers: int = 3
    detector_layers: int = 6
    queries: int = 200
    memory_dim: int = 64      # the library's cross-attention takes no other
    memory_layers: int = 4
    memory_hidden: int = 2048
    fuser_hidden: int = 1024
    iou_hidden: int = 256

    @property
    def grid(self) -> int:
        """Image tokens per side."""
        return self.image // PATCH


CONFIGS = {
    "full": Config(),
    "tiny": Config(image=112, vit_dim=32, vit_hidden=64, vit_layers=2, vit_heads=4, window=4, global_layers=(1,), pretrain_image=56, text_dim=32,
                   text_hidden=128, text_layers=1, text_heads=4, dim=128, heads=4, hidden=64, geometry_layers=1, detector_layers=1, queries=6, memory_layers=1,
                   memory_hidden=64, fuser_hidden=512, iou_hidden=32),
}


def library_config(config: Config):
    """The same as a `Sam3VideoConfig` of transformers: detector and tracker that share a vision backbone."""
    from transformers import Sam3VideoConfig

    vit = {"model_type": "sam3_vit_model", "hidden_size": config.vit_dim, "intermediate_size": config.vit_hidden, "num_hidden_layers": config.vit_layers,
           "num_attention_heads": config.vit_heads, "image_size": config.image, "patch_size": PATCH, "window_size": config.window,
           "global_attn_indexes": list(config.global_layers), "pretrain_image_size": config.pretrain_image}
    vision = {"model_type": "sam3_vision_model", "backbone_config": vit, "fpn_hidden_size": config.dim,
              "backbone_feature_sizes": [[scale * config.grid] * 2 for scale in (4, 2, 1)]}
    text = {"model_type": "clip_text_model", "vocab_size": VOCABULARY, "hidden_size": config.text_dim, "intermediate_size": config.text_hidden,
            "projection_dim": config.text_projection, "num_hidden_layers": config.text_layers, "num_attention_heads": config.text_heads,
            "max_position_embeddings": CONTEXT, "hidden_act": "gelu", "bos_token_id": START, "eos_token_id": END, "pad_token_id": END}
    layers = {"hidden_size": config.dim, "num_attention_heads": config.heads, "intermediate_size": config.hidden}
    detector = {"model_type": "sam3", "vision_config": vision, "text_config": text,
                "geometry_encoder_config": layers | {"num_layers": config.geometry_layers},
                "detr_encoder_config": layers | {"num_layers": config.detector_layers},
                "detr_decoder_config": layers | {"num_layers": config.detector_layers, "num_queries": config.queries},
                "mask_decoder_config": {"hidden_size": config.dim, "num_attention_heads": config.heads}}
    tracker = {"model_type": "sam3_tracker_video", "vision_config": vision, "image_size": config.image,
               "prompt_encoder_config": {"hidden_size": config.dim, "image_size": config.image, "patch_size": PATCH},
               "mask_decoder_config": {"hidden_size": config.dim, "mlp_dim": config.hidden, "num_attention_heads": config.heads,
                                       "iou_head_hidden_dim": config.iou_hidden},
               "memory_attention_hidden_size": config.dim, "memory_attention_num_layers": config.memory_layers,
               "memory_attention_feed_forward_hidden_size": config.memory_hidden, "memory_encoder_hidden_size": config.dim,
               "memory_encoder_output_channels": config.memory_dim, "mask_downsampler_embed_dim": config.dim, "memory_fuser_embed_dim": config.dim,
               "memory_fuser_intermediate_dim": config.fuser_hidden}
    return Sam3VideoConfig(detector_config=detector, tracker_config=tracker, low_res_mask_size=4 * config.grid)
