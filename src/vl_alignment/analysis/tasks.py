"""What the analysis must know of a task, as data: its metrics, its table, its controls, and the words for them.

Tables, findings, charts and the report test no task's name; another task is another entry of `TASKS`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..models.configuration_attngan import AttnGanConfig
from ..models.configuration_m4c import M4CConfig
from ..models.configuration_mac import MacConfig
from ..models.configuration_scan import ScanConfig
from ..models.errors import ResultsError
from .function_classes import FunctionClass, function_classes
from .layout import PAPER_NAMES, Column
from .outcomes import (
    OutcomeReader,
    answer_outcomes,
    drawing_outcomes,
    retrieval_outcomes,
    soft_answer_outcomes,
)
from .statistics import Result

__all__ = ["TASKS", "Breakdown", "Check", "Task", "task_of"]


@dataclass(frozen=True)
class Check:
    """How a value should stand to a control that knows too little, and the sentence for either case.

    Attributes:
        floor: Part of that control's name, in lower case.
        metric: What is compared.
        subject: Part of the names of the controls that must not be better; None for the worst result, which must.
        factor, points: A value is better where it exceeds `factor` times the control plus `points`.
        lower_is_better: Then a value is better where `factor` times it plus `points` is below the control, and ratio
            and gap are the control's against the value.
        above, within: The sentences for a better value and another, with fields name, value, floor, ratio and gap.
    """

    floor: str
    metric: str
    above: str
    within: str
    subject: str | None = None
    factor: float = 1.0
    points: float = 0.0
    lower_is_better: bool = False


@dataclass(frozen=True)
class Breakdown:
    """A second table: the metrics whose names are `prefix` and a number, or a question type of the data set.

    Attributes:
        prefix: What the metrics' names begin with.
        title: Of the columns together.
        by: What the caption calls it.
        of_question_types: Whether the names end with the question types that the results list.
    """

    prefix: str
    title: str
    by: str
    of_question_types: bool = False


@dataclass(frozen=True)
class Task:
    """One task of the study.

    Attributes:
        title: What its tables begin with.
        metric: The name of the metric that decides.
        metric_name: What sentences call it.
        points: What sentences call a difference in it.
        items: What the sizes of a data set count.
        columns: Of the table of results; those that no result has a value for are left out.
        compared: {metric: title} beside the published values.
        published_note: What a reader of the published values should know.
        same_class: Functions whose gaps need an explanation, under the paper's configuration.
        outcomes: Takes the metric apart by test item.
        checks: Of results and controls against controls.
        pictures_title, pictures_text, picture_alt: Of the report's attention pictures.
        methods: Lines of the report's methods.
        breakdown: A second table, where the task has one.
        units: What the numbers of its tables are, for their captions.
        released_functions: Those that the released code computes otherwise; none where that is not known.
    """

    title: str
    metric: str
    metric_name: str
    points: str
    items: str
    columns: tuple[Column, ...]
    compared: Mapping[str, str]
    published_note: str
    same_class: list[FunctionClass]
    outcomes: OutcomeReader
    checks: tuple[Check, ...]
    pictures_title: str
    pictures_text: str
    picture_alt: str
    methods: Mapping[str, str] = field(default_factory=dict)
    breakdown: Breakdown | None = None
    units: str = "percent"
    released_functions: tuple[str, ...] = ()

    @property
    def metric_title(self) -> str:
        """The metric's name at the beginning of a line."""
        return self.metric_name[0].upper() + self.metric_name[1:]


def task_of(results: Sequence[Result]) -> Task:
    """Find the task of `results`, which are all of one.

    Raises:
        ResultsError: There are no results, or they name a task that is not in `TASKS`.
    """
    if not results:
        raise ResultsError("there are no finished runs; run a comparison first")
    name = results[0].get("task")
    if name not in TASKS:
        raise ResultsError(
            f"there is no analysis of the task {name!r}, only of {', '.join(TASKS)}", path=results[0].get("run_id")
        )
    return TASKS[str(name)]


def _names(*functions: str) -> str:
    return ", ".join(PAPER_NAMES[function] for function in functions)


_RECALLS = (("r1", "R@1"), ("r5", "R@5"), ("r10", "R@10"), ("rsum", "Rsum"))

