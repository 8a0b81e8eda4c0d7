import pytest

from vl_alignment.analysis.nouns import build_noun_tagger, noun_tagger_names, register_noun_tagger
from vl_alignment.data.blocks.captions import make_captions
from vl_alignment.data.blocks.scene import make_scene
from vl_alignment.models.errors import ConfigurationError

# Captions of photographs, tagged by hand.
TAGGED = {
    "The boy sits in the sand with no shirt .": "boy sand shirt",
    "Three women dressed up in green and shamrocks .": "women shamrocks",
    "A tall white dog sits and watches a small black dog run around him in the snow .": "dog dog snow",
    "A smiling group posing together .": "group",
    "Girls in pink dresses walk toward a cruise ship": "girls dresses cruise ship",
    "Two men wearing white boxing gloves are in a ring .": "men boxing gloves ring",
    "The backs of two men wearing backpacks near some tents .": "backs men backpacks tents",
    "A dog on a leash walks on the sidewalk while another dog follows .": "dog leash sidewalk dog",
    "The man in the black hat holds the brown hair woman 's necklace .": "man hat hair woman necklace",
    "The white racing car has fire bursting from its exhaust pipe .": "racing car fire exhaust pipe",
    "Children play in a sprinkler near a beach .": "children sprinkler beach",
    "A little girl twirls around in a flowery dress .": "girl dress",
    "A person in a red jacket and a red hardhat stands near a mountain .": "person jacket hardhat mountain",
    "A woman is snowboarding down an incline while another woman stands behind .": "woman incline woman",
    "Person fishing in river .": "person river",
    "A person on a bicycle moving across the top of a train .": "person bicycle train",
    "Two little boys are playing outside with their soccer ball on the green grass .": "boys soccer ball grass",
    "A boy is kicking up dust as he runs in the dirt by a tree .": "boy dust dirt tree",
    "A snowboarder goes for a run .": "snowboarder run",
    "A homeless man holds a sign that says he is cold , whilst others walk past fast .": "man sign",
    "The family's dog is quickly fed by a friendly, red-haired child.": "family dog child",
}


def test_english_nouns_agree_with_a_reader_s():
    found = build_noun_tagger("english")(list(TAGGED))
    wrong = {caption: nouns for caption, nouns in zip(TAGGED, found, strict=True) if nouns != TAGGED[caption].split()}
    assert not wrong


def test_nouns_of_blocks_are_the_grammar_s():
    tagger = build_noun_tagger("blocks")
    assert tagger(["Two shiny boxes left of the rubber ball.", "The leftmost object is a small cube.", "Red."]) == [
        ["boxes", "ball"],
        ["object", "cube"],
        [],
    ]
    for index in range(5):
        captions = make_captions(make_scene(0, "test", index))
        for caption, nouns in zip(captions, tagger([caption.text for caption in captions]), strict=True):
            assert len(nouns) >= 1, caption.text


def test_a_tagger_of_the_user_s_is_known_by_name():
    class Last:
        description = "the last word"

        def __init__(self, count=1):
            self.count = count

        def __call__(self, captions):
            return [caption.split()[-self.count :] for caption in captions]

    register_noun_tagger("last", Last)
    assert "last" in noun_tagger_names()
    assert build_noun_tagger("last", count=2)(["a red ball"]) == [["red", "ball"]]
    with pytest.raises(ConfigurationError, match="already registered"):
        register_noun_tagger("last", Last)
    with pytest.raises(ConfigurationError, match="unknown noun tagger 'treebank'; the known ones are blocks, english"):
        build_noun_tagger("treebank")
