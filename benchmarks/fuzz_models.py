"""Valid folders of published files, models, runs and studies for `fuzz_readers.py`, and how each is read whole."""

import argparse
import json
import pickle
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import torch
import transformers
from accelerate import Accelerator
from fuzz_data import write_json, write_picture

from vl_alignment.analysis.grounding_report import read_grounding
from vl_alignment.analysis.resampling import load_outcomes
from vl_alignment.data.vocabulary import build_word_tokenizer
from vl_alignment.hub.card_examples import read_examples
from vl_alignment.hub.card_metadata import check_card_metadata
from vl_alignment.hub.convert import convert_checkpoint
from vl_alignment.hub.model_card import read_controls
from vl_alignment.models.configuration_attngan import AttnGanConfig
from vl_alignment.models.configuration_damsm import DamsmConfig
from vl_alignment.models.configuration_m4c import SPECIAL_ANSWERS, M4CConfig
from vl_alignment.models.configuration_mac import MacConfig
from vl_alignment.models.configuration_scan import ScanConfig
from vl_alignment.models.errors import DataError, HubError, ResultsError
from vl_alignment.models.hashed_word_vectors import HashedWordVectors
from vl_alignment.models.modeling_attngan import AttnGanForTextToImageGeneration
from vl_alignment.models.modeling_damsm import DamsmModel
from vl_alignment.models.modeling_m4c import M4CForQuestionAnswering
from vl_alignment.models.modeling_mac import MacForQuestionAnswering
from vl_alignment.models.modeling_scan import ScanForImageTextRetrieval
from vl_alignment.models.processing_attngan import AttnGanProcessor
from vl_alignment.models.processing_m4c import M4CProcessor
from vl_alignment.models.processing_mac import MacProcessor
from vl_alignment.models.processing_scan import ScanProcessor
from vl_alignment.training.attribute_classifier import load_attribute_classifier
from vl_alignment.training.checkpoints import Checkpoints
from vl_alignment.training.evaluation import load_model
from vl_alignment.training.region_encoder import load_region_encoder
from vl_alignment.training.runs import RunDirectory, load_results, rebuild_results

# Published files


def make_pickle(folder: Path) -> dict[str, str]:
    content = {"words": {"a": 0, "b": 1}, "rows": [[1, 2], [3]], "text": "café", "number": 0.5, "none": [None, True]}
    (folder / "plain.pkl").write_bytes(pickle.dumps(content, protocol=2))
    array = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    (folder / "arrays.pkl").write_bytes(pickle.dumps({"array": array, "number": array[0, 0], "set": {1}}, protocol=4))
    return {"plain.pkl": "pickle", "arrays.pkl": "bytes"}


def published_state() -> dict[str, Any]:
    return {
        "model": {"weight": torch.ones(3, 4), "bias": torch.zeros(3)},
        "epoch": 3,
        "opt": argparse.Namespace(size=4),
    }


def make_torch(folder: Path) -> dict[str, str]:
    torch.save(published_state(), folder / "model.pth")
    torch.save(published_state(), folder / "old.pth", _use_new_zipfile_serialization=False)
    return {"model.pth": "zip", "old.pth": "bytes"}


def _scan_weights(hidden: int = 6, vocabulary: int = 6, regions: int = 4, words: int = 5) -> dict[str, torch.Tensor]:
    shapes = {
        "img_enc.fc.weight": (hidden, regions),
        "img_enc.fc.bias": (hidden,),
        "txt_enc.embed.weight": (vocabulary, words),
        "txt_enc.rnn.weight_ih_l0": (3 * hidden, words),
        "txt_enc.rnn.weight_hh_l0": (3 * hidden, hidden),
        "txt_enc.rnn.bias_ih_l0": (3 * hidden,),
        "txt_enc.rnn.bias_hh_l0": (3 * hidden,),
        "sim_enc.attention_general.weight": (hidden, hidden),
    }
    return {name: torch.zeros(shape) for name, shape in shapes.items()}