_TIMES_CHANCE = (
    "The lowest sentence-retrieval R@1, that of {name}, is {value:.1f} %, {ratio:.0f} times chance ({floor:.2f} %)."
)

# The released code lays these scores out as [image, word, region] and then reads them as [image, region, word].
_TRANSPOSED = ("general_key", "biased_general_query", "biased_general_key", "activated_general_key")

_RETRIEVAL = Task(
    title="Retrieval",
    metric="rsum",
    metric_name="Rsum",
    points="Rsum points",
    items="images",
    columns=(
        *(Column(f"sentence_retrieval_{name}", title, "Sentence retrieval") for name, title in _RECALLS),
        *(Column(f"image_retrieval_{name}", title, "Image retrieval") for name, title in _RECALLS),
        Column("rsum", "Rsum"),
    ),
    compared={"sentence_retrieval_r1": "Sentence R@1", "image_retrieval_r1": "Image R@1", "rsum": "Rsum"},
    published_note=(
        f"The published rows {_names(*_TRANSPOSED)} come from code that reads their scores along the wrong axes; "
        "released_layout=True repeats that."
    ),
    released_functions=_TRANSPOSED,
    same_class=function_classes(ScanConfig()),
    outcomes=retrieval_outcomes,
    checks=(
        Check(
            floor="chance",
            metric="sentence_retrieval_r1",
            factor=2.0,
            above=_TIMES_CHANCE,
            within=_TIMES_CHANCE,
        ),
        Check(
            floor="chance",
            metric="rsum",
            subject="shuffl",
            factor=2.0,
            above="The control “{name}” has {ratio:.1f} times the Rsum of chance: something leaks, or the test set is "
            "small.",
            within="The control “{name}” falls to chance (Rsum {value:.1f}).",
        ),
    ),
    pictures_title="Where words look",
    pictures_text=(
        "The same test images and captions under every function. Each tile is lit where its word looks, relative to "
        "the word's largest weight, which stands beside the word."
    ),
    picture_alt="Attention of {name} for the words of “{caption}”, one tile a word.",
    methods={"Ties": "A wrong candidate with the same score as the right one ranks before it."},
)

_QUESTION_TYPES = {
    "exist": "Exist",
    "query_attribute": "Query attribute",
    "compare_attribute": "Compare attribute",
    "count": "Count",
    "compare_integer": "Compare integer",
}

_QUESTION_ANSWERING = Task(
    title="Question answering",
    metric="accuracy",
    metric_name="accuracy",
    points="points",
    items="questions",
    columns=(
        Column("accuracy", "Accuracy"),
        *(Column(f"accuracy_{name}", title, "By question type") for name, title in _QUESTION_TYPES.items()),
    ),
    compared={"accuracy": "Accuracy", **{f"accuracy_{name}": title for name, title in _QUESTION_TYPES.items()}},
    published_note=(
        f"{_names('dot', 'scaled_dot', 'general_key')} and {_names('biased_general_key')} are one function in other "
        "coordinates: their published spread, 96.2 to 97.3, comes from initialisation and optimisation."
    ),
    same_class=function_classes(MacConfig()),
    outcomes=answer_outcomes,
    checks=(
        Check(
            floor="image zeroed",
            metric="accuracy",
            points=5.0,
            above="The lowest accuracy, that of {name}, is {value:.1f} %, {gap:.1f} points above that of a model whose "
            "images were zeroed ({floor:.1f} %).",
            within="The lowest accuracy, that of {name}, is {value:.1f} %, and a model whose images were zeroed "
            "reaches {floor:.1f} %: hardly more than the question alone tells.",
        ),
        Check(
            floor="majority",
            metric="accuracy",
            subject="shuffl",
            points=5.0,
            above="The control “{name}” is {gap:.1f} points above the most frequent answer of each question type: "
            "something leaks, or the test set is small.",
            within="The control “{name}” falls to the most frequent answer of each question type or below "
            "({value:.1f} %, and {floor:.1f} %).",
        ),
    ),
    pictures_title="Where each step looks",
    pictures_text=(
        "The same test questions under every function, one row a reasoning step. The words and the picture are lit "
        "where the step looks, relative to its largest share of each, which stands below the words."
    ),
    picture_alt="Reasoning of {name} about “{caption}”, one row a step.",
    methods={
        "Answers": "The answer with the highest score; one that the model does not know counts as wrong.",
        "Question types": "By the last function of a question's program, as in the paper's Table 5.",
    },
    breakdown=Breakdown("accuracy_depth_", "Depth of the question's program", "depth"),
)

