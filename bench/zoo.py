"""The catalogue of real backbones: those of the paper's Table 8, and what other names than these may stand for.

Plain data, so that listing it imports nothing heavy. The paper counts layers from 1 (appendix E.6), and its site is the
last linear layer of a block: "layer 12" of a ViT is the end of the MLP of its block 11. Every block has such a label.
"""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import UnknownNameError


@dataclass(frozen=True)
class Place:
    """One site of a backbone.

    Attributes:
        label: What the paper calls it, counted from 1.
        path: Its module path.
        d_in: Width of what enters it.
        units: Width of what leaves it.
    """

    label: str
    path: str
    d_in: int
    units: int


@dataclass(frozen=True)
class Row:
    """One backbone of the catalogue.

    Attributes:
        title: What the paper calls it.
        source: What its weights are published with.
        identifier: What they are called there.
        licence: Of the weights.
        target: Who loads it, as "module:attribute".
        preset: The options that make it this one.
        places: Its sites, in the order in which images go through them.
        config: For transformers: the configuration of the vision part, as published, so that none has to be there.
        processor: For transformers: the image processor as it is published.
    """

    title: str
    source: str
    identifier: str
    licence: str
    target: str
    preset: Mapping[str, Any]
    places: tuple[Place, ...]
    config: Mapping[str, Any] = field(default_factory=dict)
    processor: Mapping[str, Any] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """One line for lists."""
        n_layers = len({place.path for place in self.places})
        return f"{self.title}, {n_layers} layers, the last of {self.places[-1].units} units; {self.licence}"


def vit_places(path: str, depth: int, d_in: int, units: int) -> tuple[Place, ...]:
    """The end of every block's MLP; `{}` in the path stands for the block, counted from 0."""
    return tuple(Place(f"layer {i + 1}", path.format(i), d_in, units) for i in range(depth))


def convnext_places(depths: tuple[int, ...], widths: tuple[int, ...]) -> tuple[Place, ...]:
    """The end of every block, and the last of them under the name that the paper's Table 9 gives it."""
    found = [
        Place(f"stage {s + 1} block {b + 1}", f"stages.{s}.blocks.{b}.mlp.fc2", 4 * widths[s], widths[s])
        for s, depth in enumerate(depths)
        for b in range(depth)
    ]
    last = found[-1]
    return (*found, Place("last linear layer of the fourth stage", last.path, last.d_in, last.units))


DINO = "torch.hub facebookresearch/dinov2"
HALF = [0.5, 0.5, 0.5]
ROWS: dict[str, Row] = {
    **{
        name: Row(
            title, DINO, name, "Apache-2.0", "bench.dino:DINOv2", {"model": name},
            vit_places("blocks.{}.mlp.fc2", depth, 4 * width, width),
        )
        for name, title, depth, width in (
            ("dinov2_vits14", "DINOv2-S/14", 12, 384),
            ("dinov2_vitb14", "DINOv2-B/14", 12, 768),
            ("dinov2_vitl14", "DINOv2-L/14", 24, 1024),
        )
    },
    "augreg_vit_b16": Row(
        "AugReg ViT-B/16", "timm", "vit_base_patch16_224.augreg_in21k_ft_in1k", "Apache-2.0",
        "bench.image_models:TimmBackbone", {"model": "vit_base_patch16_224.augreg_in21k_ft_in1k"},
        vit_places("blocks.{}.mlp.fc2", 12, 3072, 768),
    ),
    # The paper's Table 8 says MIT, which is the licence of its code; timm and the authors say this of the weights.
    "convnextv2_base": Row(
        "ConvNeXtV2-Base", "timm", "convnextv2_base.fcmae_ft_in22k_in1k", "CC-BY-NC-4.0 (its code: MIT)",
        "bench.image_models:TimmBackbone", {"model": "convnextv2_base.fcmae_ft_in22k_in1k"},
        convnext_places((3, 3, 27, 3), (128, 256, 512, 1024)),
    ),
    "siglip2_b16": Row(
        "SigLIP2-B/16", "transformers", "google/siglip2-base-patch16-224", "Gemma terms",
        "bench.vision_towers:HFBackbone", {"model": "google/siglip2-base-patch16-224"},
        vit_places("encoder.layers.{}.mlp.fc2", 12, 3072, 768),
        config={"model_type": "siglip_vision_model"},
        processor={
            "image_processor_type": "SiglipImageProcessor", "resample": 2, "image_mean": HALF, "image_std": HALF,
            "size": {"height": 224, "width": 224},
        },
    ),
    "llava_onevision": Row(
        "LLaVA-OneVision", "transformers", "llava-hf/llava-onevision-qwen2-0.5b-ov-hf", "Apache-2.0",
        "bench.vision_towers:HFBackbone", {"model": "llava-hf/llava-onevision-qwen2-0.5b-ov-hf"},
        vit_places("encoder.layers.{}.mlp.fc2", 26, 4304, 1152),
        config={
            "model_type": "siglip_vision_model", "hidden_size": 1152, "intermediate_size": 4304, "patch_size": 14,
            "image_size": 384, "num_hidden_layers": 26, "num_attention_heads": 16, "vision_use_head": False,
        },
        processor={
            "image_processor_type": "LlavaOnevisionImageProcessor", "resample": 3, "image_mean": HALF,
            "image_std": HALF, "size": {"height": 384, "width": 384},
        },
    ),
}  # fmt: skip

