"""Pictures from captions as the adversarial loop sees them: batches, and how drawn pictures are measured."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ..data.processes import joined_blocks, own_blocks
from ..models.errors import ConfigurationError, DataError
from .adversarial_settings import AdversarialSettings
from .objectives import Evaluation
from .picture_inputs import CaptionedPictures
from .picture_judges import CaptionCodes, PictureJudges, PictureViews

__all__ = ["TextToImageTask"]

NOISE_SEED = 0
"""Of the noise of evaluated pictures: the same for every function, seed and split."""

SAMPLE_CAPTIONS = 6


@dataclass(frozen=True)
class RealPictures:
    """What the judges see of the real pictures of a split, and the captions that are drawn from.

    Attributes:
        views: Of the pictures, one row each.
        captions: `pictures_per_image` times as many rows; those of the first round come first.
        input_ids: Of the captions, one row each without padding.
    """

    views: PictureViews
    captions: CaptionCodes
    input_ids: list[Tensor]


class TextToImageTask:
    """Pictures with captions for AttnGAN, measured by judges.

    Args:
        dataset_dict: Splits "train", "validation", "test" with `image_id`, `image`, `captions`.
        tokenizer: As of transformers; DAMSM's.
        settings: Seed and how to evaluate.
        stage_sizes: Pixels of each stage's pictures.
        judges: Of drawn pictures.
        processor: Saved with the weights.
        reading: Further arguments of `CaptionedPictures`, for training; evaluation takes the middle of the pictures.
        pictures_per_image: Pictures drawn for each one of a split, each from one of its captions (CUB: 10).

    Attributes:
        sample_captions: The first captions of the validation split, for progress pictures.

    Raises:
        DataError: As of `CaptionedPictures`.
    """

    task = "text-to-image"
    selection_metric = "nearness"

    def __init__(
        self,
        dataset_dict: datasets.DatasetDict,
        tokenizer: Any,
        settings: AdversarialSettings,
        *,
        stage_sizes: list[int],
        judges: PictureJudges,
        processor: Any = None,
        reading: Mapping[str, Any] | None = None,
        pictures_per_image: int = 1,
    ) -> None:
        self.settings = settings
        self.judges = judges
        self.processor = processor
        self.pictures_per_image = pictures_per_image
        self.vocabulary_size = len(tokenizer)
        given = {"stage_sizes": tuple(stage_sizes), "seed": settings.seed, "epoch": 0, **(reading or {})}
        # The same captions and pictures for every seed: seeds then differ by the model alone.
        still = {**given, "stage_sizes": (stage_sizes[-1],), "seed": NOISE_SEED}
        still |= {"crop": "center", "horizontal_flip": False}
        self.pictures = {
            name: CaptionedPictures(split, tokenizer, **(given if name == "train" else still))
            for name, split in dataset_dict.items()
        }
        self.still_train = CaptionedPictures(dataset_dict["train"], tokenizer, **still)
        self.sample_captions = [captions[0] for captions in dataset_dict["validation"][:SAMPLE_CAPTIONS]["captions"]]
        self._real: dict[str, RealPictures] = {}
        self._checked = False

    def check_model(self, model: nn.Module) -> None:
        """Compare the vocabularies, and look at every picture's size.

        Raises:
            ConfigurationError: The model knows other words than the tokenizer.
            DataError: A picture is too small or cannot be opened.
        """
        vocabulary = getattr(model.config, "vocab_size", None)
        if vocabulary != self.vocabulary_size:
            raise ConfigurationError(
                f"The model's vocab_size={vocabulary} is not that of the tokenizer, {self.vocabulary_size}."
            )
        if not self._checked:
            for pictures in self.pictures.values():
                pictures.check()
            self._checked = True

    def train_dataset(self, epoch: int) -> CaptionedPictures:
        """Return the pictures of an epoch, each with one of its captions."""
        return self.pictures["train"].at_epoch(epoch)

    def collate(self, examples: list[Any]) -> dict[str, Any]:
        """Return what the adversarial loop takes."""
        batch = self.pictures["train"].collate(examples)
        del batch["captions"]
        return batch

    def evaluate(self, model: nn.Module, split: str, accelerator: Accelerator, *, final: bool = True) -> Evaluation:
        """Draw pictures of a split's captions and let the judges compare them with the real ones.

        Args:
            model: A generator, not wrapped for several processes.
            split: Name of the split.
            accelerator: Whose processes draw together.
            final: Also measure what the result is held against: an untrained generator, the mean training picture, and
                real pictures.

        Returns:
            The metrics of `PictureJudges.measure`, and `nearness`, minus the distance, where it is to select weights;
            with `final` the bounds `{untrained, mean_picture, real, chance}_{metric}`, and who judged as details.

        Raises:
            DataError: There is no such split, or as of the metrics.
        """
        if split not in self.pictures:
            raise DataError(f"There is no split {split!r}; there are {sorted(self.pictures)}.")
        judges = self.judges.to(accelerator.device)
        real = self._real_pictures(split, accelerator)
        views = self._drawn_views(model, real, accelerator)
        metrics = judges.measure(views, real.captions, real.views.features)
        if not final:
            return Evaluation({**metrics, "nearness": -metrics[judges.network.distance_name]})
        bounds = self._bounds(model, real, accelerator)
        details = judges.describe(real.captions, real.views.features)
        rows = self._predictions(views, real) if accelerator.is_main_process else []
        return Evaluation(metrics, rows, bounds, details)

    def _real_pictures(self, split: str, accelerator: Accelerator) -> RealPictures:
        """Look at a split once."""
        if split not in self._real:
            pictures, ids, texts, sentences, tokens = self.pictures[split], [], [], [], []
            views = self._views(pictures, accelerator)
            for number in range(self.pictures_per_image):
                for batch in self._batches(pictures.at_epoch(number), range(len(pictures))):
                    words, mask = batch["input_ids"], batch["attention_mask"]
                    device = accelerator.device
                    with torch.no_grad():
                        encoded = self.judges.damsm.eval().encode_texts(words.to(device), mask.to(device))
                    sentences.append(encoded.sentences.float().cpu())
                    tokens += [row[: int(length)] for row, length in zip(words, mask.sum(dim=1), strict=True)]
                    ids += batch["ids"]
                    texts += batch["captions"]
            self._real[split] = RealPictures(views, CaptionCodes(ids, texts, torch.cat(sentences)), tokens)
        return self._real[split]

    def _batches(self, pictures: CaptionedPictures, rows: Any) -> Iterator[dict[str, Any]]:
        size = self.settings.evaluation_batch_size
        for start in range(0, len(rows), size):
            yield pictures.collate([pictures[int(row)] for row in rows[start : start + size]])

    def _views(self, pictures: CaptionedPictures, accelerator: Accelerator) -> PictureViews:
        """Look at real pictures, each process at a share."""
        return self._views_of_rows(pictures, np.arange(len(pictures)), accelerator)

    def _views_of_rows(self, pictures: CaptionedPictures, chosen: np.ndarray, accelerator: Accelerator) -> PictureViews:
        blocks = own_blocks(len(chosen), self.settings.evaluation_batch_size, accelerator)
        batches = (pictures.collate([pictures[int(row)] for row in chosen[rows]]) for rows in blocks)
        return _gathered([self.judges.look(batch["stage_images"][-1]) for batch in batches], accelerator)

    def _drawn_views(self, model: Any, real: RealPictures, accelerator: Accelerator) -> PictureViews:
        """Draw a picture of every caption and look at it, each process at a share."""
        blocks = own_blocks(len(real.input_ids), self.settings.evaluation_batch_size, accelerator)
        training = model.training
        model.eval()  # in training the batch would decide over each picture's brightness
        seen = [self.judges.look(_drawn(model, real.input_ids, rows)) for rows in blocks]
        model.train(training)
        return _gathered(seen, accelerator)

    def _bounds(self, model: Any, real: RealPictures, accelerator: Accelerator) -> dict[str, float]:
        """Measure what drawn pictures are held against."""
        judges, captions = self.judges, real.captions
        images = len(self.still_train)
        still = self.still_train
        mean = torch.stack([self._batch_sum(still, rows) for rows in _slices(images)]).sum(dim=0) / images
        of_mean = judges.look(mean[None])
        repeated = PictureViews(
            *(None if part is None else part.expand(len(captions.texts), -1) for part in of_mean)  # type: ignore[arg-type]
        )
        torch.manual_seed(self.settings.seed)
        untrained = type(model)(model.config).to(accelerator.device)
        untrained.text_encoder.load_state_dict(model.text_encoder.state_dict())
        # Real pictures in place of drawn ones: their captions are those of the first round.
        number = len(real.views.features)
        own = CaptionCodes(captions.image_ids[:number], captions.texts[:number], captions.sentences[:number])
        of_real = judges.measure(real.views, own, self._train_features(number, accelerator))
        measured = {
            "untrained": judges.measure(self._drawn_views(untrained, real, accelerator), captions, real.views.features),
            "mean_picture": judges.measure(repeated, captions, real.views.features),
            "real": of_real,
            "chance": judges.chance(captions),
        }
        return {f"{name}_{metric}": value for name, metrics in measured.items() for metric, value in metrics.items()}

    @staticmethod
    def _batch_sum(pictures: CaptionedPictures, rows: range) -> Tensor:
        return sum(pictures[row]["stage_images"][-1] for row in rows)

    def _train_features(self, count: int, accelerator: Accelerator) -> Tensor:
        """Features of as many training pictures, evenly chosen: how far real pictures are from real ones."""
        chosen = np.linspace(0, len(self.still_train) - 1, min(count, len(self.still_train))).round().astype(int)
        return self._views_of_rows(self.still_train, chosen, accelerator).features

    def _predictions(self, views: PictureViews, real: RealPictures) -> list[dict[str, Any]]:
        """One row a drawn picture."""
        captions = real.captions
        scores = torch.nn.functional.cosine_similarity(views.codes, captions.sentences, dim=-1)
        rows: list[dict[str, Any]] = [
            {"item_id": f"{image_id}#{number}", "reference": text, "score": score, "caption_length": len(ids)}
            for number, (image_id, text, score, ids) in enumerate(
                zip(captions.image_ids, captions.texts, scores.tolist(), real.input_ids, strict=True)
            )
        ]
        for row, found in zip(rows, self.judges.found(views, captions), strict=True):
            row["found"] = bool(found)
        if self.judges.attributes is not None:
            for row, own, other in zip(rows, *self.judges.fits(views, captions.texts), strict=True):
                row |= {"own_fit": float(own), "mismatched_fit": float(other)}
        return rows


@torch.no_grad()
def _drawn(model: Any, input_ids: list[Tensor], rows: np.ndarray) -> Tensor:
    """Draw a picture of each of these captions [B, 3, S, S]; each row has noise of its own, which no model changes."""
    chosen = [input_ids[row] for row in rows]
    padded = torch.nn.utils.rnn.pad_sequence(chosen, batch_first=True, padding_value=model.config.pad_token_id or 0)
    lengths = torch.tensor([len(ids) for ids in chosen])
    mask = torch.arange(padded.shape[1])[None] < lengths[:, None]
    sizes = (model.config.noise_size, model.config.conditioning_size)
    noise = torch.stack(
        [torch.randn(sum(sizes), generator=torch.Generator().manual_seed(NOISE_SEED + int(row))) for row in rows]
    ).to(model.device)
    own, conditioning = noise.split(sizes, dim=1)
    return model(padded.to(model.device), mask.to(model.device), own, conditioning).images


def _slices(total: int, size: int = 256) -> list[range]:
    return [range(start, min(start + size, total)) for start in range(0, total, size)]


def _gathered(parts: list[PictureViews], accelerator: Accelerator) -> PictureViews:
    """Join what all processes saw of their blocks."""
    columns = zip(*joined_blocks(parts, accelerator), strict=True)
    return PictureViews(*(None if column[0] is None else torch.cat(column) for column in columns))  # type: ignore[arg-type]
