"""An M4C of a few numbers, and inputs for it."""

import torch
from transformers import BertConfig

from vl_alignment.models.configuration_m4c import SPECIAL_ANSWERS, M4CConfig
from vl_alignment.models.modeling_m4c import M4CForQuestionAnswering

PIECES, FEATURES, HIDDEN, HEADS, LAYERS, STEPS = 20, 6, 8, 2, 2, 4
WORD_VECTORS, PHOC, OBJECTS, SLOTS = 3, 5, 4, 5
WORDS = ("one", "two", "red", "blue")
VOCABULARY = len(SPECIAL_ANSWERS) + len(WORDS)
DROPOUTS = ("object_dropout", "ocr_dropout", "hidden_dropout", "attention_dropout")
NO_DROPOUT = dict.fromkeys(DROPOUTS, 0.0)
OCR_INPUTS = ("ocr_boxes", "ocr_mask", "ocr_word_vectors", "ocr_phoc", "ocr_features")


def tiny_text_config(**fields):
    sizes = {"vocab_size": PIECES, "hidden_size": 6, "num_hidden_layers": 1, "num_attention_heads": 2}
    dropouts = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    settings = {**sizes, **dropouts, "intermediate_size": 8, "max_position_embeddings": 16, "initializer_range": 0.5}
    return BertConfig(**{**settings, **fields})


def tiny_config(**fields):
    sizes = {
        "text_config": tiny_text_config(),
        "feature_size": FEATURES,
        "word_vector_size": WORD_VECTORS,
        "phoc_size": PHOC,
        "ocr_padding_size": 2,
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": 12,
        "pointer_size": 7,
        "num_decoding_steps": STEPS,
        "id2label": dict(enumerate((*SPECIAL_ANSWERS, *WORDS))),
        "alignment_function": "general_key",
        "initializer_range": 0.5,  # attention that is far from uniform
    }
    return M4CConfig(**{**sizes, **fields})


def tiny_model(**fields):
    torch.manual_seed(0)
    return M4CForQuestionAnswering(tiny_config(**fields)).eval()


def lively_model(**fields):
    """A model in float64 whose words differ from step to step, some of them copied."""
    model = tiny_model(**fields).double()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for layer, spread in ((model.pointer.query, 1.2), (model.pointer.key, 1.2), (model.classifier, 0.4)):
            layer.weight.normal_(0, spread, generator=generator)
            layer.bias.zero_()
        model.classifier.bias[: len(SPECIAL_ANSWERS)] = -2
        model.model.previous_embedding.position_norm.weight.fill_(2)
    return model


def random_boxes(*shape, generator):
    """[..., 4], inside the picture."""
    start, size = (torch.rand(*shape, 2, generator=generator) * scale for scale in (0.6, 0.3))
    return torch.cat([start, start + size + 0.05], dim=-1)


def lengths_mask(most, count):
    """[count, most]: all places but one, two, ... of them, at least one."""
    lengths = (most - torch.arange(count) % (most - 1)).unsqueeze(1)
    return torch.arange(most) < lengths


def tiny_inputs(questions=3, pictures=None, seed=0):
    """Questions, one a picture or as many about each of so many pictures; objects and tokens of several numbers."""
    pictures = pictures or questions
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    words = lengths_mask(6, questions)
    ids = torch.randint(1, PIECES, words.shape, generator=generator)
    return {
        "input_ids": ids * words,
        "attention_mask": words.long(),
        "region_features": draw(pictures, OBJECTS, FEATURES),
        "region_boxes": random_boxes(pictures, OBJECTS, generator=generator),
        "region_mask": lengths_mask(OBJECTS, pictures),
        "ocr_boxes": random_boxes(pictures, SLOTS, generator=generator),
        "ocr_mask": lengths_mask(SLOTS, pictures),
        "ocr_word_vectors": draw(pictures, SLOTS, WORD_VECTORS),
        "ocr_phoc": draw(pictures, SLOTS, PHOC).gt(0).float(),
        "ocr_features": draw(pictures, SLOTS, FEATURES),
    }


def teaching_inputs(questions=3, pictures=None, seed=0):
    """The same with words to feed, and labels of the steps that count."""
    inputs = tiny_inputs(questions, pictures, seed)
    generator = torch.Generator().manual_seed(seed)
    shape = (questions, STEPS)
    # The first question copies the token that every picture has.
    previous = torch.randint(2, VOCABULARY + 2, shape, generator=generator)
    previous[:, 0] = 1
    previous[0, 1] = VOCABULARY
    labels = torch.rand(*shape, VOCABULARY + SLOTS, generator=generator)
    labels[..., VOCABULARY:] *= inputs["ocr_mask"].repeat_interleave(questions // len(inputs["ocr_mask"]), 0)[:, None]
    label_mask = lengths_mask(STEPS, questions).float()
    return {**inputs, "previous_ids": previous, "labels": labels, "label_mask": label_mask}


def alone(inputs, index):
    """The inputs of one question about a picture of its own, without any padding."""
    words = inputs["attention_mask"][index].bool()
    cut = {}
    for name, tensor in inputs.items():
        row = tensor[index : index + 1]
        if name in ("input_ids", "attention_mask"):
            row = row[:, words]
        elif name.startswith("region"):
            row = row[:, inputs["region_mask"][index]]
        elif name.startswith("ocr"):
            row = row[:, inputs["ocr_mask"][index]]
        elif name == "labels":
            row = row[..., : VOCABULARY + int(inputs["ocr_mask"][index].sum())]
        cut[name] = row
    return cut
