import io

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.patches import FancyBboxPatch, Rectangle
from PIL import Image
from tests.training.text_questions import SIDE, SIZE, TINY, text_processor, text_question_data

from vl_alignment.analysis.attention import MapSide, m4c_alignment_maps
from vl_alignment.analysis.attention_pictures import model_reading_png
from vl_alignment.analysis.drawing_answers import MOST_TOKENS, SOURCE_COLOUR, draw_reading, reading_png
from vl_alignment.models.configuration_m4c import SPECIAL_ANSWERS, M4CConfig
from vl_alignment.models.decoding_m4c import AnswerWord, M4CAnswer
from vl_alignment.models.errors import DataError
from vl_alignment.models.modeling_m4c import M4CForQuestionAnswering
from vl_alignment.models.processing_m4c import M4CProcessor

QUESTION = ["what", "$word", "is", "it?"]
TOKENS = ["exit", "STOP", "$5"]
BOXES = np.array([[0.1, 0.1, 0.4, 0.2], [0.5, 0.1, 0.9, 0.2], [0.3, 0.6, 0.8, 0.8]])
PICTURE = Image.new("RGB", (200, 200), (120, 120, 120))
COPIED, KNOWN = AnswerWord("STOP", "ocr", 1, (0.5, 0.1, 0.9, 0.2)), AnswerWord("red", "vocabulary")
LEFT = 4.65  # of the pictures, in inches


def maps_of(words=1, tokens=3, picture=PICTURE, question=QUESTION, word=1, token=-2, boxes=BOXES):
    """Every word looks at one word of the question, one of four objects, and one token."""
    pieces, slots = len(question), max(1, tokens)
    parts = [np.full(count, 0.02 / count) for count in (pieces, 4, slots)]
    for part, most in zip(parts, (word, 3, token), strict=True):
        part[most] += 0.3 / np.size(part[most])
    parts[2] *= bool(tokens)
    row = np.concatenate([*parts, np.zeros(words)])
    row[-words] = 1 - row.sum()
    attention = np.zeros((1, len(row), len(row)))
    attention[:, :, 0] = 1
    attention[:, -words:] = row
    return m4c_alignment_maps(
        [attention],
        question,
        range(pieces),
        MapSide(grid=(2, 2)),
        MapSide(boxes=boxes[:tokens]) if tokens else None,
        picture,
        ocr_slots=slots,
        steps=range(words),
    )


def texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def frames(figure, colour=SOURCE_COLOUR):
    """Boxes [x0, y0, x1, y1] in inches of the frames of a colour, but for the legend's."""
    found = [
        patch.get_bbox()
        for patch in figure.axes[0].patches
        if isinstance(patch, Rectangle) and patch.get_linewidth() and to_hex(patch.get_edgecolor()) == colour
    ]
    return [(box.x0, box.y0, box.x1, box.y1) for box in found if box.y0 > 0.24]


def test_a_row_a_word_with_its_source():
    figure = draw_reading(
        maps_of(words=2),
        M4CAnswer((COPIED, KNOWN)),
        TOKENS,
        question="What $word is it?",
        right_answer="stop red",
        score=1.0,
        alignment_function="general_key",
    )
    drawn = " ".join(texts(figure))
    assert drawn.startswith("What $word is it? answer: STOP red (right) General† 1 STOP copied from the picture what")
    assert "2 red from the vocabulary what $word is it? in the picture: STOP attention on the question 0.32" in drawn
    assert "objects 0.32, words of the picture 0.32, the rest 0.04" in drawn


@pytest.mark.parametrize(
    ("known", "verdict"),
    [
        ({}, "answer: STOP what"),
        ({"right_answer": "go"}, "answer: STOP people say: go"),
        ({"right_answer": "go", "score": 0.0}, "answer: STOP (wrong; people say: go)"),
        ({"right_answer": "go", "score": 0.6}, "answer: STOP (scores 0.6 of 1; people say: go)"),
        ({"right_answer": "stop", "score": 1.0}, "answer: STOP (right)"),
    ],
)
def test_what_is_known_of_the_answer(known, verdict):
    figure = draw_reading(maps_of(), M4CAnswer((COPIED,)), TOKENS, **known)
    assert verdict.removesuffix(" what") in " ".join(texts(figure))
    assert ("people say" in " ".join(texts(figure))) == ("people say" in verdict)