OTHERS = {"timm": "bench.image_models:TimmBackbone", "hf": "bench.vision_towers:HFBackbone"}
FROM_FILE = re.compile(r"(.+\.py):([A-Za-z_]\w*)")


def row_of(model: str) -> Row | None:
    """The row of the catalogue with this upstream identifier; None where there is none."""
    return next((row for row in ROWS.values() if row.identifier == model), None)


def stands_for(name: str) -> tuple[str, dict[str, Any], str] | None:
    """What loads a backbone that no table lists: "timm:MODEL", "hf:REPOSITORY" or "FILE.py:FACTORY".

    Returns:
        Target, preset and summary of its entry; None where the name has none of these forms. Whether there is such a
        model is only looked up when the backbone is made.
    """
    source, colon, model = name.partition(":")
    if colon and source in OTHERS:
        return OTHERS[source], {"model": model}, f"{model}, as {source} has it"
    if matched := FROM_FILE.fullmatch(name):
        path, attribute = str(Path(matched[1]).resolve()), matched[2]
        return "bench.network_files:FileBackbone", {"path": path, "attribute": attribute}, f"from {matched[1]}"
    return None


def path_of(backbone: str, label_or_path: str) -> str:
    """The module path that a label of the catalogue stands for; what is no label is a path and comes back as it is.

    Args:
        backbone: A name in `ROWS`, or any other, which has no labels.
        label_or_path: "layer 12" say, counted from 1; or a module path or pattern, which never holds a blank.

    Raises:
        UnknownNameError: It holds a blank, and the backbone has no such label; the message names the nearest.
    """
    if " " not in label_or_path:
        return label_or_path
    labels = {place.label: place.path for place in ROWS[backbone].places} if backbone in ROWS else {}
    if label_or_path in labels:
        return labels[label_or_path]
    if not labels:
        raise UnknownNameError(
            f"module: got {label_or_path!r}; expected a module path or a pattern such as blocks.11.mlp.fc2, since only "
            f"backbones of the catalogue have labels and {backbone!r} is none; write the path"
        )
    near = difflib.get_close_matches(label_or_path, labels, n=1, cutoff=0.0)[0]
    names = list(labels)
    raise UnknownNameError(
        f"module: got {label_or_path!r}; did you mean {near!r}? expected a layer of {backbone}, from "
        f"{names[0]!r} to {names[-1]!r}, or a module path; write one of them"
    )