def make_scan_checkpoint(folder: Path) -> dict[str, str]:
    weights = _scan_weights()
    parts = [
        {name.partition(".")[2]: tensor for name, tensor in weights.items() if name.startswith(f"{part}.")}
        for part in ("img_enc", "txt_enc", "sim_enc")
    ]
    options = argparse.Namespace(attention_method="general_qwk", cross_attn="t2i", agg_func="Mean", embed_size=6)
    torch.save({"epoch": 12, "model": parts, "best_rsum": 4.5, "opt": options}, folder / "model_best.pth.tar")
    words = {word: number for number, word in enumerate(["<pad>", "<start>", "<end>", "<unk>", "a", "dog"])}
    write_json(folder / "vocab.json", {"word2idx": words, "idx2word": {n: word for word, n in words.items()}, "idx": 6})
    return {"model_best.pth.tar": "zip", "vocab.json": "json"}


def convert(folder: Path, names: Sequence[str], vocabulary: str, **options: Any) -> object:
    files = [folder / name for name in names]
    try:
        return convert_checkpoint(files, folder / "converted", vocabulary=folder / vocabulary, **options)
    finally:
        shutil.rmtree(folder / "converted", ignore_errors=True)


def read_scan_checkpoint(folder: Path) -> object:
    return convert(folder, ["model_best.pth.tar"], "vocab.json")


def make_mac_checkpoint(folder: Path) -> dict[str, str]:
    """Weights under the published names, taken from a tiny model of ours by the converter's own table."""
    from vl_alignment.hub.convert_mac import _LAYERS, _STATES

    answers = {0: "yes", 1: "no"}
    sizes = {"vocab_size": 4, "feature_size": 3, "hidden_size": 4, "word_embedding_size": 4, "grid_size": 2}
    config = MacConfig(cell="pytorch", num_steps=2, alignment_function="dot", id2label=answers, **sizes)
    published = {}
    names = {ours: theirs for theirs, ours in {**_LAYERS, **_STATES}.items()}
    for name, tensor in MacForQuestionAnswering(config).state_dict().items():
        ours = max((place for place in names if name == place or name.startswith(f"{place}.")), key=len, default=None)
        if ours is not None:
            published[names[ours] + name.removeprefix(ours)] = tensor
    for name in ("mac.mem_0", "mac.control_0"):
        published[name] = published[name].reshape(1, -1)
    torch.save(published, folder / "checkpoint_01.model")
    words = {"word_dic": {"is": 1, "it": 2, "?": 3}, "answer_dic": {"yes": 0, "no": 1}}
    (folder / "dic.pkl").write_bytes(pickle.dumps(words, protocol=2))
    return {"checkpoint_01.model": "zip", "dic.pkl": "pickle"}


def read_mac_checkpoint(folder: Path) -> object:
    return convert(folder, ["checkpoint_01.model"], "dic.pkl", alignment_function="dot", fields={"grid_size": 2})


# Models and runs


def make_model(folder: Path) -> dict[str, str]:
    torch.manual_seed(0)
    tokenizer = build_word_tokenizer(["is it a dog ?", "it is"], minimum_count=1)
    sizes = {"vocab_size": len(tokenizer), "feature_size": 4, "hidden_size": 4, "word_embedding_size": 3}
    ScanForImageTextRetrieval(ScanConfig(alignment_function="general_key", **sizes)).save_pretrained(folder)
    ScanProcessor(None, tokenizer).save_pretrained(folder)
    kinds = {"model.safetensors": "safetensors"}
    return {path.name: kinds.get(path.name, "json") for path in sorted(folder.iterdir())}


def make_mac(folder: Path) -> dict[str, str]:
    torch.manual_seed(0)
    tokenizer = build_word_tokenizer(["is it a dog ?", "it is"], minimum_count=1)
    sizes = {"vocab_size": len(tokenizer), "feature_size": 3, "hidden_size": 4, "word_embedding_size": 4}
    config = MacConfig(num_steps=2, grid_size=2, id2label={0: "yes", 1: "no"}, **sizes)
    MacForQuestionAnswering(config).save_pretrained(folder)
    MacProcessor(None, tokenizer).save_pretrained(folder)
    return {"config.json": "json", "tokenizer.json": "json", "processor_config.json": "json"}


def _tokenizer() -> Any:
    torch.manual_seed(0)
    return build_word_tokenizer(["is it a dog ?", "it is"], minimum_count=1)


def _kinds(folder: Path) -> dict[str, str]:
    kinds = {"model.safetensors": "safetensors"}
    return {path.name: kinds.get(path.name, "json") for path in sorted(folder.iterdir()) if path.suffix != ".jinja"}


