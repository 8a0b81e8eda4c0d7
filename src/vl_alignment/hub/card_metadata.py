"""What the Hub refuses of a card's metadata, checked without the network.

The Hub's own check (`ModelCard.validate`) needs a request; what it looks at is known: identifiers of licenses and
tasks, the shape of `model-index`, ids of repositories, and lists that hold text.
"""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.repocard import REGEX_YAML_BLOCK
from huggingface_hub.utils import validate_repo_id

from ..data.yaml_text import parse_yaml
from ..models.errors import HubError

__all__ = ["LICENSES", "PIPELINE_TAGS", "check_card_metadata"]

# https://huggingface.co/docs/hub/repositories-licenses
LICENSES = frozenset(
    """
    apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m
    afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5
    cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0
    cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0
    cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0
    lgpl lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c ms-pl apple-ascl apple-amlr mpl-2.0 odc-by odbl
    openmdw-1.0 openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr deepfloyd-if-license
    fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 gemma unknown other
    """.split()
)
# The Hub's list of tasks, packages/tasks of huggingface.js.
PIPELINE_TAGS = frozenset(
    """
    text-classification token-classification table-question-answering question-answering zero-shot-classification
    translation summarization feature-extraction text-generation text2text-generation fill-mask sentence-similarity
    text-to-speech text-to-audio automatic-speech-recognition audio-to-audio audio-classification
    audio-text-to-text voice-activity-detection depth-estimation image-classification object-detection
    image-segmentation text-to-image image-to-text image-to-image image-to-video unconditional-image-generation
    video-classification reinforcement-learning robotics tabular-classification tabular-regression
    time-series-forecasting text-to-video image-text-to-text image-text-to-image image-text-to-video
    visual-question-answering document-question-answering visual-document-retrieval zero-shot-image-classification
    graph-ml mask-generation zero-shot-object-detection text-to-3d image-to-3d image-feature-extraction
    video-text-to-text video-to-video keypoint-detection any-to-any text-ranking other
    """.split()
)
_LANGUAGE = re.compile(r"[a-z]{2,3}|code|multilingual")


def check_card_metadata(text: str) -> None:
    """Check the metadata of a model card as the Hub does, offline.

    Args:
        text: The card, which begins with its metadata between two lines `---`.

    Raises:
        HubError: The Hub would refuse it; the message names every field and what it holds.
    """
    block = REGEX_YAML_BLOCK.search(text)
    if block is None:
        raise HubError("the card has no metadata; begin it with YAML between two lines ---")
    try:
        metadata = parse_yaml(block.group(2))
    except ValueError as error:
        raise HubError(f"the card's metadata is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(metadata, dict):
        raise HubError(f"the card's metadata is no mapping but {metadata!r:.80}")
    problems = [*_problems(metadata)]
    if problems:
        raise HubError(f"the Hub would refuse the card's metadata: {'; '.join(problem[:300] for problem in problems)}")


def _problems(metadata: Mapping[str, Any]) -> Iterator[str]:
    license_id = metadata.get("license")
    if license_id not in [*LICENSES]:  # a list may be asked for what is not hashable
        yield f"license {license_id!r} is no identifier of the Hub's, such as 'apache-2.0'"
    if license_id == "other" and not metadata.get("license_name"):
        yield "license 'other' needs a license_name"
    tag = metadata.get("pipeline_tag")
    if tag is not None and tag not in [*PIPELINE_TAGS]:
        yield f"pipeline_tag {tag!r} is no task of the Hub's, such as 'visual-question-answering'"
    library = metadata.get("library_name")
    if library is not None and not isinstance(library, str):
        yield f"library_name {library!r} is no text"
    for name in ("tags", "datasets", "metrics"):
        yield from _text_problems(name, metadata.get(name, []))
    for name in ("datasets", "base_model"):
        yield from _id_problems(name, metadata.get(name, []))
    language = metadata.get("language", [])
    for code in language if isinstance(language, list) else [language]:
        if not isinstance(code, str) or not _LANGUAGE.fullmatch(code):
            yield f"language {code!r} is no ISO 639 code, such as 'en'"
    yield from _widget_problems(metadata.get("widget", []))
    yield from _index_problems(metadata.get("model-index", []))


def _text_problems(name: str, values: Any) -> Iterator[str]:
    if not isinstance(values, list):
        yield f"{name} is no list but {values!r}"
    else:
        yield from (f"{name} holds {value!r}, which is no text" for value in values if not isinstance(value, str))


def _id_problems(name: str, values: Any) -> Iterator[str]:
    for value in values if isinstance(values, list) else [values]:
        try:
            validate_repo_id(value)
        except HFValidationError:
            yield f"{name} {value!r} is no id of a repository"


def _widget_problems(widget: Any) -> Iterator[str]:
    if not isinstance(widget, list):
        yield f"widget is no list but {widget!r}"
        return
    for number, example in enumerate(widget):
        if not isinstance(example, dict) or not any(isinstance(example.get(name), str) for name in ("text", "src")):
            yield f"widget[{number}] has neither text nor src"


def _index_problems(index: Any) -> Iterator[str]:
    """Problems of `model-index`: a list of {name, results: [{task, dataset, metrics}]}."""
    if not isinstance(index, list):
        yield f"model-index is no list but {index!r}"
        return
    for place, entry in _mappings("model-index", index):
        if entry is None or not isinstance(entry.get("name"), str) or not entry["name"]:
            yield f"{place} has no name"
        results = (entry or {}).get("results")
        if not isinstance(results, list):
            yield f"{place} has no list of results"
            continue
        for where, result in _mappings(f"{place}.results", results):
            yield from _result_problems(where, result or {})


def _result_problems(where: str, result: Mapping[str, Any]) -> Iterator[str]:
    for part, names in {"task": ("type",), "dataset": ("type", "name")}.items():
        given = result.get(part)
        for name in names:
            if not isinstance(given, dict) or not isinstance(given.get(name), str) or not given[name]:
                yield f"{where} has no {part}.{name}"
    dataset = result.get("dataset")
    revision = dataset.get("revision") if isinstance(dataset, dict) else None
    if revision is not None and not isinstance(revision, str):
        yield f"{where}.dataset.revision {revision!r} is no text"
    metrics = result.get("metrics")
    if not isinstance(metrics, list) or not metrics:
        yield f"{where} has no metrics"
        return
    for place, metric in _mappings(f"{where}.metrics", metrics):
        if metric is None or not isinstance(metric.get("type"), str):
            yield f"{place} has no type"
        value = (metric or {}).get("value")
        if value is None or (isinstance(value, float) and not math.isfinite(value)):
            yield f"{place} has the value {value!r}"


def _mappings(name: str, values: list[Any]) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """Name each element; one that is no mapping is None."""
    for number, value in enumerate(values):
        yield f"{name}[{number}]", value if isinstance(value, dict) else None
