import json
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModel, pipeline

from .repositories import BACKBONE, READ, TEXTS, tiny_pipeline

BOXES = torch.tensor(READ["ocr_boxes"])


def summary(answers):
    return [(entry["answer"], round(entry["score"], 5)) for entry in answers]


def test_mac_names_its_most_probable_answers(pictures):
    run = tiny_pipeline("mac")
    with torch.no_grad():
        logits = run.model(**run.processor(text=TEXTS[0], images=pictures[0])).logits[0]
    found = run(pictures[0], TEXTS[0])
    assert len(found) == 5
    assert found[0]["answer"] == run.model.answer_words(logits[None])[0]
    expected = logits.softmax(dim=-1).sort(descending=True)
    assert [entry["answer"] for entry in found] == [f"LABEL_{number}" for number in expected.indices.tolist()]
    assert [entry["score"] for entry in found] == pytest.approx(expected.values.tolist())
    assert summary(run(pictures[0], TEXTS[0], top_k=2)) == summary(found[:2])
    assert summary(run(pictures[0], TEXTS[0], top_k=99)) == summary(found)


@pytest.mark.parametrize("cell", ["released", "pytorch"])
def test_answers_do_not_depend_on_the_batch(cell, pictures):
    run = tiny_pipeline("mac", cell=cell)
    single = [summary(run(pictures[0], question)) for question in TEXTS]
    assert [summary(answers) for answers in run(pictures[0], TEXTS, batch_size=3)] == single
    pairs = [summary(run(picture, question)) for picture, question in zip(pictures, TEXTS, strict=True)]
    assert [summary(answers) for answers in run(pictures, TEXTS, batch_size=2)] == pairs
    items = [{"image": picture, "question": question} for picture, question in zip(pictures, TEXTS, strict=True)]
    assert [summary(answers) for answers in run(item for item in items)] == pairs
    assert len(run(pictures, TEXTS[0])) == 3


def test_mac_shows_where_its_steps_look(pictures):
    run = tiny_pipeline("mac")
    with torch.no_grad():
        output = run.model(**run.processor(text=TEXTS[1], images=pictures[0]), output_attentions=True)
    for batch_size in (1, 3):
        best, *others = run(pictures[0], TEXTS, output_attentions=True, batch_size=batch_size)[1]
        assert not any("attention" in entry for entry in others)
        attention = best["attention"]
        assert attention["words"] == ["<start>", "two", "dogs", "<end>"]
        assert attention["grid"] == [3, 3]
        torch.testing.assert_close(torch.tensor(attention["question"]), output.question_attentions[0])
        torch.testing.assert_close(torch.tensor(attention["image"]), output.image_attentions[0])


def test_m4c_answers_first_as_its_greedy_search_does(pictures):
    run = tiny_pipeline("m4c")
    inputs = run.processor(text=TEXTS[0], images=pictures[0], **READ)
    greedy = run.model.generate(**inputs, ocr_tokens=inputs.ocr_tokens)
    found = run(pictures[0], TEXTS[0], **READ)
    assert found[0]["answer"] == greedy.answers[0].text
    assert found[0]["score"] == pytest.approx(greedy.sequences_scores.exp().item())
    assert len({entry["answer"] for entry in found}) == len(found) == 5
    others = [entry["score"] for entry in found[1:]]
    assert others == sorted(others, reverse=True)
    for entry in found:
        assert " ".join(source["word"] for source in entry["sources"]) == entry["answer"]
        for source in entry["sources"]:
            if source["source"] == "ocr":
                assert READ["ocr_tokens"][source["token"]] == source["word"]
                assert source["box"] == pytest.approx(READ["ocr_boxes"][source["token"]], abs=1e-4)
            else:
                assert source["word"] in run.model.config.id2label.values()
    assert "ocr" in {source["source"] for entry in found for source in entry["sources"]}
    assert summary(run(pictures[0], TEXTS[0], **READ, top_k=1)) == summary(found[:1])
    json.dumps(found)


def test_m4c_answers_alike_in_batches_of_pictures_with_other_text(pictures):
    run = tiny_pipeline("m4c")
    tokens = [READ["ocr_tokens"], [], READ["ocr_tokens"][1:]]
    boxes = [READ["ocr_boxes"], [], READ["ocr_boxes"][1:]]
    single = [
        summary(run(picture, question, ocr_tokens=own, ocr_boxes=places))
        for picture, question, own, places in zip(pictures, TEXTS, tokens, boxes, strict=True)
    ]
    for batch_size in (1, 2, 3):
        found = run(pictures, TEXTS, ocr_tokens=tokens, ocr_boxes=boxes, batch_size=batch_size)
        assert [summary(answers) for answers in found] == single
    same = run(pictures[0], TEXTS, **READ)
    assert summary(same[0]) == single[0]