def make_m4c(folder: Path) -> dict[str, str]:
    tokenizer = _tokenizer()
    text = transformers.BertConfig(
        **{"vocab_size": len(tokenizer), "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2},
        **{"intermediate_size": 4, "max_position_embeddings": 32},
    )
    config = M4CConfig(
        **{"text_config": text, "feature_size": 3, "word_vector_size": 3, "hidden_size": 4, "num_hidden_layers": 1},
        **{"num_attention_heads": 2, "intermediate_size": 4, "pointer_size": 3, "num_decoding_steps": 4},
        **{"id2label": dict(enumerate([*SPECIAL_ANSWERS, "yes", "no"])), "alignment_function": "general_key"},
    )
    M4CForQuestionAnswering(config).save_pretrained(folder)
    M4CProcessor(None, tokenizer, word_vectors=HashedWordVectors(3)).save_pretrained(folder)
    return _kinds(folder)


def _sizes(tokenizer: Any) -> dict[str, Any]:
    sizes = {"vocab_size": len(tokenizer), "word_embedding_size": 3, "hidden_size": 4}
    return {**sizes, "alignment_function": "general_key"}


def make_attngan(folder: Path) -> dict[str, str]:
    tokenizer = _tokenizer()
    own = {"image_size": 16, "num_stages": 2, "noise_size": 2, "conditioning_size": 2, "generator_size": 2}
    config = AttnGanConfig(**_sizes(tokenizer), **own, num_residual_blocks=1, discriminator_size=2)
    AttnGanForTextToImageGeneration(config).save_pretrained(folder)
    AttnGanProcessor(None, tokenizer).save_pretrained(folder)
    return _kinds(folder)


def make_damsm(folder: Path) -> dict[str, str]:
    tokenizer = _tokenizer()
    backbone = transformers.ResNetConfig(embedding_size=4, hidden_sizes=[4, 6], depths=[1, 1], layer_type="basic")
    DamsmModel(DamsmConfig(**_sizes(tokenizer), vision_config=backbone)).save_pretrained(folder)
    AttnGanProcessor(None, tokenizer).save_pretrained(folder)
    return _kinds(folder)


def make_kept(folder: Path) -> dict[str, str]:
    beside = {"metrics": {"accuracy": 50.0}, "seconds": 1.0, "steps": 2, "data_hash": "0123", "settings": {"epochs": 1}}
    both = {"schema_version": 1, "image_size": 8, **beside, "versions": {"torch": "2"}}
    own = {"regions": 4, "feature_size": 3, "label": "any", "vision_config": {"hidden_sizes": [3]}}
    write_json(folder / "region_encoder.json", {**both, **own})
    write_json(folder / "attribute_classifier.json", {**both, "widths": [2]})
    return dict.fromkeys(("region_encoder.json", "attribute_classifier.json"), "json")


def read_kept(folder: Path) -> object:
    return load_region_encoder(folder), load_attribute_classifier(folder)


def read_model(folder: Path) -> object:
    model, processor = load_model(folder)
    try:
        return model, processor(["is it a dog?"])
    except DataError as error:  # speaks of the question, where the vocabulary is whole but has none of its words
        raise DataError(str(error), path=folder) from error


def _result(function: str, seed: int) -> dict[str, Any]:
    return {
        **{"schema_version": 1, "run_id": f"scan-mine-{function}-seed{seed}", "task": "retrieval", "model": "scan"},
        **{"dataset": {"name": "mine", "content_hash": "0123", "train": 2, "validation": 2, "test": 2}, "seed": seed},
        **{"alignment_function": function, "released_layout": False, "metrics": {"rsum": 300.0, "recall": 1}},
        **{"training": {"steps": 1, "epochs": 1, "seconds": 1.0, "device": "cpu", "precision": "no"}},
        **{"versions": {"torch": "2"}, "commit": None, "command": "x", "started": "x", "finished": "y"},
    }


def make_results(folder: Path) -> dict[str, str]:
    result = _result("dot", 0)
    run = RunDirectory(folder / result["run_id"])
    run.check_writable()
    run.write_run({"task": "retrieval"})
    run.write_results(result)
    rebuild_results(folder)
    with (folder / "results.jsonl").open("a") as file:
        file.write(json.dumps(_result("cosine", 1)) + "\n")
    write_json(folder / "controls.json", [{"name": "chance", "description": "random", "metrics": {"rsum": 1.0}}])
    answer = [{"label": "A dog.", "score": 0.5}]
    example = {"title": "A dog", "image": "example.png", "texts": ["A dog."], "output": answer}
    write_json(folder / result["run_id"] / "examples.json", [example])
    write_picture(folder / result["run_id"] / "example.png")
    write_json(folder / result["run_id"] / "grounding.json", {"schema_version": 1})
    names = ("results.json", "run.json", "examples.json", "grounding.json")
    runs = {f"{result['run_id']}/{name}": "json" for name in names}
    return {"results.jsonl": "jsonl", "controls.json": "json", **runs}


def read_results(folder: Path) -> object:
    run = RunDirectory(folder / "scan-mine-dot-seed0")
    rebuilt = folder.parent / "rebuilt"
    shutil.copytree(folder, rebuilt, symlinks=True, ignore_dangling_symlinks=True)
    try:
        read = [read_controls(folder), run.finished, run.read_run(), read_examples(run.path)]
        if (run.path / "grounding.json").exists():
            read.append(read_grounding(run.path / "grounding.json"))
        read += [load_results(folder), rebuild_results(rebuilt), load_results(folder, strict=True)]
        return read
    finally:
        shutil.rmtree(rebuilt, ignore_errors=True)


def make_predictions(folder: Path) -> dict[str, str]:
    directions = ["sentence_retrieval"] * 2 + ["image_retrieval"] * 4
    rows = [
        {"item_id": f"{n}", "direction": direction, "prediction": "a", "reference": "a", "rank": 0, "image_id": "a"}
        for n, direction in enumerate(directions)
    ]
    run = RunDirectory(folder / "scan-mine-dot-seed0")
    run.check_writable()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), run.predictions)
    return {"scan-mine-dot-seed0/predictions.parquet": "bytes"}


