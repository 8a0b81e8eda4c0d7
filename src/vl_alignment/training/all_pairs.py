"""All pairs of many pictures and captions, in shards: bounded memory, a progress bar, and a way to go on."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from .score_shards import ScoreShards

__all__ = ["CAPTIONS_PER_SHARD", "IMAGES_PER_SHARD", "images_per_shard", "score_all_pairs"]

# A shard transforms and prepares its pictures' regions anew for these captions: in 1,024 captions of 12 words that is
# lost among the products (4 % with a learned matrix). As many pictures as the similarity takes at a time at d = 1024.
CAPTIONS_PER_SHARD = 1024
IMAGES_PER_SHARD = 900
# Fewer pictures where there are not so many, so that several processes have a shard each.
FEW_IMAGES_PER_SHARD = 250
SECONDS_BEFORE_THE_BAR = 5.0


def images_per_shard(images: int) -> int:
    """Return how many of so many pictures make a shard; the number of processes does not matter."""
    return min(IMAGES_PER_SHARD, max(FEW_IMAGES_PER_SHARD, math.ceil(images / 8)))


@torch.no_grad()
def score_all_pairs(
    model: Any,
    regions: Tensor | Sequence[Tensor],
    encode_words: Callable[[np.ndarray], tuple[Tensor, Tensor]],
    lengths: np.ndarray,
    *,
    shards: ScoreShards | None = None,
    first_images: Sequence[int] | None = None,
    progress: bool = True,
) -> Tensor:
    """Score every picture against every caption, captions of similar length together.

    Beyond the regions and the result this takes the words of one shard and the scratch of the similarity.

    Args:
        model: Whose `similarity` scores.
        regions: Region embeddings [I, R, d] on the model's device, or those of each shard, which may be some of many.
        encode_words: Captions' numbers [n] -> word embeddings [n, L, d] and their mask [n, L].
        lengths: int [C], words of each caption.
        shards: Where finished shards are kept and found; nowhere by default.
        first_images: Number of the first picture of each of the given shards, by which they are named.
        progress: Whether to show a progress bar, for what takes longer than a few seconds.

    Returns:
        Similarities [I, C], float32 on the CPU, the same whether shards were there or not.
    """
    blocks = regions.split(IMAGES_PER_SHARD) if isinstance(regions, Tensor) else regions
    ends = np.cumsum([len(block) for block in blocks], dtype=int).tolist()
    starts = [end - len(block) for end, block in zip(ends, blocks, strict=True)]
    names = starts if first_images is None else first_images
    result = torch.empty(ends[-1] if ends else 0, len(lengths))
    by_length = np.argsort(lengths, kind="stable")
    with tqdm(
        total=result.numel(),
        desc="pairs",
        unit="pair",
        unit_scale=True,
        disable=not progress,
        delay=SECONDS_BEFORE_THE_BAR,
    ) as bar:
        for start in range(0, len(by_length), CAPTIONS_PER_SHARD):
            columns = by_length[start : start + CAPTIONS_PER_SHARD]
            # Embedded when the first shard needs them: not at all where every shard is there.
            words = functools.cache(functools.partial(encode_words, columns))
            for some, image, name in zip(blocks, starts, names, strict=True):
                compute = functools.partial(_scores, model, some, words)
                if shards is None:
                    scores = compute()
                else:
                    scores = shards.get(name, start, (len(some), len(columns)), compute)
                result[image : image + len(some), torch.from_numpy(columns)] = torch.from_numpy(scores)
                bar.update(scores.size)
    return result


def _scores(model: Any, regions: Tensor, words: Callable[[], tuple[Tensor, Tensor]]) -> np.ndarray:
    embeddings, mask = words()
    return model.similarity(regions, embeddings, word_mask=mask).float().cpu().numpy()