@pytest.mark.parametrize("given", [READ, {"ocr_tokens": []}])
def test_m4c_shows_what_the_words_of_its_answer_look_at(given, pictures):
    run = tiny_pipeline("m4c")
    items = [
        {"image": pictures[0], "question": TEXTS[0], **READ},
        {"image": pictures[1], "question": TEXTS[1], **given},
    ]
    best = run(items, output_attentions=True, batch_size=2)[1][0]
    attention = best["attention"]
    assert attention["words"] == ["<start>", "two", "dogs", "<end>"]
    assert [token["word"] for token in attention["ocr_tokens"]] == given["ocr_tokens"]
    inputs = run.processor(text=TEXTS[1], images=pictures[1], **given)
    with torch.no_grad():
        found = run.model.generate(**inputs).sequences
        fed = torch.cat([torch.ones_like(found[:, :1]), found[:, :-1]], dim=1)
        layers = run.model(**inputs, previous_ids=fed, output_attentions=True).attentions
    steps = [step for step, word in enumerate(found[0].tolist()) if word > 2]  # the others are no words of an answer
    rows = torch.stack(layers).mean(dim=(0, 2))[0, -found.shape[1] :][steps]
    assert len(rows) == len(best["sources"])
    for part, begin, end in (("question", 0, 4), ("image", 4, 13), ("ocr", 13, 13 + len(given["ocr_tokens"]))):
        expected = rows[:, begin:end]
        torch.testing.assert_close(torch.tensor(attention[part]).view_as(expected), expected, rtol=1e-4, atol=1e-6)


def test_m4c_takes_what_reads_the_picture(pictures):
    run = tiny_pipeline("m4c")
    expected = summary(run(pictures[0], TEXTS[0], **READ))
    seen = []

    def reader(picture):
        seen.append(picture.mode)
        return {"tokens": READ["ocr_tokens"], "boxes": READ["ocr_boxes"]}

    assert summary(run(pictures[0], TEXTS[0], text_reader=reader)) == expected
    assert seen == ["RGB"]
    as_object = SimpleNamespace(tokens=READ["ocr_tokens"], boxes=BOXES.numpy(), confidences=[0.5, 0.9, 0.7])
    assert summary(run(pictures[0], TEXTS[0], text_reader=lambda _: as_object)) == expected
    reading = pipeline(
        "text-visual-question-answering",
        model=run.model,
        processor=run.processor,
        device="cpu",
        text_reader=reader,
        top_k=2,
    )
    assert summary(reading(pictures[0], TEXTS[0])) == summary(run(pictures[0], TEXTS[0], **READ, top_k=2))


def test_what_cannot_be_used_is_refused(pictures):
    mac, m4c = tiny_pipeline("mac"), tiny_pipeline("m4c")
    for run, arguments, keywords, message in [
        (mac, (pictures[0], ""), {}, "has no words"),
        (mac, (pictures[0], [3]), {}, "a question must be a string, not 3"),
        (mac, (pictures[0], []), {}, "there are no images and questions"),
        (mac, (pictures, TEXTS[:2]), {}, "there are 2 questions for 3"),
        (mac, (pictures[0],), {}, "give an image and a question"),
        (mac, (None,), {}, "give an image and a question"),
        (mac, ("no picture", TEXTS[0]), {}, "the picture cannot be read"),
        (mac, (pictures[0], TEXTS[0]), READ, "MAC reads no text in pictures"),
        (mac, (pictures[0], TEXTS[0]), {"top_k": 0}, "top_k is 0"),
        (m4c, (pictures[0], TEXTS[0]), {}, "has to be given: ocr_tokens and ocr_boxes"),
        (m4c, (pictures[0], TEXTS[0]), {"ocr_tokens": "STOP"}, "ocr_tokens must be a list of words, not 'STOP'"),
        (m4c, (pictures[0], TEXTS[0]), {"ocr_tokens": ["STOP"]}, "ocr_tokens without ocr_boxes"),
        (m4c, (pictures, TEXTS), {"ocr_tokens": [[]]}, "ocr_tokens of 1 pictures are given for 3"),
        (m4c, (pictures[0], TEXTS[0]), {"ocr_tokens": ["a"], "ocr_boxes": [[0, 0, 90, 9]]}, "divide them by"),
    ]:
        with pytest.raises(ValueError, match=message):
            run(*arguments, **keywords)


def test_other_models_are_refused():
    with pytest.raises(ValueError, match="no vision backbone.*region_features=features"):
        tiny_pipeline("mac", vision_config=None)
    scan = tiny_pipeline("scan")
    with pytest.raises(ValueError, match="needs a model of type mac or m4c; this one is of type 'scan'"):
        pipeline("clevr-question-answering", model=scan.model, processor=scan.processor)


@pytest.mark.parametrize(
    ("name", "task"), [("mac", "clevr-question-answering"), ("m4c", "text-visual-question-answering")]
)
def test_the_saved_configuration_names_the_task_of_its_model(name, task, tmp_path):
    tiny_pipeline(name).save_pretrained(tmp_path)
    custom = json.loads((tmp_path / "config.json").read_text())["custom_pipelines"]
    assert custom == {task: {"impl": "visual_question_answering.VisualQuestionAnsweringPipeline", "pt": ["AutoModel"]}}
    assert AutoModel.from_pretrained(tmp_path).config.vision_config.hidden_sizes == BACKBONE.hidden_sizes


@pytest.mark.cuda
@pytest.mark.parametrize("name", ["mac", "m4c"])
def test_the_device_is_honoured(name, pictures):
    given = READ if name == "m4c" else {}
    expected = tiny_pipeline(name)(pictures[0], TEXTS[0], **given, top_k=1, output_attentions=True)
    run = tiny_pipeline(name, device="cuda")
    assert run.model.device.type == "cuda"
    found = run(pictures[0], TEXTS[0], **given, top_k=1, output_attentions=True)
    assert found[0]["answer"] == expected[0]["answer"]
    assert found[0]["score"] == pytest.approx(expected[0]["score"], abs=1e-4)
