"""A page on which models of one or several tasks are tried, two alignment functions side by side.

`vl-alignment demo` serves it, and so does a Space, which carries this file and its siblings: they need neither the rest
of this package nor, but for fetching models, the network.
"""

import html
import json
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware
from transformers import PreTrainedConfig, pipeline

from .findings import find_answers, find_drawings, find_matches, find_read_answers
from .limits import (
    LIMITS,
    MOST_PICTURES,
    SESSIONS,
    UPLOAD_BYTES,
    WAITING,
    RequestLimit,
    answer_in_time,
    begin_turn,
    checked_captions,
    checked_text,
    open_picture,
    printed_words,
)
from .markup import Shown, look, message

__all__ = ["build_app", "serve"]

logger = logging.getLogger(__name__)

PIPELINE_OF = {
    "scan": "image-text-matching",
    "mac": "clevr-question-answering",
    "m4c": "text-visual-question-answering",
    "attngan": "text-to-image-attngan",
}
LOADED_MODELS = 8
ABOUT = (
    "One model, and one line of it exchanged: the function that scores a word against a region of the picture. "
    "Choose two functions to see them side by side."
)
TITLE = "Alignment functions between words and pictures"
NOTHING = "nothing"
# The same word is chosen in the panel beside.
CHOOSE_TOGETHER = """element.addEventListener("change", (event) => {
  for (const input of element.querySelectorAll("input")) if (input.value === event.target.value) input.checked = true;
});"""
FONTS = ("ui-sans-serif", "system-ui", "sans-serif")
MONOSPACED = ("ui-monospace", "Consolas", "monospace")


@dataclass(frozen=True)
class Model:
    """A model that can be chosen: a repository's name or a folder, and what its configuration says."""

    name: str
    model_type: str
    alignment_function: str

    @property
    def short_name(self) -> str:
        """The name without its owner; of a run's model that of the run."""
        return Path(self.name.removesuffix("/model")).name


@lru_cache(LOADED_MODELS)
def load(name: str, model_type: str) -> Any:
    """Load a model's pipeline, with the code that its repository brings."""
    task: Any = PIPELINE_OF[model_type]  # pipeline() is declared for the library's own names alone
    return pipeline(task, model=name, trust_remote_code=True)


def panel(model: Model, find: Callable[[Any], Shown]) -> str:
    """Return what one model finds, or what is wrong."""
    try:
        loaded = load(model.name, model.model_type)
        begun = time.perf_counter()
        shown = find(loaded)
        seconds = time.perf_counter() - begun
        found = look(shown)
    except (ValueError, OSError) as error:  # what the models, the pipelines and the Hub's client say on purpose
        logger.warning("%s: %s", model.name, error)
        return f"<section>{_heading(model)}{message(_first_line(error))}</section>"
    except Exception as error:
        logger.exception("%s failed", model.name)
        text = f"A fault of ours ({type(error).__name__}); the server's log says more."
        return f"<section>{_heading(model)}{message(text)}</section>"
    equation = _equation(loaded.model)
    return f"<section>{_heading(model, equation, seconds)}{found}</section>"


def panel_in_time(model: Model, find: Callable[[Any], Shown], deadline: float) -> str:
    """Return `panel`, or that it takes too long."""
    try:
        return answer_in_time(deadline, panel, model, find)
    except ValueError as error:
        return f"<section>{_heading(model)}{message(str(error))}</section>"


def _first_line(error: Exception) -> str:
    """Return the first line of what an error says; of the traceback that a pipeline puts into its own, the last."""
    text = str(error).strip()
    if "Traceback" in text:
        text = text.rpartition("\n")[2].partition(": ")[2]
    return text.partition("\n")[0]


def _equation(model: Any) -> str:
    """Look the function up in the table that lies beside the model's code, in this package or in its repository."""
    table = sys.modules[f"{type(model).__module__.rpartition('.')[0]}.alignment"]
    return table.alignment_specification(model.config.alignment_function).equation


def _heading(model: Model, equation: str | None = None, seconds: float | None = None) -> str:
    formula = f"<code>f(Q, K) = {html.escape(equation)}</code>" if equation else ""
    time_taken = f" · {seconds:.2f}&nbsp;s" if seconds is not None else ""
    function = html.escape(model.alignment_function.replace("_", " "))
    return f"<h3>{function}</h3><p class='about'>{formula} {html.escape(model.short_name)}{time_taken}</p>"


def ask_matches(path: str | None, text: str) -> Callable[[Any], Shown]:
    """Check a picture and captions, one a line."""
    return partial(find_matches, picture=open_picture(path), captions=checked_captions(text))


def ask_answers(path: str | None, question: str) -> Callable[[Any], Shown]:
    """Check a picture and a question."""
    return partial(find_answers, picture=open_picture(path), question=checked_text(question, "a question"))


def ask_read_answers(reader: Any, path: str | None, question: str, table: Any) -> Callable[[Any], Shown]:
    """Check a picture, a question, and the words in the picture, which the reader reads where none are given."""
    picture, asked = open_picture(path), checked_text(question, "a question")
    words, boxes = printed_words(table)
    return partial(find_read_answers, picture=picture, question=asked, words=words, boxes=boxes, reader=reader)


