import datasets
import torch

from vl_alignment.data.text_question_records import TEXT_FEATURES
from vl_alignment.data.vocabulary import build_spelling_tokenizer
from vl_alignment.models import HashedWordVectors, phoc
from vl_alignment.models.processing_m4c import M4CProcessor
from vl_alignment.training.text_question_inputs import TextInputs


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
