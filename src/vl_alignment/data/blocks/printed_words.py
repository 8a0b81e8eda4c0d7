"""The words that stand in pictures of the blocks world, each in one split only.

About half are English words of signs and labels, written down here, the rest is invented from syllables: there are
enough of those that a model cannot learn them by heart. A word's hash says which split may print it, so that no word of
the validation and test pictures, and no part of a label of two words, is ever seen in training.
"""

import hashlib

from vl_alignment.data.blocks.phrases import Draw, choose
from vl_alignment.data.blocks.scene import SPLITS

__all__ = ["SIGN_WORDS", "draw_word", "word_split"]

SIGN_WORDS = tuple(
    """
    alarm apples aspirin bakery bananas bank bargain barley beans berry bikes bistro books bread bridge bricks butter
    cafe candy canoe cards carrots casino cellar cement cheese cherry church cinema clinic closed coal cocoa coffee
    copper corn cotton crayon cream daily danger dairy dentist depot diesel diner discount dock drinks engine enter
    exit express fabric factory fares farm ferry films fish flags florist flour forest forward fresh fruit garage
    garden gifts ginger glass gloves gold grain grapes guest harbor hardware harvest herbs history honey horse hotel
    island jewels juice keep kitchen ladder lamps lemon lentils library light linen local lounge luggage lunch magnet
    mail market melon metro milk mint mirror museum music nails nature needle north notice novel oats office
    olives onion open orchid organic oxygen paint palace paper parcel parking pasta pause peach pepper pharmacy piano
    pickles pilot pizza plants platform please police polish potato powder private prunes pumpkin push quality quarry
    quiet radio rail raisins ramp recycle rental repair rescue reserved rice ribbon river rocket rope rural saddle
    safety salad sale salmon salt sauce school seeds service shelter shoes silk silver slow smoke soap socks soup south
    special spices stairs stamps station stop storage street studio sugar summer syrup tailor tavern taxi tea temple
    tickets timber tools tourist towels tower toys tractor trains travel tunnel turnip uniform union upstairs urgent
    vacant valley vanilla velvet village vinegar violin visitor voltage waffles wagon walnut warning water welcome
    wheat winter wood wool yard yogurt zebra zone
    """.split()
)
"""Words as they stand on signs and packets, lower case; none of them is a colour, a shape or a number."""

TRAINING_SHARE = 0.7

_ENGLISH_SHARE = 0.45
_LENGTHS = (4, 6)
_ONSETS = (*"bdfghjklmnprstvz", "br", "cr", "dr", "fl", "gr", "pl", "st", "tr")
_VOWELS = tuple("aeiou")
_CODAS = ("", "", "", "", "n", "r", "l", "s", "t", "m", "k", "x")


def word_split(word: str) -> str:
    """The split, one of `SPLITS`, whose pictures may show the word; upper and lower case are one word."""
    place = int.from_bytes(hashlib.sha256(word.lower().encode()).digest()[:4], "big") / 2**32
    if place < TRAINING_SHARE:
        return SPLITS[0]
    return SPLITS[1] if place < (1.0 + TRAINING_SHARE) / 2.0 else SPLITS[2]


_ENGLISH = {split: tuple(word for word in SIGN_WORDS if word_split(word) == split) for split in SPLITS}


def draw_word(split: str, draw: Draw) -> str:
    """One word of a split, lower case, of at most nine letters."""
    if draw() < _ENGLISH_SHARE:
        return choose(_ENGLISH[split], draw)
    while True:
        word = "".join(choose(_ONSETS, draw) + choose(_VOWELS, draw) + choose(_CODAS, draw) for _ in range(2))
        if _LENGTHS[0] <= len(word) <= _LENGTHS[1] and word_split(word) == split:
            return word
