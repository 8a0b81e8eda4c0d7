import datasets
import torch

from vl_alignment.data.text_question_records import TEXT_FEATURES
from vl_alignment.data.vocabulary import build_spelling_tokenizer, build_word_tokenizer
from vl_alignment.models import HashedWordVectors, phoc
from vl_alignment.models.processing_m4c import M4CProcessor
from vl_alignment.training.text_question_inputs import TextInputs, TextQuestionTable


def test_a_batch_is_what_the_processor_makes_of_its_pictures():
    words = [["stop", "exit"], [], ["exit", "Stop", "stop"]]
    columns = {
        "image_id": ["a", "b", "c"],
        "ocr_tokens": words,
        "ocr_boxes": [[[0.1 * n, 0.0, 1.0, 1.0] for n in range(len(own))] for own in words],
        "ocr_confidences": [[1.0] * len(own) for own in words],
    }
    features = datasets.Features({"image_id": datasets.Value("string"), **TEXT_FEATURES})
    tokenizer = build_spelling_tokenizer(["what does it say"])
    processor = M4CProcessor(tokenizer=tokenizer, word_vectors=HashedWordVectors(8))
    images = datasets.Dataset.from_dict(columns, features=features)
    texts = TextInputs(images, processor, "train")
    batch = texts.batch([2, 0, 1])
    expected, _ = processor.text_inputs(
        [words[2], words[0], words[1]], [columns["ocr_boxes"][row] for row in (2, 0, 1)]
    )
    assert texts.words == words and set(batch) == set(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(batch[name], tensor.to(batch[name].dtype))
    assert torch.equal(batch["ocr_phoc"][0, 0], phoc(["exit"])[0].float())
    assert TextInputs(images, processor, "train", hidden=True).batch([0])["ocr_mask"].tolist() == [[False]]


def test_words_that_no_training_question_has_come_with_their_spelling():
    questions = ["What says kasi?", "What says it?", "Is a NELTO on the thing that says kasi?"]
    columns = {name: ["0", "1", "2"] for name in ("question_id", "question_type")}
    columns |= {"image_id": ["a", "a", "b"], "question": questions, "answers": [[]] * 3, "hops": [0] * 3}
    processor = M4CProcessor(
        tokenizer=build_word_tokenizer(["what is it on the thing that says a"], 1),
        max_question_tokens=10,
        question_spellings=True,
    )
    images = datasets.Dataset.from_dict({"image_id": ["a", "b"]})
    table = TextQuestionTable(datasets.Dataset.from_dict(columns), images, processor, "train")
    batch = table.tokens.batch([2, 0])
    expected = processor([questions[2], questions[0]])
    assert set(batch) == set(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(batch[name], tensor)
    spelled = batch["question_phoc"]
    # The last word of the longer question is cut off with its end.
    assert spelled.any(dim=-1).nonzero().tolist() == [[0, 3], [1, 3]]
    assert torch.equal(spelled[0, 3], phoc(["nelto"])[0])
    assert torch.equal(table.tokens.batch([1])["question_phoc"], torch.zeros(1, 5, 604))