def test_only_what_stands_out_is_shaded():
    boxes = [
        patch
        for patch in draw_reading(maps_of(), M4CAnswer((COPIED,)), TOKENS).axes[0].patches
        if isinstance(patch, FancyBboxPatch)
    ]
    assert len(boxes) == 2  # a word of the question, and one of the picture
    assert all(sum(box.get_facecolor()[:3]) > 1.5 for box in boxes)
    equal = maps_of(word=slice(None), token=slice(None))
    drawn = draw_reading(equal, M4CAnswer((KNOWN,)), TOKENS)
    assert not any(isinstance(patch, FancyBboxPatch) for patch in drawn.axes[0].patches)
    assert "none of the picture's words stands out" in " ".join(texts(drawn))


def test_frames_lie_around_their_words():
    figure = draw_reading(maps_of(), M4CAnswer((COPIED,)), TOKENS)
    heading, row = frames(figure)  # the source stands out in both pictures
    height = figure.get_size_inches()[1]
    for box, top in ((heading, height), (row, height - 1.95)):
        expected = LEFT + 1.9 * 0.5, top - 1.9 * 0.2, LEFT + 1.9 * 0.9, top - 1.9 * 0.1
        assert np.abs(np.array(box) - expected).max() == pytest.approx(0.04)
    assert not frames(draw_reading(maps_of(), M4CAnswer((KNOWN,)), TOKENS))


def test_the_attended_word_is_framed_most_brightly():
    image = np.asarray(Image.open(io.BytesIO(reading_png(maps_of(), M4CAnswer((KNOWN,)), TOKENS))).convert("RGB"))
    tile = image[195:385, 465:655].astype(int).sum(axis=2)

    def edge(box):
        x0, y0, x1, y1 = (int(190 * side) for side in box)
        return max(tile[y0 - 2 : y0 + 2, x0 + 5 : x1 - 5].max(axis=0).mean(), tile[y1, x0 + 5 : x1 - 5].mean())

    assert edge(BOXES[1]) > edge(BOXES[0]) + 50 and edge(BOXES[1]) > edge(BOXES[2]) + 50


def test_a_picture_without_text_and_an_answer_without_words():
    drawn = " ".join(texts(draw_reading(maps_of(tokens=0, token=0), M4CAnswer(()), [])))
    assert "answer: no words" in drawn and "1 [end] from the vocabulary" in drawn
    assert "in the picture" not in drawn and "words of the picture 0.00" in drawn


def test_without_a_picture_the_heat_stands_alone():
    figure = draw_reading(maps_of(picture=None), M4CAnswer((COPIED,)), TOKENS)
    assert len(figure.axes[0].images) == 1 + 1 and len(frames(figure)) == 2  # the row and the scale


def test_long_texts_stay_within_their_panel():
    words = [f"word{number}" for number in range(40)]
    tokens = [f"http://example.org/{number}/{'x' * 60}" for number in range(20)]
    answer = M4CAnswer(tuple(AnswerWord(token, "ocr", number) for number, token in enumerate(tokens[:4])))
    maps = maps_of(words=4, tokens=20, question=words, token=slice(0, 10), boxes=np.tile(BOXES[:1], (20, 1)))
    figure = draw_reading(maps, answer, tokens, right_answer=" ".join(words), score=0.0)
    figure.draw_without_rendering()
    scale = figure.dpi
    panel = [text for text in figure.axes[0].texts if text.get_position()[1] > 0.24]
    assert max(text.get_window_extent().x1 for text in panel) <= 4.6 * scale
    # No two texts lie on each other.
    extents = [text.get_window_extent() for text in figure.axes[0].texts]
    overlaps = [
        (a, b)
        for number, a in enumerate(extents)
        for b in extents[:number]
        if min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 4
    ]
    assert not overlaps
    shown = [text for text in texts(figure) if text.startswith("http")]
    assert len(shown) == 4 + 4 * (1 + MOST_TOKENS) and all(len(text) == 30 for text in shown)


