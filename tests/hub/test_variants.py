from collections import Counter

import pytest
from PIL import Image
from tests.models import attngan_model, m4c_model, mac_model, scan_model
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForVisualQuestionAnswering,
    AutoModelForZeroShotImageClassification,
    AutoProcessor,
    pipeline,
)

import vl_alignment
from vl_alignment import cli
from vl_alignment.data.vocabulary import build_word_tokenizer
from vl_alignment.hub.variants import (
    BUILT_IN_VARIANTS,
    PUBLISHED_VARIANTS,
    TASK_OF_MODEL,
    find_variant,
    task_of_model,
    variant_name,
    variants_text,
)
from vl_alignment.models import ConfigurationError
from vl_alignment.models.processing_base import SquareImageProcessorPil
from vl_alignment.models.processing_scan import ScanProcessor
from vl_alignment.training.presets import PRESETS

TINY = {"scan": scan_model, "mac": mac_model, "m4c": m4c_model, "attngan": attngan_model}
AUTO_CLASSES = {
    "AutoModel": AutoModel,
    "AutoModelForVisualQuestionAnswering": AutoModelForVisualQuestionAnswering,
    "AutoModelForZeroShotImageClassification": AutoModelForZeroShotImageClassification,
}


def test_the_paper_has_44_variants():
    counts = Counter((variant.model, variant.dataset) for variant in PUBLISHED_VARIANTS)
    assert counts == {
        ("scan", "flickr30k"): 8,
        ("scan", "coco"): 8,
        ("mac", "clevr"): 7,
        ("m4c", "textvqa"): 7,
        ("attngan", "cub"): 7,
        ("attngan", "coco"): 7,
    }
    names = [variant.name for variant in (*PUBLISHED_VARIANTS, *BUILT_IN_VARIANTS)]
    assert len(set(names)) == len(names) == 81


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("scan-coco-general_query", {"sentence_retrieval_r1": 59.8, "image_retrieval_r10": 87.8, "rsum": 455.8}),
        ("mac-clevr-dot", {"accuracy": 96.6}),
        ("m4c-textvqa-scaled_dot", {"accuracy": 41.9, "anls": 55.4}),
        ("attngan-cub-activated_general_key", {"inception_score": 4.41, "fid": 28.39}),
        ("attngan-coco-dot", {"inception_score": 23.28, "fid": 40.19}),
    ],
)
def test_a_variant_knows_the_papers_numbers(name, values):
    [variant] = [variant for variant in PUBLISHED_VARIANTS if variant.name == name]
    assert values.items() <= variant.published_values.items()
    assert find_variant(variant.model, variant.dataset, variant.alignment_function) == variant


def test_every_variant_has_a_preset_of_its_task_and_data():
    for variant in (*PUBLISHED_VARIANTS, *BUILT_IN_VARIANTS):
        assert PRESETS[variant.preset]["task"] == variant.task == TASK_OF_MODEL[variant.model].task
        assert PRESETS[variant.preset]["data"]["name"] == variant.dataset
    assert {variant.preset for variant in (*PUBLISHED_VARIANTS, *BUILT_IN_VARIANTS)} == set(PRESETS)
    assert not any(variant.published_values for variant in BUILT_IN_VARIANTS)


def test_names_are_those_of_runs():
    assert variant_name("m4c", "blocks-text", "scaled_dot") == "m4c-blocks_text-scaled_dot"
    assert variant_name("scan", "coco", "dot", released_layout=True) == "scan-coco-dot-released"
    assert find_variant("m4c", "blocks-text", "scaled_dot").preset == "blocks-text"
    assert find_variant("scan", "blocks", "a_function_of_mine") is None
    with pytest.raises(ConfigurationError, match="'clip'.*scan, mac, m4c, attngan"):
        task_of_model("clip")


@pytest.mark.parametrize("model_type", TINY)
def test_auto_classes_load_a_saved_model(model_type, tmp_path):
    model = TINY[model_type].tiny_model()
    model.save_pretrained(tmp_path)
    of_model = TASK_OF_MODEL[model_type]
    assert AutoConfig.from_pretrained(tmp_path).model_type == model_type
    for name in of_model.auto_classes:
        loaded = AUTO_CLASSES[name].from_pretrained(tmp_path)
        assert type(loaded).__name__ == of_model.model_class
    assert hasattr(vl_alignment, of_model.processor_class)


def test_zero_shot_image_classification_works_for_scan_as_it_is(tmp_path):
    tokenizer = build_word_tokenizer(["a red cube", "two green balls"], minimum_count=1)
    backbone = {"model_type": "resnet", "embedding_size": 4, "hidden_sizes": [6], "depths": [1], "layer_type": "basic"}
    model = scan_model.tiny_model(vocab_size=len(tokenizer), vision_config=backbone)
    model.save_pretrained(tmp_path)
    ScanProcessor(SquareImageProcessorPil(size={"height": 32, "width": 32}), tokenizer).save_pretrained(tmp_path)
    picture, labels = Image.new("RGB", (40, 30), (200, 30, 30)), ["two green balls", "a red cube"]
    classify = pipeline("zero-shot-image-classification", model=str(tmp_path))
    found = classify(picture, candidate_labels=labels, hypothesis_template="{}")
    processor = AutoProcessor.from_pretrained(tmp_path)
    scores = model(**processor(text=labels, images=[picture])).logits_per_image.softmax(dim=-1)[0].tolist()
    assert {row["label"]: row["score"] for row in found} == pytest.approx(dict(zip(labels, scores, strict=True)))


def test_the_table_has_a_line_a_variant():
    lines = variants_text().splitlines()
    assert len(lines) == 81 + 2
    [line] = [line for line in lines if line.startswith("scan-flickr30k-cosine ")]
    assert line.split() == [
        *("scan-flickr30k-cosine", "Cosine", "similarity", "flickr30k", "image-text-matching"),
        *("Sentence", "R@1", "62.4,", "Image", "R@1", "43.9,", "Rsum", "443.7"),
    ]


def test_the_command_prints_the_table(capsys):
    assert cli.main(["variants"]) == 0
    assert capsys.readouterr().out == variants_text()