def read_predictions(folder: Path) -> object:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        outcomes = load_outcomes(folder, [{**_result("dot", 0), "metrics": {"rsum": 600.0}}])
    if caught:  # what cannot be read is left out of comparisons, with the error as the warning
        raise ResultsError(str(caught[0].message))
    return outcomes


def make_checkpoint(folder: Path) -> dict[str, str]:
    accelerator = Accelerator(cpu=True)
    accelerator.prepare(torch.nn.Linear(2, 2))
    Checkpoints(folder / "checkpoints").save(accelerator, 0, 1, {"step": 1})
    accelerator.free_memory()
    inner = next((folder / "checkpoints").iterdir())
    return {str(path.relative_to(folder)): "json" if path.suffix == ".json" else "bytes" for path in inner.iterdir()}


def read_checkpoint(folder: Path) -> object:
    accelerator = Accelerator(cpu=True)
    accelerator.prepare(torch.nn.Linear(2, 2))
    try:
        return Checkpoints(folder / "checkpoints").load_newest(accelerator)
    finally:
        accelerator.free_memory()


STUDY = """output: outputs/study
processes: 2
parts:
  - name: photographs
    preset: blocks
    seeds: [0, 1]
    functions: [dot, general_key]
    settings: {epochs: 3}
    sizes: {train: 100}
  - preset: blocks-vqa
    seeds: [0]
"""


def make_study(folder: Path) -> dict[str, str]:
    (folder / "study.yaml").write_text(STUDY)
    return {"study.yaml": "yaml"}


CARD = "license: apache-2.0\nlanguage: en\ntags: [a, b]\nlibrary_name: transformers\npipeline_tag: text-to-image\n"


def make_card(folder: Path) -> dict[str, str]:
    (folder / "card.yaml").write_text(CARD)
    return {"card.yaml": "yaml"}


def read_card(folder: Path) -> object:
    text = (
        (folder / "card.yaml").read_text(encoding="utf-8", errors="replace") if (folder / "card.yaml").is_file() else ""
    )
    try:
        return check_card_metadata(f"---\n{text}\n---\nbody\n")
    except HubError as error:  # the card is a text, of no file yet
        raise HubError(str(error), repo_id=str(folder)) from error
