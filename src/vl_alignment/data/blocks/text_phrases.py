"""The language of questions about words in the blocks world."""

__all__ = ["EXTREME_WORDS", "TEXT_SENTENCES", "THINGS_THAT_SAY"]

TEXT_SENTENCES: dict[str, tuple[str, ...]] = {
    "read_object": (
        "What is written on {0}?",
        "What does {0} say?",
        "What is the word on {0}?",
        "What does the label on {0} say?",
        "Which word can be read on {0}?",
        "What text is on {0}?",
        "What is {0} labelled?",
    ),
    "read_sign": (
        "What does the sign say?",
        "What is written on the sign?",
        "What can you read on the sign?",
        "What word is on the sign?",
        "The sign says what?",
    ),
    "read_extreme": (
        "Which word is {0}?",
        "What is the {1} word?",
        "What does the {1} label say?",
        "What is written on the label {0}?",
        "Read the word that is {0}.",
    ),
    "color_of_word": (
        "What color is {0}?",
        "What colour is {0}?",
        "What is the color of {0}?",
        "Which color does {0} have?",
    ),
    "shape_of_word": (
        "What shape is {0}?",
        "What is the shape of {0}?",
        "Which shape does {0} have?",
        "What kind of object is {0}?",
    ),
    "verify_word": (
        "Is {1} written on {0}?",
        "Does {0} say {1}?",
        "Is the word on {0} {1}?",
        "Does the label on {0} read {1}?",
    ),
    "count_labels": (
        "How many labels are there?",
        "How many things have something written on them?",
        "On how many things is there text?",
        "How many things can be read?",
    ),
    "count_word": (
        "How many things say {0}?",
        "On how many things is {0} written?",
        "How often is {0} written here?",
    ),
    "read_related": (
        "Which word is {1} {0}?",
        "What is written {1} {0}?",
        "What does the thing {1} {0} say?",
        "What is the word {1} {0}?",
        "What text is {1} {0}?",
    ),
    "read_related_to_word": (
        "Which word is {1} {0}?",
        "What is written {1} {0}?",
        "What is the word {1} the word {0}?",
        "What does the label {1} {0} say?",
    ),
    "color_of_related": (
        "What color is the thing {1} {0}?",
        "What colour is the object {1} {0}?",
        "What is the color of the thing {1} {0}?",
    ),
    "shape_of_related": (
        "What shape is the thing {1} {0}?",
        "What is the shape of the object {1} {0}?",
    ),
    "verify_relation": (
        "Is {2} {1} {0}?",
        "Is the word {2} {1} {0}?",
        "Does {2} stand {1} {0}?",
    ),
    "read_two_relations": (
        "What is written {2} the thing that is {1} {0}?",
        "Which word is {2} the thing {1} {0}?",
        "What does the thing {2} the object {1} {0} say?",
    ),
}
"""What a family's questions may be called; {0} is what is spoken of, the rest differs by family."""

THINGS_THAT_SAY = (
    "the thing that says {}",
    "the object that says {}",
    "the thing with {} on it",
    "the thing labelled {}",
    "the object with the word {}",
)
"""How a thing is told by what is written on it."""

EXTREME_WORDS = {
    "left": ("furthest to the left", "leftmost"),
    "right": ("furthest to the right", "rightmost"),
    "front": ("closest to the viewer", "nearest"),
    "behind": ("furthest away", "most distant"),
}
"""How the label is told that stands in a relation to all others: after "which is", and before its noun."""