def ask_drawings(caption: str, number: float | None, seed: float | None) -> Callable[[Any], Shown]:
    """Check a caption, how many pictures to draw, and their seed."""
    if number is None or not 1 <= number <= MOST_PICTURES or seed is None or not 0 <= seed < 2**31:
        raise ValueError(f"Draw 1 to {MOST_PICTURES} pictures, with a seed from 0 to {2**31 - 1}.")
    return partial(find_drawings, caption=checked_text(caption, "a caption"), number=int(number), seed=int(seed))


def _picture_input() -> Any:
    picture = gr.Image(type="filepath", sources=["upload", "clipboard"], label="Picture", height=280)
    # The path as it is: gradio would decode the file, before its size is known. (A subclass would do, but gradio writes
    # a .pyi file beside every module that has one.)
    picture.preprocess = lambda payload: None if payload is None else payload.path  # type: ignore[method-assign]
    return picture


def _matching_inputs() -> list[Any]:
    return [_picture_input(), gr.Textbox(label="Captions, one a line", lines=4, max_lines=12)]


def _question_inputs() -> list[Any]:
    return [_picture_input(), gr.Textbox(label="Question", lines=1, max_lines=3)]


def _reading_inputs(reader: Any) -> list[Any]:
    picture, question = _question_inputs()
    table = gr.Dataframe(
        headers=["word", "left", "top", "right", "bottom"],
        datatype=["str", "number", "number", "number", "number"],
        type="array",
        column_count=5,
        row_count=1,
        label="Words in the picture, with boxes in fractions of its sides",
        max_height=260,
    )
    # What stands in the table belongs to the picture before.
    gr.on([picture.upload, picture.clear], lambda: [[""] * 5], outputs=table, api_visibility="private")
    if reader is not None:

        def read(request: gr.Request, path: str | None) -> list[list[Any]]:
            try:
                found = answer_in_time(begin_turn(_scope(request)), lambda: reader(open_picture(path)))
            except ValueError as error:
                raise gr.Error(str(error), print_exception=False) from error
            pairs = zip(found.tokens, found.boxes.tolist(), strict=True)
            return [[word, *(round(edge, 4) for edge in box)] for word, box in pairs]

        button = gr.Button("Read the words in the picture", size="sm")
        button.click(read, picture, table, api_name="read_words", concurrency_id="model", concurrency_limit=1)
    return [picture, question, table]


def _drawing_inputs() -> list[Any]:
    caption = gr.Textbox(label="Caption", lines=2, max_lines=4)
    with gr.Row():
        number = gr.Slider(1, MOST_PICTURES, value=4, step=1, label="Pictures", min_width=140)
        seed = gr.Number(0, precision=0, label="Seed", min_width=100)
    return [caption, number, seed]


@dataclass(frozen=True)
class Page:
    """How a task looks: its words, its inputs, and what is made of them.

    Attributes:
        title: Of its tab.
        about: What it is, in a sentence.
        button: What its button says, and, in lower case, its name for programs.
        inputs: Lays the inputs out.
        fields: What an example gives for them, in their order.
        ask: Checks their values; what it returns asks a pipeline.
    """

    title: str
    about: str
    button: str
    inputs: Callable[[], list[Any]]
    fields: Sequence[str]
    ask: Callable[..., Callable[[Any], Shown]]


PAGES = {
    "scan": Page(
        "Match captions",
        "How well captions describe a picture, and which places each word matched.",
        "Match",
        _matching_inputs,
        ("image", "captions"),
        ask_matches,
    ),
    "mac": Page(
        "Ask",
        "A question about a picture, and where each step of reasoning looked.",
        "Ask",
        _question_inputs,
        ("image", "question"),
        ask_answers,
    ),
    "m4c": Page(
        "Ask what is written",
        "A question about the words in a picture, and from where each word of the answer was copied.",
        "Read",
        partial(_reading_inputs, None),
        ("image", "question", "words"),
        partial(ask_read_answers, None),
    ),
    "attngan": Page(
        "Draw",
        "Pictures of a caption, and where each of its words went.",
        "Draw",
        _drawing_inputs,
        ("caption", "pictures", "seed"),
        ask_drawings,
    ),
}


