"""A MAC of a few numbers, and inputs for it."""

import torch

from vl_alignment.models.configuration_mac import MacConfig
from vl_alignment.models.modeling_mac import MacForQuestionAnswering

VOCABULARY, FEATURES, HIDDEN, GRID, ANSWERS = 20, 6, 8, 3, 5
CELLS = GRID * GRID
NO_DROPOUT = {f"{place}_dropout": 0.0 for place in ("stem", "word", "question", "read", "memory", "control", "output")}


def tiny_config(**fields):
    sizes = {
        "vocab_size": VOCABULARY,
        "feature_size": FEATURES,
        "grid_size": GRID,
        "hidden_size": HIDDEN,
        "word_embedding_size": 5,
        "num_steps": 3,
        "alignment_function": "general_key",
    }
    answers = {} if "id2label" in fields else {"num_labels": ANSWERS}
    return MacConfig(**{**sizes, **answers, **fields})


def tiny_model(**fields):
    torch.manual_seed(0)
    return MacForQuestionAnswering(tiny_config(**fields)).eval()


def question_ids(*lengths, seed=0):
    """Random questions of these lengths, padded on the right: input_ids and attention_mask [B, L]."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    ids = torch.randint(1, VOCABULARY, mask.shape, generator=generator)
    return ids * mask, mask.long()


def tiny_inputs(questions=3, pictures=None, seed=0):
    """Questions of three, four, ... words, one a picture or as many about each of so many pictures."""
    ids, mask = question_ids(*(3 + index for index in range(questions)), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(pictures or questions, CELLS, FEATURES, generator=generator)
    return {"input_ids": ids, "attention_mask": mask, "region_features": features}


def tiny_cell(**fields):
    """A cell whose every parameter is a random number, in float64."""
    cell = tiny_model(**fields).model.cell.double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.normal_(0, 0.5, generator=generator)
    return cell


def cell_inputs(questions=4, pictures=4, question_size=HIDDEN, seed=2):
    """Words, question vectors, knowledge base and mask of words, in float64; the first question is the longest."""
    generator = torch.Generator().manual_seed(seed)
    lengths = 6 - torch.arange(questions) % 4
    mask = torch.arange(6) < lengths.unsqueeze(1)
    shapes = [(questions, 6, HIDDEN), (questions, question_size), (pictures, CELLS, HIDDEN)]
    tensors = [torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]
    return *tensors, mask
