from collections import Counter
from dataclasses import replace
from itertools import product

import pytest

from vl_alignment.data.blocks.captions import Caption, Mention, caption_holds, make_captions, make_descriptions
from vl_alignment.data.blocks.phrases import SYNONYMS, TEMPLATES
from vl_alignment.data.blocks.scene import make_scene
from vl_alignment.models.errors import ConfigurationError

SCENES = [make_scene(3, "train", index) for index in range(120)]
CAPTIONED = [(scene, make_captions(scene)) for scene in SCENES]
FEW = [make_scene(3, "train", index, minimum_objects=1, maximum_objects=3) for index in range(120)]
DESCRIBED = [(scene, make_descriptions(scene)) for scene in FEW]


def test_captions_are_true_and_never_name_all_objects() -> None:
    for scene, captions in CAPTIONED:
        assert len({caption.text for caption in captions}) == 5
        for caption in captions:
            assert caption_holds(caption, scene), (scene.image_id, caption)
            assert 1 <= len(caption.named_objects) <= 3
            assert len(caption.named_objects) < len(scene.objects)


def test_captions_are_the_same_every_time_and_differ_between_scenes() -> None:
    scene, captions = CAPTIONED[9]
    assert make_captions(scene) == captions
    assert len({caption.text for _, captions in CAPTIONED for caption in captions}) > 0.97 * 5 * len(SCENES)


def test_every_kind_of_caption_occurs_and_most_name_several_objects() -> None:
    kinds = Counter(caption.kind for _, captions in CAPTIONED for caption in captions)
    of_all = Counter(caption.kind for _, captions in DESCRIBED for caption in captions)
    assert set(kinds) | set(of_all) == set(TEMPLATES) and set(of_all) - set(kinds) == {"alone", "all_three"}
    several = [len(caption.named_objects) > 1 for _, captions in CAPTIONED for caption in captions]
    assert sum(several) > 0.75 * len(several)


def test_texts_say_what_the_structure_says_and_no_attribute_more() -> None:
    values = {value for scene in SCENES for item in scene.objects for value in (item.color, item.shape, item.size)}
    names = {name: value for value in values | {"metal", "rubber"} for name in SYNONYMS.get(value, (value,))}
    names |= {"boxes": "cube"} | {name + "s": value for name, value in names.items()}
    for _, captions in CAPTIONED + DESCRIBED:
        for caption in captions:
            words = caption.text.lower().replace(",", " ").replace(".", " ").replace(":", " ").replace(";", " ").split()
            said = Counter(names[word] for word in words if word in names)
            meant: Counter[str] = Counter()
            for mention in caption.mentions:
                base = caption.mentions[0].attributes if caption.kind == "count_contrast" else {}
                new = (
                    mention.attributes
                    if mention is caption.mentions[0]
                    else dict(mention.attributes.items() - base.items())
                )
                meant.update(new.values())
            assert said == meant, caption
            assert caption.text[0].isupper() and caption.text.endswith(".")
            assert "{" not in caption.text and "  " not in caption.text


def test_the_checker_refuses_what_is_false() -> None:
    scene = next(scene for scene in SCENES if len(scene.objects) > 6)
    left, right = next((j, i) for i, row in enumerate(scene.relationships["left"]) for j in row)
    color = scene.objects[left].color
    other_color = "red" if color != "red" else "blue"
    mentions = (Mention((left,), {"color": color}), Mention((right,), {}))
    caption = Caption("relation", mentions, ((0, "left", 1),))
    assert caption_holds(caption, scene)
    assert not caption_holds(replace(caption, relations=((0, "right", 1),)), scene)
    assert not caption_holds(replace(caption, mentions=(Mention((left,), {"color": other_color}), mentions[1])), scene)
    assert not caption_holds(Caption("one", (Mention((left,), {}, determiner="the"),)), scene)
    assert not caption_holds(Caption("count", (Mention((left, right), {}, determiner="count"),)), scene)
    assert not caption_holds(Caption("extreme", (Mention((right,), {}, place="left"),)), scene)
    assert not caption_holds(Caption("one", tuple(Mention((number,), {}) for number in range(4))), scene)
    assert not caption_holds(Caption("one", ()), scene)