# The released code scores keys against queries there, so that its softmax runs over the queries.
_EXCHANGED = ("general_query", "biased_general_query")

_ANSWER_SOURCES = {
    "vocabulary": "Vocabulary",
    "ocr": "Picture",
    "either": "Either",
    "mixed": "Both together",
    "neither": "Neither",
}

_TEXT_QUESTION_ANSWERING = Task(
    title="Question answering by reading",
    metric="accuracy",
    metric_name="accuracy",
    points="points",
    items="questions",
    columns=(
        Column("accuracy", "Accuracy"),
        Column("anls", "ANLS"),
        Column("accuracy_unseen", "All", "Unseen words"),
        Column("accuracy_unseen_up_to_one_hop", "Up to one hop", "Unseen words"),
        *(Column(f"accuracy_hops_{hops}", str(hops), "By hops") for hops in range(3)),
        *(Column(f"accuracy_source_{source}", title, "By answer source") for source, title in _ANSWER_SOURCES.items()),
    ),
    compared={"accuracy": "Accuracy", "anls": "ANLS"},
    published_note=(
        "All but Activated general† are one function in other coordinates: their published spread, 40.7 to 41.9, comes "
        f"from initialisation and optimisation. The rows {_names(*_EXCHANGED)} come from "
        "code in which keys and queries change places; released_layout=True repeats that."
    ),
    released_functions=_EXCHANGED,
    same_class=function_classes(M4CConfig()),
    outcomes=soft_answer_outcomes,
    checks=(
        Check(
            floor="blind",
            metric="accuracy",
            points=5.0,
            above="The lowest accuracy, that of {name}, is {value:.1f} %, {gap:.1f} points above that of a model that "
            "saw neither pictures nor their text ({floor:.1f} %).",
            within="The lowest accuracy, that of {name}, is {value:.1f} %, and a model that saw neither pictures nor "
            "their text reaches {floor:.1f} %: hardly more than the question alone tells.",
        ),
        Check(
            floor="without copying",
            metric="accuracy_unseen",
            points=5.0,
            above="Over words that no training answer has, the lowest accuracy, that of {name}, is {value:.1f} %; a "
            "model that cannot copy reaches {floor:.1f} % there.",
            within="Over words that no training answer has, the lowest accuracy, that of {name}, is {value:.1f} %, and "
            "a model that cannot copy reaches {floor:.1f} % there: copying was not learned.",
        ),
        Check(
            floor="majority",
            metric="accuracy",
            subject="shuffl",
            points=5.0,
            above="The control “{name}” is {gap:.1f} points above the most frequent answer of each question family: "
            "something leaks, or the test set is small.",
            within="The control “{name}” falls to the most frequent answer of each question family or below "
            "({value:.1f} %, and {floor:.1f} %).",
        ),
    ),
    pictures_title="What each word of an answer looks at",
    pictures_text=(
        "The same test questions under every function, one row a word of the answer. Words of the question and of the "
        "picture are shaded where they get more than an equal share of the attention, the mean over layers and heads; "
        "frames around the picture's words are as bright, and the picture is lit where the word looks at its objects. "
        "The frame of a word that was copied stands out."
    ),
    picture_alt="Attention of {name} for the answer to “{caption}”, one row a word.",
    methods={
        "Answers": "Word by word, each time the vocabulary word or the word of the picture with the highest score.",
        "Accuracy": "TextVQA's soft accuracy: an answer that n of ten people gave scores min(1, 0.3 n), after the "
        "official normalisation of answers. ANLS is ST-VQA's, with the threshold 0.5.",
        "Unseen words": "Questions none of whose best answers can be spelled in words of the training answers.",
        "Hops": "Relations that a question follows to what it asks for.",
        "Answer source": "Where all words of the most frequent answer stand: in the model's vocabulary, among the "
        "words read in the picture, in either, some here and some there, or a word of it in neither.",
    },
    breakdown=Breakdown("accuracy_", "By question family", "question family", of_question_types=True),
)


