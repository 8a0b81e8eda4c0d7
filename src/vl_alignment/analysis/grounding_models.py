"""What a trained model looks at, and what its score depends on, gathered from one split: one class a task.

Occlusion takes the places' features away, never their place in the sequence: each is replaced by the mean over all
places that are measured, or by zeros.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from ..data.features import RegionStore
from ..models.configuration_m4c import ANSWER_BEGIN
from ..models.embedding_m4c import M4CEntities
from ..training.evaluation import LoadedSplit
from ..training.retrieval_inputs import image_inputs
from .attention import MapSide, attngan_alignment_maps, mac_alignment_maps, scan_alignment_map
from .attention_pictures import answer_steps, model_reading_maps
from .grounding_scores import Change, Gathered, Look, Probe, spatial_attention
from .grounding_truth import NamedPlace, caption_places, question_places, read_place

__all__ = ["ITEMS_OF_A_PICTURE", "gather_answers", "gather_captions", "gather_drawings", "gather_readings"]

ITEMS_OF_A_PICTURE = 5
"""At most so many captions or questions of each picture are looked at; the first one is probed."""

OCCLUDED_AT_ONCE = 64

PlacesOf = Callable[[str, Mapping[str, Any]], list[NamedPlace]]


@dataclass
class Pictures:
    """The pictures that are measured, as features.

    Attributes:
        records: A record each.
        features: [I, R, F].
        fill: What an occluded region becomes [F].
        store: Of the regions, for their boxes; None where they are a grid.
    """

    records: Any
    features: Tensor
    fill: Tensor
    store: RegionStore | None

    @classmethod
    def of(cls, loaded: LoadedSplit, images: Any, occlusion: str) -> "Pictures":
        """Read or compute the features of a split's pictures; `images` holds the split."""
        inputs = image_inputs(images, loaded.store, loaded.processor.image_processor)
        inputs.check(loaded.model)
        records, found = images[loaded.split], []
        for start in range(0, len(records), OCCLUDED_AT_ONCE):
            rows = range(start, min(start + OCCLUDED_AT_ONCE, len(records)))
            batch = {name: part.to(loaded.model.device) for name, part in inputs.batch(loaded.split, rows).items()}
            seen = batch.get("region_features")
            found.append(loaded.model.model.extract_regions(batch["pixel_values"]) if seen is None else seen)
        features = torch.cat(found)
        return cls(records, features, _fill(features, occlusion), loaded.store)

    def side(self, row: int) -> MapSide:
        """Where the regions of a picture are."""
        if self.store is not None:
            return MapSide(boxes=self.store.boxes([self.records[row]["image_id"]])[0])
        side = round(self.features.shape[1] ** 0.5)
        return MapSide(grid=(side, self.features.shape[1] // side))

    def occluded(self, row: int, keep: Tensor) -> Tensor:
        """The features of a picture [V, R, F] with only the kept regions, bool [V, R]."""
        return torch.where(keep[..., None], self.features[row], self.fill)


@torch.no_grad()
def gather_captions(loaded: LoadedSplit, occlusion: str, places_of: PlacesOf | None = None) -> Gathered:
    """Gather from SCAN: the words of noun phrases, and captions as wholes, whose score is their similarity.

    Args:
        loaded: The model and its split.
        occlusion: "mean" or "zero".
        places_of: Finds what a caption of a record names; by default the scenes of blocks say it, where there are any.
    """
    model, tokenizer = loaded.model, loaded.processor.tokenizer
    pictures = Pictures.of(loaded, loaded.part, occlusion)
    if places_of is None:
        places_of = caption_places if "scene" in pictures.records.column_names else _nothing_named
    gathered = Gathered()
    for row, record in enumerate(_watched(pictures.records)):
        captions, image_id = record["captions"][:ITEMS_OF_A_PICTURE], record["image_id"]
        encoded = tokenizer(captions, padding=True, return_tensors="pt", return_offsets_mapping=True)
        offsets, (ids, mask) = encoded["offset_mapping"], (encoded["input_ids"], encoded["attention_mask"])
        words = model.encode_texts(ids.to(model.device), mask.to(model.device))
        regions = model.encode_images(region_features=pictures.features[row : row + 1])
        pairs = regions.expand(len(captions), -1, -1), words
        attention = model.model.cross_attention.attention(*pairs, word_mask=mask.to(model.device))
        side = pictures.side(row)
        for number, caption in enumerate(captions):
            length = int(mask[number].sum())
            tokens, spans = tokenizer.convert_ids_to_tokens(ids[number, :length]), offsets[number, :length].numpy()
            where = {"grid": side.grid} if side.grid is not None else {"boxes": side.boxes}
            alignment = scan_alignment_map(attention[number], tokens, direction=model.config.direction, **where)
            weights, rectangles = spatial_attention(alignment)
            gathered.maps.append((image_id, alignment))
            for place in places_of(caption, record):
                rows = (spans[:, 0] < place.end) & (spans[:, 1] > place.start)
                if rows.any():
                    look = weights[rows].mean(axis=0, keepdims=True)
                    gathered.looks.append(Look(image_id, "", look, rectangles, place.mask))
            if number == 0:
                own = words[:1, :length]
                written = spans[:, 1] > spans[:, 0]  # the marks of beginning and end are no words
                gathered.probes.append(
                    Probe(image_id, weights[written].mean(axis=0), _similarity(model, pictures, row, own))
                )
    return gathered


@torch.no_grad()
def gather_answers(loaded: LoadedSplit, occlusion: str) -> Gathered:
    """Gather from MAC: its steps' mean beside all objects of a question's program, and its best step for each stage.

    The score of a probe is the probability of the model's own answer.
    """
    model, tokenizer = loaded.model, loaded.processor.tokenizer
    pictures = Pictures.of(loaded, loaded.part.images, occlusion)
    asked, gathered = _by_picture(loaded.part.questions[loaded.split]), Gathered()
    grid = (model.config.grid_size, model.config.grid_size)
    known = "masks" in pictures.records.column_names
    for row, record in enumerate(_watched(pictures.records)):
        image_id = record["image_id"]
        knowledge = model.encode_images(region_features=pictures.features[row : row + 1])
        for number, question in enumerate(asked[image_id]):
            # One by one: a cell that attends to padding would reason otherwise beside a longer question.
            encoded = {
                name: part.to(model.device)
                for name, part in tokenizer([question["question"]], return_tensors="pt").items()
            }
            ids, mask = encoded["input_ids"], encoded["attention_mask"]
            output = model.answer(knowledge, ids, mask, output_attentions=True)
            tokens = tokenizer.convert_ids_to_tokens(ids[0])
            attentions = output.question_attentions[0], output.image_attentions[0]
            alignment = mac_alignment_maps(*attentions, tokens, grid=grid).image
            weights, rectangles = spatial_attention(alignment)
            gathered.maps.append((image_id, alignment))
            mean = weights.mean(axis=0)
            stages = question_places(question["program"], record) if known else []
            if stages:
                gathered.looks.append(Look(image_id, "", mean[None], rectangles, np.any(stages, axis=0)))
            gathered.looks += [Look(image_id, "stage_", weights, rectangles, stage) for stage in stages]
            if number == 0:
                best = int(output.logits[0].argmax())
                gathered.probes.append(Probe(image_id, mean, _probability(model, pictures, row, (ids, mask), best)))
    return gathered


@torch.no_grad()
def gather_readings(loaded: LoadedSplit, occlusion: str) -> Gathered:
    """Gather from M4C: the OCR tokens, and the objects, that the words of an answer look at.

    The score of a probe is the mean probability of the words of the model's own answer; its places are objects and
    tokens together, occluded as they enter the transformer.
    """
    model, processor = loaded.model, loaded.processor
    pictures = Pictures.of(loaded, loaded.part.images, occlusion)
    asked, gathered = _by_picture(loaded.part.questions[loaded.split]), Gathered()
    seen: tuple[list[Tensor], list[Tensor]] = ([], [])
    known = "masks" in pictures.records.column_names
    # Filled in once all pictures are seen, before any probe is asked.
    fills: list[Tensor] = []
    for row, record in enumerate(_watched(pictures.records)):
        image_id = record["image_id"]
        given = ([record[name]] for name in ("ocr_tokens", "ocr_boxes", "ocr_confidences"))
        text, words = processor.text_inputs(*given)
        inputs = {"region_features": pictures.features[row : row + 1], **text}
        inputs = {name: part.to(model.device) for name, part in inputs.items()}
        for number, question in enumerate(asked[image_id]):
            maps, entities, found = model_reading_maps(model, processor, inputs, words[0], question["question"])
            gathered.maps.append((image_id, maps.objects if maps.tokens is None else maps.tokens))
            parts = [("object_", maps.objects)] + ([("", maps.tokens)] if maps.tokens is not None else [])
            place = read_place(question, record) if known else None
            for kind, alignment in parts if place is not None else ():
                # The answer's first word: where what is read begins.
                first, rectangles = alignment.weights[:1], alignment.keys.rectangles()
                truth = place.bearer if kind else place.words  # type: ignore[union-attr]
                gathered.looks.append(Look(image_id, kind, first, rectangles, truth))
            if number == 0:
                sizes = maps.objects.keys.size, len(words[0])
                places = _visual_places(entities, sizes)
                for part, states in zip(seen, entities.states[0, places].split(sizes), strict=True):
                    part.append(states)
                looked = [
                    alignment.weights.mean(axis=0) * maps.shares[:, 1 + bool(not kind)].mean()
                    for kind, alignment in parts
                ]
                joint = np.concatenate(looked)
                score = _answer_probability(model, entities, found, places, sizes, fills)
                gathered.probes.append(Probe(image_id, joint / joint.sum(), score))
    fills += [_fill(torch.cat(part), occlusion) for part in seen]
    return gathered


@torch.no_grad()
def gather_drawings(loaded: LoadedSplit, occlusion: str, seed: int) -> Gathered:
    """Gather from AttnGAN, where no truth is known: how the drawn picture depends on the words that are attended to.

    Where the picture changes without a word is compared with where the word is attended to, in the last stage. The
    places of a probe are words; its score is how alike the picture is to that of all words: one less half the mean
    difference of its values, which lie in [-1, 1]. The sentence's own vector stays.
    """
    model, processor = loaded.model, loaded.processor
    records = loaded.part[loaded.split]
    encoded = [
        model.encode_texts(**{name: part.to(model.device) for name, part in processor(text=caption[0]).items()})
        for caption in records["captions"]
    ]
    fill = _fill(torch.cat([words[0, mask[0].bool()] for words, _, mask in encoded]), occlusion)
    generator = torch.Generator().manual_seed(seed)
    sizes = (model.config.noise_size, model.config.conditioning_size)
    noises = [torch.randn(1, size, generator=generator).to(model.device) for size in sizes]
    gathered = Gathered()
    for image_id, texts, (words, sentence, mask) in zip(records["image_id"], records["captions"], encoded, strict=True):
        drawn = model.draw(words, sentence, mask, *noises, output_attentions=True)
        tokens = processor.tokenizer.convert_ids_to_tokens(processor(text=texts[0])["input_ids"][0])
        maps = attngan_alignment_maps([stage[0] for stage in drawn.attentions], tokens)
        gathered.maps += [(image_id, alignment) for alignment in maps]
        weights = np.mean([alignment.weights.mean(axis=0) for alignment in maps], axis=0)
        redraw = _redrawn(model, (words, sentence, mask), noises, fill)
        gathered.probes.append(Probe(image_id, weights, _likeness(redraw, drawn.images, model.device)))
        shares, _ = spatial_attention(maps[-1])
        grid = maps[-1].queries.grid
        assert grid is not None
        gathered.changes.append(Change(image_id, shares, _changed_places(redraw, drawn.images, len(shares), grid)))
    return gathered


def _similarity(model: Any, pictures: Pictures, row: int, words: Tensor) -> Callable[[np.ndarray], np.ndarray]:
    def score(keep: Tensor) -> Tensor:
        regions = model.encode_images(region_features=pictures.occluded(row, keep))
        return model.similarity(regions, words)[:, 0]

    return _in_batches(score, model.device)


def _probability(
    model: Any, pictures: Pictures, row: int, question: tuple[Tensor, Tensor], answer: int
) -> Callable[[np.ndarray], np.ndarray]:
    def score(keep: Tensor) -> Tensor:
        knowledge = model.encode_images(region_features=pictures.occluded(row, keep))
        ids, mask = (part.expand(len(keep), -1) for part in question)
        return model.answer(knowledge, ids, mask).logits.softmax(dim=-1)[:, answer]

    return _in_batches(score, model.device)


def _visual_places(entities: M4CEntities, sizes: tuple[int, int]) -> Tensor:
    """The positions of a picture's objects and OCR tokens, so many of each, among its entities."""
    first, device = entities.first_ocr_token, entities.states.device
    return torch.cat([torch.arange(first - sizes[0], first), torch.arange(first, first + sizes[1])]).to(device)


def _answer_probability(
    model: Any,
    entities: M4CEntities,
    found: Tensor,
    places: Tensor,
    sizes: tuple[int, int],
    fills: list[Tensor],
) -> Callable[[np.ndarray], np.ndarray]:
    steps = answer_steps(found[0].tolist())
    previous = F.pad(found[:, :-1], (1, 0), value=ANSWER_BEGIN)

    def score(keep: Tensor) -> Tensor:
        fill = torch.cat([part.expand(size, -1) for part, size in zip(fills, sizes, strict=True)])
        states = entities.states.repeat(len(keep), 1, 1)
        states[:, places] = torch.where(keep[..., None], states[:, places], fill)
        hidden = M4CEntities(states, entities.mask.expand(len(keep), -1), entities.num_ocr_tokens)
        logits = model.answer(hidden, previous.expand(len(keep), -1)).logits
        return logits[:, steps, found[0, steps]].sigmoid().mean(dim=1)

    return _in_batches(score, model.device)


def _redrawn(
    model: Any, caption: tuple[Tensor, Tensor, Tensor], noises: list[Tensor], fill: Tensor
) -> Callable[[Tensor], Tensor]:
    """Draw pictures [V, 3, S, S] of a caption with only the kept words, bool [V, L]."""
    words, sentence, mask = caption

    def redraw(keep: Tensor) -> Tensor:
        kept = torch.where(keep[..., None], words, fill)
        return model.draw(kept, *(part.expand(len(keep), -1) for part in (sentence, mask, *noises))).images

    return redraw


def _likeness(
    redraw: Callable[[Tensor], Tensor], whole: Tensor, device: torch.device
) -> Callable[[np.ndarray], np.ndarray]:
    return _in_batches(lambda keep: 1 - (redraw(keep) - whole).abs().flatten(1).mean(dim=1) / 2, device)


def _changed_places(redraw: Callable[[Tensor], Tensor], whole: Tensor, words: int, grid: tuple[int, int]) -> np.ndarray:
    """By how much each place of a grid changes without each word [L, P]."""
    without = redraw(~torch.eye(words, dtype=torch.bool, device=whole.device))
    change = (without - whole).abs().mean(dim=1, keepdim=True)  # [L, 1, S, S]
    return F.adaptive_avg_pool2d(change, grid).flatten(1).cpu().numpy()


def _in_batches(score: Callable[[Tensor], Tensor], device: torch.device) -> Callable[[np.ndarray], np.ndarray]:
    """Let a score of tensors take any number of rows, and arrays."""

    @torch.no_grad()
    def scored(keep: np.ndarray) -> np.ndarray:
        parts = torch.from_numpy(keep).to(device).split(OCCLUDED_AT_ONCE)
        return torch.cat([score(part).float().cpu() for part in parts]).numpy()

    return scored


def _fill(features: Tensor, occlusion: str) -> Tensor:
    """What takes the place of occluded features [..., F]: their mean [F], or zeros."""
    mean = features.flatten(0, -2).mean(dim=0) if features.numel() else features.new_zeros(features.shape[-1])
    return mean if occlusion == "mean" else torch.zeros_like(mean)


def _by_picture(questions: Any) -> dict[str, list[dict[str, Any]]]:
    """The first questions about each picture."""
    asked: dict[str, list[dict[str, Any]]] = defaultdict(list)
    rows: dict[str, list[int]] = defaultdict(list)
    for row, image_id in enumerate(questions["image_id"][:]):
        if len(rows[image_id]) < ITEMS_OF_A_PICTURE:
            rows[image_id].append(row)
    for image_id, chosen in rows.items():
        asked[image_id] = [questions[row] for row in chosen]
    return asked


def _watched(records: Any) -> Any:
    """Go through the pictures with a bar, where somebody is watching."""
    return tqdm(records, "looking", unit="picture", leave=False, disable=None)


def _nothing_named(caption: str, record: Mapping[str, Any]) -> list[NamedPlace]:
    return []