def test_captions_tell_scenes_apart() -> None:
    # A perfect reader: for how many scenes does a caption have a reading that is true?
    matches = [
        sum(_has_true_reading(caption, other) for other in SCENES)
        for _, captions in CAPTIONED[:12]
        for caption in captions
    ]
    assert min(matches) >= 1
    assert sum(1.0 / count for count in matches) / len(matches) > 0.6


def _has_true_reading(caption: Caption, scene) -> bool:
    candidates = []
    for mention in caption.mentions:
        fitting = [
            number
            for number, item in enumerate(scene.objects)
            if all(getattr(item, name) == value for name, value in mention.attributes.items())
        ]
        together = mention.determiner == "count"
        candidates.append([tuple(fitting)] if together else [(number,) for number in fitting])
    for chosen in product(*candidates):
        mentions = tuple(
            replace(mention, objects=objects) for mention, objects in zip(caption.mentions, chosen, strict=True)
        )
        reading = replace(caption, mentions=mentions)
        same_count = len(reading.named_objects) == len(caption.named_objects)
        if all(chosen) and same_count and caption_holds(reading, scene):
            return True
    return False


def test_scenes_of_two_objects_are_captioned_by_one() -> None:
    scene = make_scene(0, "train", 0, minimum_objects=2, maximum_objects=2)
    assert {len(caption.named_objects) for caption in make_captions(scene)} == {1}


def test_too_many_captions_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="different captions"):
        make_captions(make_scene(0, "train", 0, minimum_objects=2, maximum_objects=2), count=400)


def test_descriptions_are_true_and_name_all_objects() -> None:
    assert {len(scene.objects) for scene in FEW} == {1, 2, 3}
    for scene, captions in DESCRIBED:
        assert len({caption.text for caption in captions}) == 5
        for caption in captions:
            assert caption_holds(caption, scene, names_all=True), (scene.image_id, caption)
            assert all({"shape", "color"} <= set(mention.attributes) for mention in caption.mentions)
            assert len(scene.objects) > 1 or len(caption.mentions[0].attributes) == 4
    told = [len(mention.attributes) for _, captions in DESCRIBED for each in captions for mention in each.mentions]
    assert 3.6 < sum(told) / len(told) < 3.8
    scene, captions = DESCRIBED[9]
    assert make_descriptions(scene) == captions


def test_objects_alike_in_everything_are_counted() -> None:
    first, second = next(scene for scene in FEW if len(scene.objects) == 2).objects
    alike = replace(second, **{name: getattr(first, name) for name in ("shape", "color", "material", "size")})
    pair = replace(FEW[0], objects=(first, alike))
    assert {caption.kind for caption in make_descriptions(pair)} == {"count"}
    other = next(scene for scene in FEW if len(scene.objects) == 3).objects[2]
    for objects in ((first, alike, other), (first, alike, first)):
        captions = make_descriptions(replace(FEW[0], objects=objects))
        assert all(caption.kind.startswith("count") for caption in captions)
        assert all(len(caption.named_objects) == 3 for caption in captions)


def test_the_checker_knows_descriptions_from_captions() -> None:
    scene, captions = CAPTIONED[0]
    assert not caption_holds(captions[0], scene, names_all=True)
    scene, captions = DESCRIBED[0]
    assert not caption_holds(captions[0], scene)


def test_scenes_of_many_objects_are_not_described() -> None:
    with pytest.raises(ConfigurationError, match="names 3 objects at most, and scene .* has 4; set maximum_objects=3"):
        make_descriptions(make_scene(0, "train", 0, minimum_objects=4, maximum_objects=4))