def _closer(metric: str, what: str, floor: str, control: str, factor: float) -> Check:
    """Generated pictures must be closer to real ones than those of a control are, by a factor."""
    found = f"The largest {what}, that of {{name}}, is {{value:.3g}}"
    return Check(
        floor=floor,
        metric=metric,
        factor=factor,
        lower_is_better=True,
        above=f"{found}, {{ratio:.1f}} times below that of {control} ({{floor:.3g}}).",
        within=f"{found}, and that of {control} is {{floor:.3g}}: too little was learned.",
    )


_DISTANCES = {"feature_distance": "feature distance to real pictures", "fid": "FID"}

_TEXT_TO_IMAGE = Task(
    title="Pictures from words",
    metric="r_precision",
    metric_name="R-precision",
    points="points",
    items="pictures",
    units="R-precision and attribute accuracy in percent, of distances and FID the lower is the better",
    columns=(
        Column("r_precision", "R-precision"),
        Column("attribute_accuracy", "Attribute accuracy"),
        Column("feature_distance", "Feature distance", lower_is_better=True, decimals=3),
        Column("inception_score", "IS", decimals=2),
        Column("fid", "FID", lower_is_better=True, decimals=2),
    ),
    compared={"inception_score": "IS", "fid": "FID"},
    # The mask is tiled as (query, batch) over rows ordered (batch, query).
    published_note=(
        "They come from code that masks each picture's words with the padding of another caption of the batch, and "
        f"whose {_names('activated_general_key')} has a sigmoid for CUB; released_layout=True and "
        "alignment_activation='sigmoid' repeat that. Other networks, splits or numbers of pictures give other scores."
    ),
    same_class=function_classes(AttnGanConfig()),
    outcomes=drawing_outcomes,
    checks=(
        *(_closer(*named, "untrained", "an untrained generator", 3.0) for named in _DISTANCES.items()),
        *(_closer(*named, "mean picture", "the mean training picture repeated", 1.0) for named in _DISTANCES.items()),
        Check(
            floor="chance",
            metric="r_precision",
            factor=2.0,
            above="The lowest R-precision, that of {name}, is {value:.1f} %, {ratio:.0f} times chance ({floor:.2f} %). "
            "The generators were trained with the DAMSM that measures it.",
            within="The lowest R-precision, that of {name}, is {value:.1f} %, and chance is {floor:.2f} %: the "
            "pictures do not show what their captions say.",
        ),
        Check(
            floor="chance",
            metric="attribute_accuracy",
            points=10.0,
            above="The lowest attribute accuracy, that of {name}, is {value:.1f} %, {gap:.1f} points above chance.",
            within="The lowest attribute accuracy, that of {name}, is {value:.1f} %, hardly above chance "
            "({floor:.0f} %).",
        ),
        Check(
            floor="chance",
            metric="r_precision",
            subject="shuffl",
            factor=3.0,
            above="The control “{name}” has {ratio:.1f} times the R-precision of chance: something leaks, or the test "
            "set is small.",
            within="The control “{name}” falls to chance (R-precision {value:.1f} %).",
        ),
    ),
    pictures_title="Where words were drawn",
    pictures_text=(
        "The same test captions and the same noise under every function, one row a stage that attends to words: the "
        "picture of the stage, and for each word the places that its meaning was drawn into, relative to the word's "
        "largest weight, which stands beside the word."
    ),
    picture_alt="Picture drawn by {name} of “{caption}”, and where each word was attended to.",
    methods={
        "R-precision": "By DAMSM's codes of pictures and sentences: the own caption among 99 drawn from the others of "
        "the test split. A tie counts against the model.",
        "Attribute accuracy": "A classifier trained on real pictures tells whether a picture fits its own caption "
        "better than one with other attributes; chance is 50 %.",
        "Pictures": "One picture a test caption, by the average of the generator's weights, from noise that follows "
        "from the seed alone: the same for all functions.",
    },
)

TASKS: dict[str, Task] = {
    "retrieval": _RETRIEVAL,
    "question-answering": _QUESTION_ANSWERING,
    "text-question-answering": _TEXT_QUESTION_ANSWERING,
    "text-to-image": _TEXT_TO_IMAGE,
}