@pytest.mark.parametrize("size", [(480, 320), (60, 240)])
def test_pictures_keep_their_shape_and_the_legend_fits(size):
    figure = draw_reading(maps_of(picture=Image.new("RGB", size)), M4CAnswer((COPIED,)), TOKENS)
    for image in figure.axes[0].images[:2]:
        left, right, bottom, top = image.get_extent()
        assert (right - left) / (top - bottom) == pytest.approx(size[0] / size[1])
    figure.draw_without_rendering()
    assert figure.axes[0].texts[-1].get_window_extent().x1 <= figure.get_size_inches()[0] * figure.dpi


def test_what_does_not_fit_is_refused():
    with pytest.raises(DataError, match="of 1 words on 3 words of the picture does not fit an answer of 2"):
        draw_reading(maps_of(), M4CAnswer((COPIED, KNOWN)), TOKENS)
    with pytest.raises(DataError, match="a picture of 2"):
        draw_reading(maps_of(), M4CAnswer((COPIED,)), TOKENS[:2])


@pytest.fixture
def reader(monkeypatch):
    """An M4C with random weights and its processor, and what was drawn: the maps, the answer and the options."""
    data = text_question_data()
    processor = text_processor(data)
    torch.manual_seed(0)
    fields = {**TINY, "text_config": {**TINY["text_config"], "vocab_size": len(processor.tokenizer)}}
    names = dict(enumerate((*SPECIAL_ANSWERS, "stop", "halt")))
    model = M4CForQuestionAnswering(M4CConfig(**fields, id2label=names, feature_size=SIZE, word_vector_size=8)).eval()
    drawn = []

    def record(maps, answer, tokens, **options):
        drawn.append((maps, answer, options))
        return reading_png(maps, answer, tokens, **options)

    monkeypatch.setattr("vl_alignment.analysis.attention_pictures.reading_png", record)
    return model, processor, drawn


def read(reader, question, tokens, people=()):
    model, processor, drawn = reader
    boxes = [[0.1 * number, 0.2, 0.1 * number + 0.3, 0.4] for number in range(len(tokens))]
    features = torch.randn(1, SIDE * SIDE, SIZE, generator=torch.Generator().manual_seed(0))
    # A second picture with more words leaves slots empty, as in a batch.
    text, _ = processor.text_inputs([tokens, ["a"] * 5], [boxes, [[0, 0, 1, 1]] * 5])
    inputs = {"region_features": features, **{name: tensor[:1] for name, tensor in text.items()}}
    png = model_reading_png(model, processor, inputs, tokens, question, PICTURE, people)
    assert Image.open(io.BytesIO(png)).format == "PNG"
    return drawn[-1]


def test_words_are_what_stands_between_spaces(reader):
    maps, answer, options = read(reader, 'What is  written: "MILLER" ?', ["mill1", "stop"], ["stop"] * 10)
    # The pieces of a spelled word count together; a mark alone is read by nobody.
    assert maps.words.keys.labels == ("What", "is", "written:", '"MILLER"')
    assert maps.shares.sum(axis=1) == pytest.approx(np.ones(len(maps.shares)))
    assert maps.tokens.keys.size == 2 and maps.objects.keys.grid == (SIDE, SIDE)
    assert len(maps.shares) == max(1, len(answer.words))
    assert options["right_answer"] == "stop" and options["score"] == float(answer.text == "stop")


def test_words_that_were_cut_are_not_drawn(reader):
    assert isinstance(reader[1], M4CProcessor)
    reader[1].max_question_tokens = 4
    maps, _, options = read(reader, "what is written", [])
    assert maps.words.keys.labels == ("what", "is") and maps.tokens is None
    assert "score" not in options


def test_the_copied_word_is_that_of_the_answer(reader):
    model = reader[0]
    with torch.no_grad():  # at every step all words of the picture score alike, and higher than the vocabulary
        for layer in (model.pointer.query, model.pointer.key, model.classifier):
            layer.weight.zero_()
            layer.bias.zero_()
        model.classifier.bias.fill_(-1.0)
    maps, answer, _ = read(reader, "what is written", ["mill1", "stop"])
    assert [word.token for word in answer.words] == [0] * 3  # the first of them
    assert len(maps.shares) == 3
