"""Extraction: the probing split once through the backbone, and the tokens of every wanted site and seed to disk.

An entry of the cache holds `inputs-00000.npy`, ..., `outputs-00000.npy`, ... (rows in order of image, then position)
and `tokens.npy` (image and position of each row). Only sampled tokens are copied out of the network, which is left once
the last site has run; images are decoded ahead of it and shards written behind it, so memory does not grow with the
number of images. A finished shard is kept whatever happens: the same work again goes on at the first that is missing.
"""

import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from bench.backbones import Backbone
from bench.cache import Cache, StorageError, digest
from bench.datasets import Split
from bench.geometry import ahead
from bench.lanes import Report
from bench.manifest import Facts
from bench.passes import Taken, read_many, sampled_positions
from bench.shards import FILLED, Shards, Wanted
from bench.sites import Images, Site

VERSION = 2
"""Part of every entry's key; raised when the same site gives other tokens or they are cut into shards otherwise."""
BATCH_IMAGES = 256
"""Images that are run at once, at most."""
BATCH_BYTES = 2**28
"""What the widest layer gives for a batch, at most: what is run at once depends on the backbone alone, so that a site
gives the same bits whichever others are read beside it."""
N_TRIED = 2
"""Images on which it is found out what the sites look like."""


def stage(
    cache: Cache, wanted: Sequence[Wanted], keys: Sequence[Mapping[str, Any]], split: Split, report: Report
) -> list[Path]:
    """The entries of "activations" under these keys; those that the cache lacks are extracted in one pass.

    Raises:
        NotCachedError: The cache is only looked at, and lacks one.
        StorageError: There is too little room, or the cache cannot be written.
        UsageError: A layer cannot be a site, or a value does not fit the format on disk.
    """
    with ExitStack() as stack:
        missing: list[tuple[Wanted, Mapping[str, Any], Path]] = []
        different = {digest(key): (one, key) for one, key in zip(wanted, keys, strict=True)}
        # Everybody who works on several takes them in one order, so that no two wait for each other.
        for name in sorted(different):
            one, key = different[name]
            if folder := stack.enter_context(cache.unfinished("activations", key)):
                missing.append((one, key, folder))
        if missing:
            folders = [folder for _, _, folder in missing]
            known: list[dict[str, Facts]] = []
            cache.guarded(
                lambda: known.extend(extract([one for one, _, _ in missing], folders, split, report)),
                is_ours=cache.is_written_here,
            )
            for (_, key, folder), files in zip(missing, known, strict=True):
                cache.finish("activations", key, folder / FILLED, files)
    return [cache.existing("activations", key) for key in keys]


def extract(wanted: Sequence[Wanted], folders: Sequence[Path], split: Split, report: Report) -> list[dict[str, Facts]]:
    """Run the split through the backbone; size and SHA-256 of the files that are then in each folder's `FILLED`.

    Args:
        wanted: What to extract, all of one backbone.
        folders: One for each; what an interrupted attempt left there is gone on with.
        split: The images.
        report: Told how many of them are done.

    Raises:
        ValueError: The split is empty.
        StorageError: The file system of the folders has too little room.
        UsageError: A layer did not run exactly once or not image by image, or a value does not fit the format on disk.
    """
    n = len(split)
    if not n:
        raise ValueError("dataset: its probing split is empty; expected at least one image; choose another")
    backbone = wanted[0].site.backbone
    first = split.images(torch.arange(min(n, N_TRIED)))
    size, all_shards = shards_of(wanted, folders, first, n)
    check_room(all_shards)
    try:
        run(backbone, all_shards, split, size, report)
    finally:
        for one in all_shards:
            one.abandon()
    report("images", n, n)
    for one in all_shards:
        one.tokens()
    return [one.files for one in all_shards]


