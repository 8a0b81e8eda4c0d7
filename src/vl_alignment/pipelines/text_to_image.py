"""Pipeline "text-to-image-attngan": pictures drawn of captions by AttnGAN.

The file travels to the Hub beside the weights, with the one that it imports: of the package they need nothing.
"""

from collections.abc import Sequence
from typing import Any

from PIL import Image

from .packaged_pipeline import PackagedPipeline

__all__ = ["AttnGanTextToImagePipeline"]


class AttnGanTextToImagePipeline(PackagedPipeline):
    """Draws pictures of captions.

    Args:
        args: As of `transformers.pipeline`.
        kwargs: As of `transformers.pipeline`: `device` says where the model runs.

    Raises:
        ValueError: If the model is no AttnGAN.

    Example:
        >>> draw = pipeline("text-to-image-attngan", model="...", trust_remote_code=True)  # doctest: +SKIP
        >>> draw("a small red bird", num_images=4)[0].save("bird.png")  # doctest: +SKIP
    """

    tasks = {"attngan": "text-to-image-attngan"}
    sees_pictures = False

    def __call__(self, prompts: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """Draw pictures of captions.

        Args:
            prompts: One caption, or a list, data set or generator of them.
            kwargs: `num_images`, of each caption, 1 by default; `seed` of the noise, 0 by default, None for other noise
                at each call: picture j of every caption is drawn from the same noise, which follows from the seed and j
                alone; `output_attentions`; and those of any pipeline.

        Returns:
            Of each caption a list of pictures (PIL). With attentions each is a dict {"image", "words", "attention"}:
            the tokens as they were read, and for each stage but the first an array [rows, columns, words] of what each
            place attended to, which sums to one over the words.

        Raises:
            ValueError: If a caption is no string or has no word that the model knows, or a number is wrong.
        """
        if isinstance(prompts, Sequence) and not len(prompts):
            raise ValueError("there are no captions; give one at least")
        return super().__call__(prompts, **kwargs)

    def _sanitize_parameters(self, **parameters: Any) -> tuple[dict, dict, dict]:
        unknown = sorted(set(parameters) - {"num_images", "seed", "output_attentions"})
        if unknown:
            raise TypeError(f"unknown argument {unknown[0]!r}; there are num_images, seed and output_attentions")
        return {}, parameters, {}

    def preprocess(self, prompt: Any) -> dict[str, Any]:  # type: ignore[override]
        """A caption -> its ids and their mask [1, L]."""
        if not isinstance(prompt, str):
            raise ValueError(f"a caption must be a string, not {prompt!r:.200}")
        return dict(self.processor(text=prompt))

    def _forward(  # type: ignore[override]
        self,
        model_inputs: dict[str, Any],
        num_images: int = 1,
        seed: int | None = 0,
        output_attentions: bool = False,
    ) -> dict[str, Any]:
        ids, mask = model_inputs["input_ids"], model_inputs["attention_mask"].bool()
        lengths = mask.sum(dim=1)
        found: list[dict[str, Any]] = [{} for _ in ids]
        # Captions of one length together: the released layout masks a caption by the padding of its neighbours.
        for length in lengths.unique().tolist():
            rows = (lengths == length).nonzero().flatten()
            drawn = self.model.generate(
                input_ids=ids[rows, :length],
                attention_mask=mask[rows, :length],
                num_images=num_images,
                seed=seed,
                output_type="pil",
                output_attentions=output_attentions,
            )
            for place, row in enumerate(rows.tolist()):
                own = slice(place * num_images, (place + 1) * num_images)
                found[row] = {"pictures": drawn.images[own]}
                if output_attentions:
                    found[row]["attentions"] = [stage[own] for stage in drawn.attentions]
                    found[row]["words"] = self.processor.tokenizer.convert_ids_to_tokens(ids[row, :length])
        return {"captions": found}

    def postprocess(self, model_outputs: dict[str, Any]) -> list[Image.Image] | list[dict[str, Any]]:  # type: ignore[override]
        """The pictures of one caption, with what their places attended to where that was asked for."""
        found = model_outputs["captions"]
        found = found[0] if isinstance(found, list) else found  # a list unless a batch was taken apart
        if "attentions" not in found:
            return found["pictures"]
        sides = [round(stage.shape[1] ** 0.5) for stage in found["attentions"]]
        return [
            {
                "image": picture,
                "words": found["words"],
                "attention": [
                    stage[number].view(side, side, -1).numpy()
                    for stage, side in zip(found["attentions"], sides, strict=True)
                ],
            }
            for number, picture in enumerate(found["pictures"])
        ]
