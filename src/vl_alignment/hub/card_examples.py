"""The examples of a card: real inputs with what the model gave for them, of `analysis/run_examples.py`."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..analysis.run_examples import ATTENTION_FILE, EXAMPLES_FILE
from ..data.json_text import parse_json
from ..models.errors import ResultsError

__all__ = ["ATTENTION_FILE", "EXAMPLES_FILE", "Example", "card_pictures", "example_files", "read_examples"]


@dataclass(frozen=True)
class Example:
    """One example.

    Attributes:
        title: A few words.
        image: The file of the picture that was shown; None for a model that draws.
        texts: The captions, the question, or the prompt.
        output: Labels with scores, the best first, or the file of the picture that was drawn.
    """

    title: str
    image: str | None
    texts: tuple[str, ...]
    output: tuple[tuple[str, float], ...] | str

    @property
    def files(self) -> tuple[str, ...]:
        """The pictures it needs."""
        drawn = [self.output] if isinstance(self.output, str) else []
        return (*([self.image] if self.image is not None else []), *drawn)

    def at(self, place: str) -> "Example":
        """The same with pictures in another folder: `place` is empty, or ends with a slash."""
        image = None if self.image is None else f"{place}{self.image}"
        output = f"{place}{self.output}" if isinstance(self.output, str) else self.output
        return replace(self, image=image, output=output)

    def widget(self) -> dict[str, Any]:
        """The example as the Hub's widgets take it: one text, or labels to choose from."""
        entry: dict[str, Any] = {"example_title": self.title}
        if self.image is not None:
            entry["src"] = self.image
        if len(self.texts) == 1:
            entry["text"] = self.texts[0]
        else:
            entry["candidate_labels"] = ", ".join(text.replace(",", "") for text in self.texts)
        if isinstance(self.output, str):
            entry["output"] = {"url": self.output}
        else:
            entry["output"] = [{"label": label, "score": score} for label, score in self.output]
        return entry


def read_examples(folder: Path | None) -> list[Example]:
    """Read the examples beside a run; none where there is no such file.

    Args:
        folder: Of the run; None where there is none.

    Raises:
        ResultsError: The file is no list of examples, or a picture is missing or lies outside of the folder.
    """
    path = None if folder is None else folder / EXAMPLES_FILE
    if folder is None or path is None or not path.exists():
        return []
    try:
        examples = [_example(entry) for entry in parse_json(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ResultsError(
            f"These are no examples ({type(error).__name__}: {error}); remove the file, or write it anew.", path=path
        ) from error
    for name in example_files(examples):
        if Path(name).name != name or not (folder / name).is_file():  # repositories of runs are flat
            raise ResultsError(f"The picture {name!r} of an example is not in the run's folder.", path=path)
    return examples


def example_files(examples: list[Example]) -> list[str]:
    """The pictures of all examples, each once."""
    return list(dict.fromkeys(name for example in examples for name in example.files))


def card_pictures(folder: Path) -> list[Path]:
    """The pictures that the card of a run shows: those of its examples, and that of its attention."""
    names = [*example_files(read_examples(folder)), ATTENTION_FILE]
    return [folder / name for name in names if (folder / name).is_file()]


def _example(entry: dict[str, Any]) -> Example:
    texts = (str(entry["text"]),) if "text" in entry else tuple(str(text) for text in entry["texts"])
    output = entry["output"]
    return Example(
        title=str(entry["title"]),
        image=None if entry.get("image") is None else str(entry["image"]),
        texts=texts,
        output=output if isinstance(output, str) else tuple((str(row["label"]), float(row["score"])) for row in output),
    )
