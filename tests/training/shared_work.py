"""What one process and several do alike: tiny trainings of three tasks, an evaluation, an extraction.

Started by torchrun from test_distributed.py: every process prints what it got.
"""

import hashlib
import json
import signal
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])

import datasets  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from accelerate import Accelerator  # noqa: E402
from PIL import Image  # noqa: E402
from tests.training import matching, questions, text_questions, tiny  # noqa: E402

from vl_alignment.data.features import extract_regions  # noqa: E402
from vl_alignment.data.grid_extractor import grid_boxes  # noqa: E402
from vl_alignment.models.configuration_scan import ScanConfig  # noqa: E402
from vl_alignment.models.errors import DataError  # noqa: E402
from vl_alignment.models.hashed_word_vectors import HashedWordVectors  # noqa: E402
from vl_alignment.models.modeling_scan import ScanForImageTextRetrieval  # noqa: E402
from vl_alignment.training import all_pairs  # noqa: E402
from vl_alignment.training.arguments import TrainingSettings  # noqa: E402
from vl_alignment.training.epoch_loop import NonFiniteLossError  # noqa: E402
from vl_alignment.training.interruption import TrainingInterrupted  # noqa: E402
from vl_alignment.training.loop import train  # noqa: E402
from vl_alignment.training.objectives import RetrievalObjective  # noqa: E402
from vl_alignment.training.question_answering import train_question_run  # noqa: E402
from vl_alignment.training.runs import RunDirectory  # noqa: E402
from vl_alignment.training.text_question_answering import train_text_question_run  # noqa: E402

# Dropout draws other numbers on every process: without it the curves are those of one process.
NO_DROPOUT = dict.fromkeys(
    [f"{part}_dropout" for part in ("stem", "word", "question", "read", "memory", "control", "output")], 0.0
)
NO_TEXT_DROPOUT = dict.fromkeys([f"{part}_dropout" for part in ("object", "ocr", "hidden", "attention")], 0.0)
NO_BERT_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
SETTINGS = {"epochs": 2, "batch_size": 4, "decay_epochs": (), "log_every_steps": 1, "device": "cpu"}


class MeanColours:
    """The mean colours of the quarters of pictures."""

    name, version, feature_size, regions = "mean_colours", "1", 3, 4

    def __call__(self, images):
        pixels = np.stack([np.asarray(image.resize((2, 2), Image.Resampling.BOX)) for image in images]) / 255
        boxes = np.broadcast_to(grid_boxes(2, 2), (len(images), 4, 4))
        return pixels.reshape(len(images), 4, 3).astype(np.float32), boxes


