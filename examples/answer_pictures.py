"""Answer questions about photographs by reading them, from pixels: OCR, the model's own vision, answers with sources.

    python examples/answer_pictures.py --questions data/stvqa/questions.json --images data/stvqa/images \
        --model outputs/m4c/model --output outputs/photographs

The questions are a JSON file with `questions`, a list of {"question_id", "question", "file_path"}, where the paths are
in the folder of the images. Without `--model` the text is only read. `--output` gets

    pictures.jsonl   a line a picture: its text with boxes and confidences, its answers, where each word of them came
                     from (the vocabulary, or which token and where), and the seconds that it took; or why it failed
    summary.json     how many pictures have text, tokens and seconds a picture, where the answers' words came from

Interrupt it and run the same command again: it goes on where it stopped, and tries the failed pictures again.
"""

import argparse
import hashlib
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps
from tqdm.auto import tqdm

from vl_alignment.data.text_recognition import RecognizedText, TextReader, build_text_reader
from vl_alignment.data.word_vectors import FastTextVectors
from vl_alignment.models.decoding_m4c import AnswerWord
from vl_alignment.models.errors import DataError, VlAlignmentError
from vl_alignment.models.modeling_m4c import M4CForQuestionAnswering
from vl_alignment.models.processing_m4c import M4CProcessor


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=Path, required=True, help="JSON file")
    parser.add_argument("--images", type=Path, required=True, help="folder that the questions' paths are in")
    parser.add_argument("--model", type=Path, help="folder of a saved M4C with its processor; without it only OCR")
    parser.add_argument("--fasttext", type=Path, help=".bin or .vec file, for a model that was trained with FastText")
    parser.add_argument("--output", type=Path, required=True, help="folder")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    parser.add_argument("--reader", default="rapidocr", help="OCR plug-in")
    return parser


