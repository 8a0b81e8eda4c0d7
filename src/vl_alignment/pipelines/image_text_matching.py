"""Pipeline "image-text-matching": how well texts fit a picture, or pictures a text, by SCAN.

The file travels to the Hub beside the weights, with the one that it imports: of the package they need nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .packaged_pipeline import PackagedPipeline, grid_shape, opened_picture

__all__ = ["ImageTextMatchingPipeline"]


class ImageTextMatchingPipeline(PackagedPipeline):
    """Ranks texts for a picture, or pictures for each text, and shows which regions each word looks at.

    Args:
        args: As of `transformers.pipeline`.
        kwargs: As of `transformers.pipeline`: `device` says where the model runs.

    Raises:
        ValueError: If the model is no SCAN, or sees given features alone.

    Example:
        >>> match = pipeline("image-text-matching", model="...", trust_remote_code=True)  # doctest: +SKIP
        >>> match("photo.jpg", ["a dog runs", "a red car"])  # doctest: +SKIP
        [{'text': 'a dog runs', 'score': 0.61, 'rank': 1}, {'text': 'a red car', 'score': 0.18, 'rank': 2}]
    """

    tasks = {"scan": "image-text-matching"}

    def __call__(self, images: Any = None, texts: Any = None, **kwargs: Any) -> Any:  # type: ignore[override]
        """Score texts against pictures.

        Args:
            images: One picture (PIL, a path, bytes, a data URL, base64 or a URL), whose texts are ranked; or a list of
                pictures, which are ranked for each text. Without `texts`: a dict {"images", "texts"} of these, or a
                list, data set or generator of such dicts.
            texts: One text or a list of them.
            kwargs: `output_attentions`: whether to return the alignments of words and regions; and those of any
                pipeline.

        Returns:
            Of one picture, a list of {"text", "score", "rank"}, the best text first. Of a list of pictures, for each
            text a list of {"image" (its number), "text", "score", "rank"}, the best picture first; for one text given
            as a string its list alone. A score is SCAN's similarity, a mean of cosines by default. With attentions also
            "attention", nested lists [words, regions], "words", the tokens of its rows, and "grid", the (rows, columns)
            of the picture that the regions are in reading order. In a model of direction "t2i" each word's row sums to
            one; in "i2t" each region's column does.

        Raises:
            ValueError: If there are no pictures or texts, one cannot be read, or a text has no words.
        """
        if texts is not None:
            return super().__call__({"images": images, "texts": texts}, **kwargs)
        if images is None or (isinstance(images, Sequence) and not len(images)):
            raise ValueError("give images and texts, or dicts with both")
        return super().__call__(images, **kwargs)

    def _sanitize_parameters(  # type: ignore[override]
        self, output_attentions: bool | None = None
    ) -> tuple[dict, dict, dict]:
        return {}, {} if output_attentions is None else {"output_attentions": output_attentions}, {}

    def preprocess(self, inputs: Any) -> dict[str, Any]:  # type: ignore[override]
        """{"images", "texts"} -> the model's inputs, and what the answer has to know."""
        if not isinstance(inputs, Mapping) or not {"images", "texts"} <= set(inputs):
            raise ValueError('give images and texts, or dicts {"images": ..., "texts": ...}')
        images, texts = inputs["images"], inputs["texts"]
        listed_texts = [texts] if isinstance(texts, str) else list(texts)
        wrong = next((text for text in listed_texts if not isinstance(text, str)), None)
        if not listed_texts or wrong is not None:
            raise ValueError(f"texts must be strings, at least one of them, not {wrong!r:.200}")
        ranks_images = isinstance(images, (list, tuple))
        listed_images = list(images) if ranks_images else [images]
        if not listed_images:
            raise ValueError("there are no images; give one at least")
        encoded = self.processor(text=listed_texts, images=[opened_picture(image) for image in listed_images])
        item = {**encoded, "texts": listed_texts, "ranks_images": ranks_images, "one_text": isinstance(texts, str)}
        return {"item": item}  # under one name: a batch is then a list of items, none of which is padded

    def _forward(self, model_inputs: dict[str, Any], output_attentions: bool = False) -> dict[str, Any]:  # type: ignore[override]
        given = model_inputs["item"]
        if isinstance(given, list):
            return {"item": [self._match(item, output_attentions) for item in given]}
        return {"item": self._match(given, output_attentions)}

    def _match(self, item: dict[str, Any], output_attentions: bool) -> dict[str, Any]:
        """Score all pairs of one item, and find their attention [pictures, texts, words, regions]."""
        mask = item["attention_mask"].bool()
        regions = self.model.encode_images(pixel_values=item["pixel_values"].to(self.model.dtype))
        words = self.model.encode_texts(item["input_ids"], mask)
        matched = {name: item[name] for name in ("texts", "ranks_images", "one_text")}
        matched["scores"] = self.model.similarity(regions, words, word_mask=mask).float()
        if output_attentions:
            matched["attentions"] = torch.stack([self._attention(picture, words, mask) for picture in regions])
            tokens = self.processor.tokenizer.convert_ids_to_tokens
            matched["words"] = [tokens(ids[there]) for ids, there in zip(item["input_ids"], mask, strict=True)]
        return matched

    def _attention(self, regions: Tensor, words: Tensor, mask: Tensor) -> Tensor:
        """Regions [R, d] of a picture, words [C, L, d] -> [C, L, R]."""
        several = regions.expand(len(words), *regions.shape)
        attention = self.model.model.cross_attention.attention(several, words, word_mask=mask).float()
        return attention if self.model.config.direction == "t2i" else attention.transpose(1, 2)

    def postprocess(self, model_outputs: dict[str, Any]) -> list[Any]:  # type: ignore[override]
        """Rank the texts of one picture, or the pictures of each text."""
        matched = model_outputs["item"]
        if not matched["ranks_images"]:
            return _ranked([self._entry(matched, 0, text) for text in range(len(matched["texts"]))])
        images = range(len(matched["scores"]))
        found = [
            _ranked([{"image": image, **self._entry(matched, image, text)} for image in images])
            for text in range(len(matched["texts"]))
        ]
        return found[0] if matched["one_text"] else found

    def _entry(self, matched: dict[str, Any], image: int, text: int) -> dict[str, Any]:
        entry = {"text": matched["texts"][text], "score": float(matched["scores"][image, text])}
        if "attentions" in matched:
            words, attention = matched["words"][text], matched["attentions"][image, text]
            entry |= {"attention": attention[: len(words)].tolist(), "words": words}
            entry["grid"] = grid_shape(attention.shape[1])
        return entry


def _ranked(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put the best first; of equal ones the first given."""
    entries.sort(key=lambda entry: -entry["score"])
    for rank, entry in enumerate(entries, start=1):
        entry["rank"] = rank
    return entries
