import base64
import csv
import io
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from vl_alignment.analysis.report import render_sections, report_content, write_report
from vl_alignment.models.errors import ResultsError

from .synthetic import make_result

VOID = {"meta", "img", "input", "br", "link", "path", "use"}
# The smallest PNG: one grey pixel.
PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg==")


class Page(HTMLParser):
    """Collect the tags, identifiers and text of a page, and check that every tag is closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], ""
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text += data

    def attributes(self, name):
        return [attributes[name] for _, attributes in self.tags if name in attributes]


@pytest.fixture
def full(tmp_path, results):
    captions = ["a ball <script>alert(1)</script> & more", "two cubes"]
    path = write_report(
        tmp_path / "new" / "folder",
        results,
        title="Blocks <1>",
        controls=[{"name": "Chance", "metrics": {"rsum": 16.0}, "description": "random scores"}],
        pictures=[(captions[0], {"dot": PNG, "general_query": PNG}), (captions[1], {"general_query": PNG})],
        curves={
            results[0]["run_id"]: [{"epoch": 1, "validation": {"rsum": 3.0}}, {"epoch": 2, "validation": {"rsum": 5.0}}]
        },
        notes="Only a test.",
        methods={"Settings": {"batch size": 64}, "Machine": "two cores"},
    )
    return path


def test_one_file_that_asks_for_nothing_outside(full):
    assert full.name == "report.html"
    assert [path.name for path in full.parent.iterdir()] == ["report.html"]
    text = full.read_text(encoding="utf-8")
    page = Page(text)
    for name in ("src", "href", "xlink:href", "srcset", "action", "data"):
        assert all(value.startswith(("data:", "#")) for value in page.attributes(name)), name
    assert not re.findall(r"url\((?!#)", text) and "@import" not in text
    assert set(re.findall(r"https?://[\w./]+", text)) <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert any("default-src 'none'" in content for content in page.attributes("content"))


def test_identifiers_are_unique_and_references_exist(full):
    page = Page(full.read_text(encoding="utf-8"))
    identifiers = page.attributes("id")
    assert len(identifiers) == len(set(identifiers))
    references = page.attributes("aria-labelledby") + [value[1:] for value in page.attributes("xlink:href")]
    assert references and set(references) <= set(identifiers)


def test_two_data_sets_of_one_task_share_a_page(results):
    content = report_content(results)
    page = Page("".join(render_sections(content, prefix=f"{name}-", level=3) for name in ("first", "second")))
    identifiers = page.attributes("id")
    assert len(identifiers) == len(set(identifiers))
    assert {value[1:] for value in page.attributes("xlink:href")} <= set(identifiers)


def test_what_it_says(full):
    page = Page(full.read_text(encoding="utf-8"))
    text = " ".join(page.text.split())
    for part in (
        "Blocks <1>",
        "Rsum above Dot product: General* by 10.0 [7.5, 12.5]",
        "Only a test.",
        "Chance",
        "random scores",
        "blocks: 2,000 train, 200 validation, 200 test images",
        "content hash 0123456789abcdef",
        "0, 1, 2 for every function",
        "batch size: 64",
        "two cores",
        "vl-alignment compare --dataset blocks",
        "torch 2.13.0",
        "abc1234",
        "Flickr30k, published",
    ):
        assert part in text, part
    assert text.count("312.0 ± 6.6") == 2  # in the results and beside the published values


def test_text_of_others_is_escaped(full):
    text = full.read_text(encoding="utf-8")
    assert "<script>alert(1)" not in text
    assert "a ball &lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in text


def test_tables_are_marked_up(full):
    page = Page(full.read_text(encoding="utf-8"))
    scopes = page.attributes("scope")
    # Results, differences, and beside the published values.
    assert scopes.count("row") == 3 + 1 + 2
    assert scopes.count("colgroup") == 2 + 2 + 3
    assert scopes.count("col") == (1 + 1 + 9) + (1 + 2 + 5) + (1 + 9)
    assert all("alt" in attributes for tag, attributes in page.tags if tag == "img")


def test_pictures_of_every_function_can_be_chosen(full):
    page = Page(full.read_text(encoding="utf-8"))
    choices = [attributes for tag, attributes in page.tags if tag == "input"]
    assert [choice["value"] for choice in choices] == ["0", "1"]
    assert ["checked" in choice for choice in choices] == [True, False]
    assert page.attributes("data-function") == ["0", "1", "0", "1"]
    images = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 3
    shown = Image.open(io.BytesIO(base64.b64decode(images[0].removeprefix("data:image/webp;base64,"))))
    assert (shown.format, shown.size) == ("WEBP", (1, 1))
    assert "Not drawn for this function." in page.text


def test_raw_numbers_can_be_saved(full, results):
    page = Page(full.read_text(encoding="utf-8"))
    files = {
        attributes["download"]: base64.b64decode(attributes["href"].split("base64,")[1]).decode()
        for tag, attributes in page.tags
        if tag == "a"
    }
    assert list(files) == ["runs.csv", "table.csv", "results.jsonl"]
    rows = list(csv.DictReader(io.StringIO(files["runs.csv"])))
    assert [float(row["rsum"]) for row in rows] == [result["metrics"]["rsum"] for result in results]
    assert files["results.jsonl"].count("\n") == 6


def test_a_single_run_with_nothing_else(tmp_path):
    path = write_report(tmp_path / "one.html", [make_result("dot", 0)])
    assert path == tmp_path / "one.html"
    page = Page(path.read_text(encoding="utf-8"))
    assert "there are no intervals" in page.text
    assert "300.0 ± -" in " ".join(page.text.split())
    assert not [tag for tag, _ in page.tags if tag in ("script", "img")]


def test_a_folder_that_cannot_be_written_is_named(tmp_path, results):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match="file/report.html: the report cannot be written"):
        write_report(tmp_path / "file", results)


def test_no_results_write_nothing(tmp_path):
    with pytest.raises(ResultsError, match="no finished runs"):
        write_report(tmp_path, [])
    assert not list(tmp_path.iterdir())


def test_the_report_of_question_answering(tmp_path, answer_results):
    answer_results[0]["dataset"]["question_types"] = {"exist": 50, "compare_integer": 150}
    path = write_report(
        tmp_path,
        answer_results,
        controls=[{"name": "majority by type", "metrics": {"accuracy": 44.0}, "description": "one answer a type"}],
        pictures=[("what {color} is it? <red>", {"dot": PNG, "general_query": PNG})],
        curves={answer_results[0]["run_id"]: [{"epoch": 1, "validation": {"accuracy": 50.0}}]},
    )
    source = path.read_text(encoding="utf-8")
    page = Page(source)
    text = " ".join(page.text.split())
    for part in (
        "MAC",
        "Accuracy above Dot product: General* by 5.0 [",
        "Question answering on blocks, percent",
        "Compare integer",
        "Accuracy by depth on blocks",
        "Validation accuracy",
        "Where each step looks",
        "2,000 train, 200 validation, 200 test questions",
        "test questions by type: 25 % exist, 75 % compare integer",
        "By the last function of a question's program",
        "CLEVR, published",
        "Tables 3a and 5",
    ):
        assert part in text, part
    assert "Rsum" not in text and "Ties" not in text
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert images[0]["alt"] == "Reasoning of Dot product about “what {color} is it? <red>”, one row a step."
    identifiers = page.attributes("id")
    assert len(identifiers) == len(set(identifiers)) and "breakdown-caption" in identifiers


@pytest.mark.parametrize(
    ("ocr", "line"),
    [
        ({"source": "true"}, "words in the pictures: the true ones at their true places (an oracle's)"),
        ({"source": "corrupted", "character_error_rate": 0.05}, "(an oracle's), 5% of letters changed"),
        ({"source": "read", "reader": "rapidocr"}, "words in the pictures: read by rapidocr"),
        ({"source": "published"}, "words in the pictures: as published"),
        ({}, "200 test questions"),
    ],
)
def test_the_report_of_question_answering_by_reading(tmp_path, read_answer_results, ocr, line):
    for result in read_answer_results:
        result["dataset"]["ocr"] = ocr
    controls = [{"name": "ceiling", "metrics": {"accuracy": 97.5}, "description": "a perfect reader"}]
    path = write_report(tmp_path, read_answer_results, controls=controls, pictures=[("what is it?", {"dot": PNG})])
    text = " ".join(Page(path.read_text(encoding="utf-8")).text.split())
    for part in (
        line,
        "M4C",
        "Question answering by reading on blocks-text, percent",
        "Accuracy by question family on blocks-text",
        "a perfect reader",
        "What each word of an answer looks at",
        "TextVQA, published",
        "TextVQA's soft accuracy",
    ):
        assert part in text, part
    assert ("words in the pictures:" in text) == bool(ocr)


def test_question_types_without_a_name_are_not_listed(tmp_path, read_answer_results):
    for result in read_answer_results:
        result["dataset"]["question_types"] = {"": 200}
    assert "by type" not in write_report(tmp_path, read_answer_results).read_text(encoding="utf-8")