def losses(output):
    (run,) = (RunDirectory(path.parent) for path in Path(output).glob("*/history.jsonl"))
    rows = [json.loads(line) for line in run.history.read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


def retrieval(output, **changes):
    result = matching.run_small(output, settings=matching.small_settings(epochs=2, **changes))
    return {"metrics": result["metrics"], "losses": losses(output)}


def question_answering(output):
    data = questions.question_data()
    result = train_question_run(
        data,
        dataset_name="tiny",
        output=output,
        settings=TrainingSettings(**SETTINGS, questions_per_image=2, learning_rate=1e-3),
        model_fields={**questions.TINY, **NO_DROPOUT, "alignment_function": "general_key"},
        region_store=questions.region_store(data),
        command="test",
    )
    return {"metrics": result["metrics"], "losses": losses(output)}


def text_question_answering(output):
    data = text_questions.text_question_data()
    fields = {**text_questions.TINY, **NO_TEXT_DROPOUT, "alignment_function": "general_key"}
    result = train_text_question_run(
        data,
        dataset_name="tiny",
        output=output,
        settings=TrainingSettings(**SETTINGS, learning_rate=1e-3),
        model_fields={**fields, "text_config": {**text_questions.TEXT_CONFIG, **NO_BERT_DROPOUT}},
        region_store=text_questions.text_region_store(data),
        minimum_count=1,
        answer_words=6,
        word_vectors=HashedWordVectors(8),
        max_ocr_tokens=5,
        ocr={"source": "true"},
        command="test",
    )
    return {"metrics": result["metrics"], "losses": losses(output)}


def evaluation():
    """All pairs of 9 pictures and 18 captions in 5 blocks of pictures."""
    largest, all_pairs.IMAGES_PER_SHARD = all_pairs.IMAGES_PER_SHARD, 2
    try:
        data, store = matching.matching_data()
        task = RetrievalObjective(data, matching.word_tokenizer(), matching.small_settings(), region_store=store)
        torch.manual_seed(0)
        config = ScanConfig(
            vocab_size=matching.VOCABULARY, feature_size=matching.FEATURES, hidden_size=16, word_embedding_size=8
        )
        model, accelerator = ScanForImageTextRetrieval(config), Accelerator(cpu=True)
        scores = task.similarity(model, "test", np.arange(18), accelerator)
        return {"metrics": task.evaluate(model, "test", accelerator).metrics, "scores": scores.tolist()}
    finally:
        all_pairs.IMAGES_PER_SHARD = largest


def pictures(folder, count=23):
    """So many pictures of random colours as files, one of them broken."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for number in range(count):
        pixels = random.integers(256, size=(4, 4, 3), dtype=np.uint8)
        if not (folder / f"{number:02d}.png").exists():
            Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    (folder / "07.png").write_bytes(b"no picture")
    rows = {"image_id": [f"{number:02d}" for number in range(count)]}
    rows["image"] = [str(folder / f"{name}.png") for name in rows["image_id"]]
    return datasets.DatasetDict({"train": datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())})


def extraction(output, data):
    store = output / "store"
    accelerator = Accelerator(cpu=True)
    sizes = {"batch_size": 2, "images_per_shard": 5, "progress": False}
    extract_regions(data, MeanColours(), store, processes=accelerator, **sizes)
    accelerator.wait_for_everyone()
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(store.iterdir())}


def refusal(output, data):
    """The error of an extraction in which one process alone meets a broken picture."""
    sizes = {"batch_size": 2, "images_per_shard": 5, "progress": False, "maximum_failures": 0}
    try:
        extract_regions(data, MeanColours(), output / "refused", processes=Accelerator(cpu=True), **sizes)
    except DataError as error:
        return str(error)
    return None


def stopped(output):
    """Weights of a training that the last process alone was asked to stop, and that went on, and of a whole one."""
    last = Accelerator(cpu=True).is_last_process
    settings, found = tiny.tiny_settings(checkpoint_every_steps=100), []
    for folder, stop in ((output / "whole", False), (output / "stopped", True)):
        run, objective = RunDirectory(folder), tiny.TinyObjective(settings)
        if stop and last:
            objective.before_loss = {7: lambda: signal.raise_signal(signal.SIGTERM)}
        model, interrupted = tiny.TinyModel(), False
        try:
            train(model, objective, settings, run)
        except TrainingInterrupted:
            interrupted, model = True, tiny.TinyModel(seed=5)
            train(model, tiny.TinyObjective(settings), settings, run)
        found.append([interrupted, *(value.tolist() for value in model.state_dict().values())])
    return found


def not_finite(output):
    """The error of a training whose loss is no number on the first process alone."""
    first = Accelerator(cpu=True).is_main_process
    settings = tiny.tiny_settings()
    objective = tiny.TinyObjective(settings)
    objective.before_loss = {3: lambda: float("nan")} if first else {}
    try:
        train(tiny.TinyModel(), objective, settings, RunDirectory(output / "nan"))
    except NonFiniteLossError as error:
        return str(error)
    return None


def work(output, data):
    output = Path(output)
    return {
        "extraction": extraction(output, data),
        "refusal": refusal(output, data),
        "evaluation": evaluation(),
        "stopped": stopped(output),
        "not finite": not_finite(output),
        "retrieval": retrieval(output / "retrieval"),
        "own negatives": retrieval(output / "own", gather_negatives=False),
        "question answering": question_answering(output / "questions"),
        "text question answering": text_question_answering(output / "text"),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    state = Accelerator(cpu=True)
    assert state.num_processes == int(sys.argv[3])
    done = work(sys.argv[2], pictures(Path(sys.argv[4])))
    # At once: the processes share the pipe.
    sys.stdout.write(json.dumps({"rank": state.process_index, **done}) + "\n")
    sys.stdout.flush()
    state.end_training()