def run(backbone: Backbone, all_shards: Sequence[Shards], split: Split, size: int, report: Report) -> None:
    """The pass: what is missing of the shards, batch by batch."""
    n = len(split)
    starts = range(min(one.n_done_images for one in all_shards), n, size)
    batches = (torch.arange(start, min(start + size, n)) for start in starts)
    behind: Future[None] | None = None
    with ThreadPoolExecutor(1) as writer, closing(ahead(split, batches)) as coming:
        for rows, pixels in coming:
            start = int(rows[0])
            report("images", start, n)
            due = [one for one in all_shards if one.n_done_images <= start]
            sites = {one.wanted.site.path: one for one in due}
            drawn = {id(one.drawn): one.drawn[start : start + len(rows)].long() for one in sites.values()}
            places = [drawn[id(one.drawn)] for one in sites.values()]
            taken = read_many(backbone, [one.wanted.site for one in sites.values()], pixels, places)
            if behind is not None:
                behind.result()
            behind = writer.submit(write, due, start, dict(zip(sites, taken, strict=True)))
        if behind is not None:
            behind.result()


def write(due: Sequence[Shards], start: int, taken: Mapping[str, Taken]) -> None:
    """Write what one batch of images, from that one on, gave."""
    for one in due:
        one.add(start, taken[one.wanted.site.path])


def shards_of(
    wanted: Sequence[Wanted], folders: Sequence[Path], first: Images, n_images: int
) -> tuple[int, list[Shards]]:
    """How many images are run together, and the shards of each with the positions of all tokens drawn.

    Sites whose positions agree share them.
    """
    sites = {one.site.path: one.site for one in wanted}
    size, all_positions = tried(list(sites.values()), first)
    drawn: dict[str, Int[Tensor, "images taken"]] = {}
    places: dict[tuple[str, int, int], tuple[int, int]] = {}
    shared: dict[tuple[Any, ...], Int[Tensor, "images taken"]] = {}
    for (path, site), n_positions in zip(sites.items(), all_positions, strict=True):
        kept = site.kept(n_positions)
        draws = tuple(dict.fromkeys((one.token_seed, one.per_image) for one in wanted if one.site.path == path))
        if (key := (draws, *kept.tolist())) not in shared:
            several = [sampled_positions(n_images, kept, per_image, seed) for seed, per_image in draws]
            shared[key] = torch.cat(several, dim=1).int()  # half the memory, which grows with the number of images
        drawn[path] = shared[key]
        begin = 0
        for seed, per_image in draws:
            places[path, seed, per_image] = (begin, min(per_image, len(kept)))
            begin += min(per_image, len(kept))
    found = []
    for one, folder in zip(wanted, folders, strict=True):
        begin, n_own = places[one.site.path, one.token_seed, one.per_image]
        found.append(Shards(one, folder, drawn[one.site.path], begin, n_own, size))
    return size, found


def check_room(all_shards: Sequence[Shards]) -> None:
    """Refuse to begin what the disk cannot hold.

    Raises:
        StorageError: It has less room than will be written.
    """
    needed = sum(one.missing_bytes for one in all_shards)
    folder = all_shards[0].folder
    free = shutil.disk_usage(folder).free
    if needed > free:
        n = len(all_shards)
        raise StorageError(
            f"--cache: {folder} has {free / 1e9:.3g} GB free, and the activations ({n} site{'s' * (n > 1)} and seeds) "
            f"take {needed / 1e9:.3g} GB; expected room for all of them; free it, give another with --cache, store "
            "float16 or take fewer tokens_per_image, then run the same command again: finished work is kept"
        )


def tried(sites: Sequence[Site], first: Images) -> tuple[int, list[int]]:
    """How many images are run together, and how many positions an image has at each site, in one run to the end.

    The first is a power of two, by what the widest of all layers gives for an image.
    """
    backbone, widest = sites[0].backbone, [1]

    def look(_module: nn.Module, _args: object, output: object) -> None:
        if isinstance(output, Tensor):
            widest.append(output.numel() * 4 // len(first))

    with ExitStack() as stack:
        for module in backbone.module.modules():
            stack.callback(module.register_forward_hook(look).remove)
        taken = read_many(backbone, sites, first, stop=False)
    most = max(1, min(BATCH_IMAGES, BATCH_BYTES // max(widest)))
    return 1 << (most.bit_length() - 1), [one.outputs.shape[1] for one in taken]