def lay_out(page: Page, models: Sequence[Model], examples: Sequence[Sequence[Any]]) -> None:
    """Lay one task's page out, and say what its button does."""
    by_label = {_label(model, models): model for model in models}

    def answer(request: gr.Request, first: str, second: str, *values: Any) -> str:
        try:
            deadline = begin_turn(_scope(request))
            find = page.ask(*values)
        except ValueError as error:
            return message(str(error))
        chosen = [by_label[label] for label in dict.fromkeys((first, second)) if label in by_label]
        return f'<div class="panels">{"".join(panel_in_time(model, find, deadline) for model in chosen)}</div>'

    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            with gr.Row():
                first = gr.Dropdown([*by_label], label="Alignment function", min_width=140)
                second = gr.Dropdown([NOTHING, *by_label], value=NOTHING, label="Beside it", min_width=140)
            inputs = page.inputs()
            button = gr.Button(page.button, variant="primary")
            if examples:
                shown = [place for place, name in enumerate(page.fields) if name != "words"]  # too wide for a table
                gr.Examples(
                    [list(example) for example in examples],
                    inputs,
                    label="Examples from the blocks world",
                    visible_columns=shown,
                )
        with gr.Column(scale=3, min_width=320):
            found = gr.HTML(f'<p class="empty">{page.about}</p>', elem_classes="found", js_on_load=CHOOSE_TOGETHER)
    # A question is sent with Enter as well; captions need the key for the next line.
    events = [button.click] + [box.submit for box in inputs if isinstance(box, gr.Textbox) and box.lines == 1]
    gr.on(
        events,
        answer,
        [first, second, *inputs],
        found,
        api_name=page.button.lower(),
        scroll_to_output=True,  # on a phone it is further down
        concurrency_id="model",
        concurrency_limit=1,
    )


def _scope(request: gr.Request) -> Mapping[str, Any]:
    """What ASGI and `RequestLimit` say of the request with which a visitor joined the queue."""
    return {} if request.request is None else request.request.scope


def _label(model: Model, models: Sequence[Model]) -> str:
    """Name a model by its alignment function, and more where others have the same."""
    label = model.alignment_function.replace("_", " ")
    same = [other for other in models if other.alignment_function == model.alignment_function]
    return f"{label} ({model.short_name})" if len(same) > 1 else label


def read_model(name: str) -> Model:
    """Read what a model is from its configuration, without its weights.

    Raises:
        ValueError: There is no configuration, or the page has nothing for that kind of model.
    """
    try:
        config = PreTrainedConfig.get_config_dict(name)[0]
    except OSError as error:
        raise ValueError(f"{name}: no model's config.json is found there ({_first_line(error)})") from error
    model_type = config.get("model_type")
    if model_type is None:
        raise ValueError(f"{name}: no model's config.json is found there")
    if model_type not in PAGES:
        raise ValueError(f"{name}: there is no page for a model of type {model_type!r}; choose from {', '.join(PAGES)}")
    return Model(str(name), model_type, config["alignment_function"])


def build_app(models: Sequence[str], *, examples: Path | None = None, reader: Any = None) -> gr.Blocks:
    """Build the page.

    Args:
        models: Names of repositories, or folders; each task among them gets a tab.
        examples: A folder with `examples.json` and the pictures it names.
        reader: Reads the words in a picture (PIL); what it returns has `tokens` and `boxes` [n, 4] in [0, 1]. Without
            it they are typed in.

    Raises:
        ValueError: There is no model, or one cannot be used here.
    """
    read = [read_model(str(name)) for name in dict.fromkeys(models)]
    if not read:
        raise ValueError("give at least one model")
    inputs, ask = partial(_reading_inputs, reader), partial(ask_read_answers, reader)
    pages = {**PAGES, "m4c": replace(PAGES["m4c"], inputs=inputs, ask=ask)}
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(3600, 3600)) as app:
        gr.HTML(f"<h1>{TITLE}</h1><p>{ABOUT}</p>", elem_id="heading")
        for task, page in pages.items():
            if own := [model for model in read if model.model_type == task]:
                with gr.Tab(page.title):
                    lay_out(page, own, read_examples(examples, task))
        gr.HTML(f"<p>{LIMITS}</p>", elem_id="limits")
    return app


def read_examples(folder: Path | None, task: str) -> list[list[Any]]:
    """Read a task's examples: the values of its page's fields, pictures as paths."""
    if folder is None:
        return []
    listed = json.loads((folder / "examples.json").read_text(encoding="utf-8"))[task]
    rows = [{**row, "image": str(folder / row["image"])} if "image" in row else row for row in listed]
    return [[row[name] for name in PAGES[task].fields] for row in rows]


def serve(app: gr.Blocks, **options: Any) -> Any:
    """Serve a page without asking anything of other servers; `options` are those of gradio's `launch`."""
    return app.queue(max_size=WAITING).launch(
        theme=_theme(),
        css_paths=Path(__file__).with_name("app.css"),
        max_file_size=UPLOAD_BYTES,
        app_kwargs={"middleware": [Middleware(RequestLimit)]},
        share=False,
        ssr_mode=False,
        state_session_capacity=SESSIONS,
        run_history=False,
        enable_monitoring=False,
        footer_links=[],
        **options,
    )


def _theme() -> gr.themes.Base:
    """Return a theme of the system's own fonts: others would be fetched."""
    theme = gr.themes.Base(primary_hue="sky", neutral_hue="slate", font=FONTS, font_mono=MONOSPACED)
    filled, hovered = "*primary_700", "*primary_800"
    return theme.set(
        button_primary_background_fill=filled,
        button_primary_background_fill_dark=filled,
        button_primary_background_fill_hover=hovered,
        button_primary_background_fill_hover_dark=hovered,
    )
