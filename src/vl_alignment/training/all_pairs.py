"""All pairs of many pictures and captions, in shards: bounded memory, a progress bar, and a way to go on."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from .score_shards import ScoreShards

__all__ = ["CAPTIONS_PER_SHARD", "IMAGES_PER_SHARD", "score_all_pairs"]

# A shard transforms and prepares its pictures' regions anew for these captions: in 1,024 captions of 12 words that is
# lost among the products (4 % with a learned matrix). As many pictures as the similarity takes at a time at d = 1024.
CAPTIONS_PER_SHARD = 1024
IMAGES_PER_SHARD = 900
SECONDS_BEFORE_THE_BAR = 5.0


@torch.no_grad()
def score_all_pairs(
    model: Any,
    regions: Tensor,
    encode_words: Callable[[np.ndarray], tuple[Tensor, Tensor]],
    lengths: np.ndarray,
    *,
    shards: ScoreShards | None = None,
    first_image: int = 0,
    progress: bool = True,
) -> Tensor:
    """Score every picture against every caption, captions of similar length together.

    Beyond the regions and the result this takes the words of one shard and the scratch of the similarity.

    Args:
        model: Whose `similarity` scores.
        regions: Region embeddings [I, R, d] on the model's device.
        encode_words: Captions' numbers [n] -> word embeddings [n, L, d] and their mask [n, L].
        lengths: int [C], words of each caption.
        shards: Where finished shards are kept and found; nowhere by default.
        first_image: Number of the first picture, by which shards are named.
        progress: Whether to show a progress bar, for what takes longer than a few seconds.

    Returns:
        Similarities [I, C], float32 on the CPU, the same whether shards were there or not.
    """
    result = torch.empty(len(regions), len(lengths))
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
            for image in range(0, len(regions), IMAGES_PER_SHARD):
                some = regions[image : image + IMAGES_PER_SHARD]
                compute = functools.partial(_scores, model, some, words)
                if shards is None:
                    scores = compute()
                else:
                    scores = shards.get(first_image + image, start, (len(some), len(columns)), compute)
                result[image : image + len(some), torch.from_numpy(columns)] = torch.from_numpy(scores)
                bar.update(scores.size)
    return result


def _scores(model: Any, regions: Tensor, words: Callable[[], tuple[Tensor, Tensor]]) -> np.ndarray:
    embeddings, mask = words()
    return model.similarity(regions, embeddings, word_mask=mask).float().cpu().numpy()