def read_questions(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The questions about each picture, by its path."""
    try:
        records = json.loads(path.read_text(encoding="utf-8"))["questions"]
        pictures: dict[str, list[dict[str, Any]]] = {}
        for record in records:
            question = {name: record[name] for name in ("question_id", "question")}
            pictures.setdefault(record["file_path"], []).append(question)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"no questions can be read from it ({error!r})", path=path) from error
    return pictures


class Answerer:
    """A model with its processor; without a model it answers nothing."""

    def __init__(self, folder: Path | None, fasttext: Path | None, device: str) -> None:
        self.device, self.model = device, None
        if folder is not None:
            self.model = M4CForQuestionAnswering.from_pretrained(folder).to(device).eval()
            vectors = None if fasttext is None else FastTextVectors(fasttext)
            self.processor = M4CProcessor.from_pretrained(folder, word_vectors=vectors)

    def __call__(
        self, image: Image.Image, questions: list[dict[str, Any]], text: RecognizedText
    ) -> list[dict[str, Any]]:
        if self.model is None:
            return []
        inputs = self.processor(
            text=[question["question"] for question in questions],
            images=[image],
            ocr_tokens=[text.tokens],
            ocr_boxes=[text.boxes],
            ocr_confidences=[text.confidences],
        ).to(self.device)
        found = self.model.generate(**inputs, ocr_tokens=inputs.ocr_tokens).answers
        return [
            {**question, "answer": answer.text, "words": [as_plain(word) for word in answer.words]}
            for question, answer in zip(questions, found, strict=True)
        ]


def weights_hash(folder: Path) -> str:
    """16 digits of a hash of the weights: another model in the same folder does not go on with this one's answers."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def as_plain(word: AnswerWord) -> dict[str, Any]:
    """A word with its source; what was copied also with its token's number and box."""
    plain: dict[str, Any] = {"word": word.word, "source": word.source}
    if word.token is not None and word.box is not None:
        plain.update(token=word.token, box=[round(edge, 6) for edge in word.box])
    return plain


def look_at(path: Path, questions: list[dict[str, Any]], reader: TextReader, answerer: Answerer) -> dict[str, Any]:
    """One picture's line."""
    started = time.perf_counter()
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        return {"failure": f"the picture cannot be read ({error})"}
    text = reader.read(image)
    read = time.perf_counter()
    answers = answerer(image, questions, text)
    seconds = {"reading": read - started, "answering": time.perf_counter() - read}
    return {
        "size": [image.width, image.height],
        **text.to_dict(),
        "answers": answers,
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
    }


def finished_lines(path: Path, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """The lines of an earlier run with the same settings, but for a torn last one and for failures; rewrites them."""
    lines = []
    if path.exists():
        for line in path.read_bytes().split(b"\n")[:-1]:
            lines.append(json.loads(line))
        if lines and lines[0] != settings:
            raise DataError("holds the answers of a run with other settings; give another output", path=path)
    lines = [settings, *(line for line in lines[1:] if "failure" not in line)]
    temporary = path.with_name(path.name + ".new")
    temporary.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    os.replace(temporary, path)
    return lines[1:]


def summarize(settings: dict[str, Any], lines: list[dict[str, Any]]) -> dict[str, Any]:
    """What all pictures together were like."""
    seen = [line for line in lines if "failure" not in line]
    tokens = [len(line["tokens"]) for line in seen]
    answers = [answer for line in seen for answer in line["answers"]]
    sources = [word["source"] for answer in answers for word in answer["words"]]
    summary: dict[str, Any] = {
        **settings,
        "pictures": len(lines),
        "failures": len(lines) - len(seen),
        "pictures_with_text": sum(number > 0 for number in tokens),
    }
    if seen:
        summary["tokens_a_picture"] = {"mean": round(statistics.mean(tokens), 2), **_spread(tokens)}
        for kind in ("reading",) if settings["model"] is None else ("reading", "answering"):
            seconds = [line["seconds"][kind] for line in seen]
            summary[f"{kind}_seconds_a_picture"] = {"mean": round(statistics.mean(seconds), 3), **_spread(seconds)}
    if settings["model"] is not None:
        summary["answers"] = len(answers)
        summary["empty_answers"] = sum(not answer["words"] for answer in answers)
        summary["answers_with_a_copied_word"] = sum(
            any(word["source"] == "ocr" for word in answer["words"]) for answer in answers
        )
        summary["words_from"] = {source: sources.count(source) for source in ("vocabulary", "ocr")}
    return summary


def _spread(numbers: list[float]) -> dict[str, float]:
    return {"median": statistics.median(numbers), "most": max(numbers)}


def run(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(arguments.threads)
    pictures = read_questions(arguments.questions)
    options = {"threads": arguments.threads} if arguments.reader == "rapidocr" else {}
    reader = build_text_reader(arguments.reader, **options)
    answerer = Answerer(arguments.model, arguments.fasttext, arguments.device)
    settings = {
        "reader": reader.name,
        "reader_version": reader.version,
        "model": None if arguments.model is None else str(arguments.model),
        "weights": None if arguments.model is None else weights_hash(arguments.model),
        "device": arguments.device,
        "threads": arguments.threads,
    }
    arguments.output.mkdir(parents=True, exist_ok=True)
    path = arguments.output / "pictures.jsonl"
    lines = finished_lines(path, settings)
    done = {line["file_path"] for line in lines}
    with open(path, "a", encoding="utf-8") as file:
        for name in tqdm([name for name in pictures if name not in done], unit="picture"):
            line = {"file_path": name, **look_at(arguments.images / name, pictures[name], reader, answerer)}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            file.flush()
            lines.append(line)
    summary = json.dumps(summarize(settings, lines), indent=2)
    (arguments.output / "summary.json").write_text(summary + "\n", encoding="utf-8")
    print(summary)


def main(arguments: list[str] | None = None) -> int:
    try:
        run(build_parser().parse_args(arguments))
    except VlAlignmentError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
