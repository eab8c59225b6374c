"""DINOv2 (Oquab et al. 2023, arXiv:2304.07193): ViT-S/14, B/14 and L/14 without registers, as in linear evaluation.

Images of 224 pixels, so 256 patch tokens behind the class token; the features are the class token beside the mean of
the patch tokens, both after the last norm, which is what the linear heads that were published read. The pretraining
had a grid of 37 x 37 positions: its embeddings are interpolated as the official code does it.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from bench import UsageError, image_models, zoo
from bench.backbones import Backbone, Standardised
from bench.geometry import Geometry
from bench.loaded import Loaded
from bench.weights import FILES, Origin

ARCHITECTURES = {
    "dinov2_vits14": "vit_small_patch14_dinov2",
    "dinov2_vitb14": "vit_base_patch14_dinov2",
    "dinov2_vitl14": "vit_large_patch14_dinov2",
}
SIDE = 224
GRID = SIDE // 14
OFFSET = 0.1
REPOSITORY = "facebookresearch_dinov2_main"


@dataclass(frozen=True)
class DINOv2(Loaded):
    """DINOv2 from torch.hub's checkpoints, or from timm's copy of them. Options as in `Loaded`, and one more.

    Attributes:
        code: Whose architecture: timm's, or that of the repository in torch.hub's folder, which is run from there and
            never downloaded. Both take the same weights to the same features.
    """

    code: Literal["timm", "hub"] = "timm"

    geometry: ClassVar[Geometry] = Geometry(SIDE, 256, "bicubic")
    n_classes: ClassVar[int] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model not in ARCHITECTURES:
            raise ValueError(f"model: got {self.model!r}; expected one of {', '.join(ARCHITECTURES)}; change it")
        if self.code == "hub" and not (self.repository / "hubconf.py").is_file():
            raise ValueError(
                f"code: got 'hub', and there is no {self.repository}; expected a copy of facebookresearch/dinov2; "
                "put it there, or use code = 'timm', which takes the same weights"
            )

    @property
    def repository(self) -> Path:
        """Where torch.hub keeps the official code."""
        return Path(torch.hub.get_dir()) / REPOSITORY

    @property
    def origin(self) -> Origin:
        """torch.hub's file, then timm's copy on Hugging Face's hub."""
        known = image_models.published(ARCHITECTURES[self.model])
        return Origin(self.model, known["hf_hub_id"], known["url"], FILES)

    @property
    def content(self) -> str:
        """What stands at its places; of the official code too, where that is run."""
        if self.code == "timm":
            return super().content
        digest = hashlib.sha256()
        for path in sorted(self.repository.rglob("*.py")):
            digest.update(path.relative_to(self.repository).as_posix().encode() + path.read_bytes())
        return f"{super().content}, code {digest.hexdigest()}"

    def architecture(self, with_classifier: bool) -> nn.Module:
        """The network from images to features; what pools the tokens is a hook, so every path is the library's own."""
        if self.code == "hub":
            module: nn.Module = torch.hub.load(str(self.repository), self.model, source="local", pretrained=False)
            module.register_forward_pre_hook(ask_for_tokens, with_kwargs=True)
            module.register_forward_hook(pool_named_tokens)
            return module
        module = image_models.create(ARCHITECTURES[self.model], img_size=SIDE, num_classes=0, global_pool="")
        module.register_forward_hook(pool_tokens)
        return module

    def converted(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The published tensors at this grid of positions; the official code interpolates by itself as it runs."""
        if self.code == "hub":
            return {"mask_token": torch.zeros(1, state["cls_token"].shape[-1]), **state}
        return {**state, "pos_embed": interpolated(state["pos_embed"], GRID)}

    def ignored(self) -> frozenset[str]:
        """The token that stands for what was masked in training."""
        return frozenset({"mask_token"})

    def backbone(self, module: nn.Module, notes: Mapping[str, float | int | str]) -> Backbone:
        """The backbone with the preprocessing of linear evaluation."""
        transform = Standardised((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        return Backbone.of(
            self.model,
            module,
            transform,
            preprocessing=str(transform),
            prefix=("cls",),
            licence=zoo.ROWS[self.model].licence,
            notes={**notes, "code": self.code},
            geometry=self.geometry,
        )


def pool_tokens(_module: nn.Module, _args: Any, tokens: Float[Tensor, "images tokens width"]) -> Tensor:
    """The class token beside the mean of the patch tokens; a hook of the network."""
    return torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], dim=1)


def ask_for_tokens(_module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Has the official network give all of its tokens, and not the class token alone; a hook of it."""
    return args, {**kwargs, "is_training": True}


def pool_named_tokens(_module: nn.Module, _args: Any, tokens: Mapping[str, Tensor]) -> Tensor:
    """The same as `pool_tokens`, of what the official network gives when asked for all tokens; a hook of it."""
    return torch.cat([tokens["x_norm_clstoken"], tokens["x_norm_patchtokens"].mean(1)], dim=1)


def interpolated(positions: Float[Tensor, "1 stored width"], grid: int) -> Float[Tensor, "1 wanted width"]:
    """Position embeddings for another grid of patches, as the official code computes them when it runs.

    Bicubic without antialiasing, by the scale (grid + 0.1) / stored grid and not by the ratio of the sizes: the offset
    was put in against rounding, and moves the points at which the embeddings are read
    (dinov2/models/vision_transformer.py, `interpolate_pos_encoding`). timm's own resampling differs in both.

    Raises:
        UsageError: The stored ones are of no square.
    """
    n_stored, width = positions.shape[1] - 1, positions.shape[2]
    side = math.isqrt(n_stored)
    if side * side != n_stored:
        raise UsageError(f"pos_embed: got {n_stored} positions beside the class token's; expected a square of them")
    if side == grid:
        return positions
    patches = positions[:, 1:].reshape(1, side, side, width).permute(0, 3, 1, 2)
    scale = (grid + OFFSET) / side
    patches = functional.interpolate(patches, scale_factor=(scale, scale), mode="bicubic", antialias=False)
    return torch.cat([positions[:, :1], patches.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)
