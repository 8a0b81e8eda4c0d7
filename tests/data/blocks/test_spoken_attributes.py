import pytest

from vl_alignment.data.blocks.captions import make_captions, make_descriptions
from vl_alignment.data.blocks.scene import make_scene
from vl_alignment.data.blocks.spoken_attributes import contradict, noun_phrases, spoken_attributes


def said(caption):
    """What the structured form of a caption says, as sets of (attribute, value)."""
    phrases = [dict(mention.attributes) for mention in caption.mentions]
    if caption.kind.startswith("only"):
        phrases = [{name: value for phrase in phrases for name, value in phrase.items()}]
    return {frozenset(phrase.items()) for phrase in phrases if phrase}


@pytest.mark.parametrize("objects", [(2, 3), (3, 10)])
def test_every_caption_is_read_as_it_was_meant(objects):
    kinds = set()
    for index in range(70):
        scene = make_scene(3, "train", index, minimum_objects=objects[0], maximum_objects=objects[1])
        for caption in make_captions(scene):
            kinds.add(caption.kind)
            assert {frozenset(phrase.items()) for phrase in spoken_attributes(caption.text)} == said(caption), caption
    assert {"only_shape", "only_object", "count", "extreme", "relation"} <= kinds


def test_every_description_is_read_as_it_was_meant():
    for index in range(70):
        for caption in make_descriptions(make_scene(4, "train", index, minimum_objects=1, maximum_objects=3)):
            assert {frozenset(phrase.items()) for phrase in spoken_attributes(caption.text)} == said(caption), caption


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        (
            "A little matte red block behind two boxes.",
            [{"size": "small", "material": "rubber", "color": "red", "shape": "cube"}, {"shape": "cube"}],
        ),
        (
            "There are two cones: one large and one small.",
            [{"shape": "cone"}, {"shape": "cone", "size": "large"}, {"shape": "cone", "size": "small"}],
        ),
        (
            "two red things, a cube and a ball.",
            [{"color": "red"}, {"color": "red", "shape": "cube"}, {"color": "red", "shape": "sphere"}],
        ),
        ("Two red things and a ball.", [{"color": "red"}, {"shape": "sphere"}]),
        (
            "The only cube is small, green and made of metal.",
            [{"shape": "cube", "size": "small", "color": "green", "material": "metal"}],
        ),
        ("There is only one shiny thing: a cone.", [{"material": "metal", "shape": "cone"}]),
        (
            "A ball made of rubber and a cylinder",
            [{"shape": "sphere", "material": "rubber"}, {"shape": "cylinder"}],
        ),
        ("One of the objects is a   Gray thing.", [{"color": "gray"}]),
        ("a bird with redder wings", []),
        ("", []),
    ],
)
def test_captions_worked_out_by_hand(caption, expected):
    assert list(spoken_attributes(caption)) == expected


def test_contradiction_needs_an_attribute_of_both():
    assert contradict({"color": "red", "shape": "cube"}, {"color": "blue", "shape": "cube"})
    assert not contradict({"color": "red"}, {"shape": "cube"})
    assert not contradict({}, {"shape": "cube"})


def test_noun_phrases_say_where_they_stand_and_how_many_they_name():
    caption = "Two small red cubes are left of the Ball made of rubber, which is green."
    found = [(caption[phrase.start : phrase.end], phrase.count, phrase.attributes) for phrase in noun_phrases(caption)]
    assert found == [
        ("Two small red cubes", 2, {"size": "small", "color": "red", "shape": "cube"}),
        ("Ball made of rubber", 1, {"shape": "sphere", "material": "rubber"}),
    ]
    assert noun_phrases("the leftmost object is one of the things") == ()
