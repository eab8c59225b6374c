"""Writes a tiny judge with random weights: the architecture of a real one, 1 MB, answers without meaning.

Runs inside the environment that has vLLM and transformers, never in ours:
`python tiny_judges.py FAMILY FOLDER`, where FAMILY is one of `SEEDS`.

Weights as libraries draw them give the same text to every request, so they are scaled up until replies depend on the
images and on their order. The numbers were found by trying.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessor,
    Gemma3Processor,
    PreTrainedTokenizerFast,
    Qwen2VLImageProcessor,
    Qwen3VLMoeConfig,
    Qwen3VLMoeForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

SENTENCES = [
    '{"reasoning_a": "The images share a common object, a round thing with stripes.", "reasoning_b": "no shared '
    'property", "answer": "A"}',
    '{"reasoning_a": "They look incoherent to me.", "reasoning_b": "Nine pictures of one texture.", "answer": "B"}',
    "Each grid shows the 9 images that most strongly activate a neural network unit. Grid A = first image. Grid B = "
    "second image. Describe what concept each grid captures (or why it seems incoherent), then state which is more "
    "coherent. Respond as JSON only:",
    "A coherent unit captures a single, nameable concept: object category, object part, color, texture, material, "
    "shape, or other visual or semantic attribute.",
]
TEXT = {
    "vocab_size": 640,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,  # the smallest that vLLM's attention on a CPU takes
    "intermediate_size": 128,
    "max_position_embeddings": 40960,
}
SEEDS = {"qwen3_vl_moe": 8, "gemma3": 7}
"""The families, and the seed whose weights answer neither always A nor always B."""


def tokenizer_of(specials: dict[str, str], extra: list[str], template: str) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer trained on a few sentences, with a family's own tokens and chat template."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=560, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    backend.train_from_iterator(SENTENCES, trainer)
    backend.add_tokens([AddedToken(text, normalized=False) for text in extra])
    backend.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in specials.values()])
    named = {key: text for key, text in specials.items() if key in ("bos_token", "eos_token", "pad_token")}
    own = {key: text for key, text in specials.items() if key.endswith("_token") and key not in named}
    return PreTrainedTokenizerFast(tokenizer_object=backend, extra_special_tokens=own, chat_template=template, **named)


QWEN_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' or 'image_url' in part %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GEMMA_TEMPLATE = (
    "<bos>{% for message in messages %}<start_of_turn>{{ 'model' if message.role == 'assistant' else message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' or 'image_url' in part %}<start_of_image>"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


def qwen3_vl_moe(folder: Path) -> Any:
    """A Qwen3-VL mixture of four experts."""
    tokenizer = tokenizer_of(
        {
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "start": "<|im_start|>",
            "image_token": "<|image_pad|>",
            "video_token": "<|video_pad|>",
            "vision_start_token": "<|vision_start|>",
            "vision_end_token": "<|vision_end|>",
        },
        [],
        QWEN_TEMPLATE,
    )
    code = tokenizer.convert_tokens_to_ids
    config = Qwen3VLMoeConfig(
        text_config=TEXT
        | {
            "moe_intermediate_size": 64,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "norm_topk_prob": True,
            "tie_word_embeddings": False,
            "eos_token_id": code("<|im_end|>"),
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 5e6,
                "mrope_section": [6, 5, 5],
                "mrope_interleaved": True,
            },
        },
        vision_config={
            "depth": 2,
            "hidden_size": 64,
            "num_heads": 2,
            "intermediate_size": 128,
            "out_hidden_size": 64,
            "deepstack_visual_indexes": [0, 1],
        },
        image_token_id=code("<|image_pad|>"),
        video_token_id=code("<|video_pad|>"),
        vision_start_token_id=code("<|vision_start|>"),
        vision_end_token_id=code("<|vision_end|>"),
    )
    sides = {"shortest_edge": 32 * 32, "longest_edge": 1024 * 1024}
    picture = {
        "patch_size": 16,
        "merge_size": 2,
        "temporal_patch_size": 2,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "size": sides,
    }
    Qwen3VLProcessor(
        Qwen2VLImageProcessor(**picture), tokenizer, Qwen3VLVideoProcessor(**picture), chat_template=QWEN_TEMPLATE
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Qwen3VLMoeForConditionalGeneration(config)


def gemma3(folder: Path) -> Any:
    """A Gemma-3 with one sliding and one full layer."""
    tokenizer = tokenizer_of(
        {
            "bos_token": "<bos>",
            "eos_token": "<end_of_turn>",
            "pad_token": "<pad>",
            "start": "<start_of_turn>",
            "image_token": "<image_soft_token>",
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
        },
        ["\n" * n for n in (1, 2, 3, 4)],
        GEMMA_TEMPLATE,
    )
    code = tokenizer.convert_tokens_to_ids
    config = Gemma3Config(
        text_config=TEXT
        | {
            "layer_types": ["sliding_attention", "full_attention"],
            "sliding_window": 512,
            "query_pre_attn_scalar": 32,
            "bos_token_id": code("<bos>"),
            "eos_token_id": code("<end_of_turn>"),
            "pad_token_id": code("<pad>"),
        },
        vision_config={
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 112,
            "patch_size": 14,
            "vision_use_head": False,
        },
        mm_tokens_per_image=64,
        image_token_index=code("<image_soft_token>"),
        boi_token_index=code("<start_of_image>"),
        eoi_token_index=code("<end_of_image>"),
    )
    Gemma3Processor(
        Gemma3ImageProcessor(size={"height": 112, "width": 112}, image_mean=[0.5] * 3, image_std=[0.5] * 3),
        tokenizer,
        chat_template=GEMMA_TEMPLATE,
        image_seq_length=64,
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Gemma3ForConditionalGeneration(config)


def scaled(name: str, weight: torch.Tensor) -> torch.Tensor:
    """A weight large enough that what comes out depends on what went in."""
    if name.endswith("mm_input_projection_weight"):
        return torch.randn_like(weight)  # zero as it is made, which would hide the images
    if "vision" not in name and name.endswith("embed_tokens.weight") and name.startswith("language_model"):
        return weight  # Gemma's is its output layer too: scaled up, each token would only repeat itself
    if name.endswith(("q_norm.weight", "k_norm.weight")):
        return torch.full_like(weight, 2.5)
    if weight.ndim < 2:
        return weight
    return weight * (40 if name.endswith("o_proj.weight") else 10)


def renamed(family: str, name: str, weight: torch.Tensor) -> tuple[str, torch.Tensor]:
    """A weight as published checkpoints hold it, where saving does not give that."""
    if family == "qwen3_vl_moe" and ".mlp.experts." in name:
        return name, weight.transpose(-1, -2)
    if family == "gemma3" and "vision_model" not in name:
        for part in ("embeddings", "encoder", "post_layernorm"):
            name = name.replace(f"vision_tower.{part}", f"vision_tower.vision_model.{part}")
    return name, weight


def write(family: str, folder: Path) -> None:
    """Writes the model folder of a family."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(SEEDS[family])
    model = {"qwen3_vl_moe": qwen3_vl_moe, "gemma3": gemma3}[family](folder)
    model.to(torch.bfloat16).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    if family == "qwen3_vl_moe":
        config["text_config"]["norm_topk_prob"] = True  # vLLM reads it, transformers 5 does not save it
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    path = folder / "model.safetensors"
    tensors = dict(renamed(family, name, scaled(name, weight)) for name, weight in load_file(path).items())
    save_file({name: weight.contiguous() for name, weight in tensors.items()}, path, metadata={"format": "pt"})


if __name__ == "__main__":
    write(sys.argv[1], Path(sys.argv[2]))
