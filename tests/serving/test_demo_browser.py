"""The page in a real browser: what a visitor does and sees, and that it asks nothing of other servers."""

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.pipelines.repositories import TEXTS, tiny_pipeline

from vl_alignment.hub.flat_code import save_with_code
from vl_alignment.serving.space import write_space

pytestmark = pytest.mark.browser

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
PATIENCE = 120_000  # milliseconds, for machines with much to do


class Visit:
    """A visitor's window, which notes requests to other servers and errors on the console."""

    def __init__(self, browser, address, viewport):
        self.context = browser.new_context(viewport=viewport)
        self.outside, self.errors = [], []
        self.window = self.context.new_page()
        self.window.set_default_timeout(PATIENCE)
        self.window.on("request", lambda request: self._note(request.url, address))
        self.window.on("console", lambda line: line.type == "error" and self.errors.append(line.text))
        self.window.on("pageerror", lambda error: self.errors.append(str(error)))
        self.window.goto(address)

    def _note(self, url, address):
        if not url.startswith((address, "data:", "blob:")):
            self.outside.append(url)

    def open(self, tab):
        """Open a task's page; on a phone the tabs that find no room are in a menu."""
        choice = self.window.get_by_role("tab", name=tab, exact=True)
        self.window.get_by_role("tab").first.wait_for()
        if not choice.is_visible():
            self.window.locator(".overflow-menu > button").click()
            choice = self.window.locator(".overflow-dropdown").get_by_text(tab, exact=True)
        choice.click()
        self.panel = self.window.locator("[role=tabpanel]:visible")

    def upload(self, file):
        self.panel.locator("input[type=file]").first.set_input_files(file)
        self.panel.locator(".image-frame img").wait_for()

    def choose_example(self):
        self.panel.locator("tr.tr-body").first.click()

    def choose_beside(self, label):
        self.panel.get_by_label("Beside it").click()
        self.window.get_by_role("option", name=label, exact=True).click()

    def press(self, button):
        """Press a button and wait for what it gives."""
        self.panel.get_by_role("button", name=button, exact=True).click()
        self.panel.locator(".found .look, .found .message").first.wait_for()

    def assert_quiet_and_fitting(self):
        assert not self.outside
        assert not self.errors
        assert self.window.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


@pytest.fixture
def visit(chromium, page):
    visits = []

    def start(viewport=DESKTOP):
        visits.append(Visit(chromium, page, viewport))
        return visits[-1]

    yield start
    for one in visits:
        one.context.close()


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures") / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)).save(path)
    return path


def box_of(located):
    box = located.bounding_box()
    return [round(box[name]) for name in ("x", "y", "width", "height")]


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_a_word_that_is_chosen_lights_the_picture_of_both_functions(visit, picture, viewport):
    visitor = visit(viewport)
    visitor.open("Match captions")
    visitor.upload(picture)
    visitor.choose_beside("general key")
    visitor.panel.get_by_label("Captions, one a line").fill("\n".join(TEXTS))
    visitor.press("Match")
    first, second = visitor.panel.locator(".look").all()
    assert first.locator(".veils:visible img").count() == 0
    first.get_by_text("dog", exact=False).first.click()
    for look in (first, second):
        assert look.locator("input:checked + .word").inner_text().startswith("dog")
        assert box_of(look.locator(".veils:visible img")) == box_of(look.locator(".pictures img"))
    # Keys do as well: the next word.
    visitor.window.keyboard.press("ArrowRight")
    assert not first.locator("input:checked + .word").inner_text().startswith("dog")
    assert first.locator(".veils:visible img").count() == 1
    left, right = box_of(first), box_of(second)
    if viewport is DESKTOP:
        assert left[1] == right[1] and left[0] < right[0]
    else:
        assert left[1] < right[1]
    visitor.assert_quiet_and_fitting()


@pytest.mark.parametrize(
    ("tab", "button", "pictures"), [("Ask", "Ask", 1), ("Ask what is written", "Read", 1), ("Draw", "Draw", 4)]
)
def test_the_other_tasks_answer_their_examples(visit, tab, button, pictures):
    visitor = visit(PHONE)
    visitor.open(tab)
    if tab == "Draw":  # the tiny model knows no word of the example
        visitor.panel.get_by_label("Caption").fill(TEXTS[0])
    else:
        visitor.choose_example()
        visitor.panel.locator(".image-frame img").wait_for()
    visitor.press(button)
    look = visitor.panel.locator(".look")
    assert look.locator(".pictures img").count() == pictures
    if look.locator("label").count() > 1:  # an answer may have no words
        look.locator("label").nth(1).click()
        assert look.locator(".veils:visible img").count() == pictures
    visitor.assert_quiet_and_fitting()


def test_what_cannot_be_taken_is_a_message_and_the_page_goes_on(visit, picture, tmp_path):
    visitor = visit()
    visitor.open("Match captions")
    captions = visitor.panel.get_by_label("Captions, one a line")
    captions.fill("x" * 100_000)
    visitor.press("Match")
    assert visitor.panel.get_by_role("alert").inner_text() == "Choose a picture first."

    large = tmp_path / "large.png"
    large.write_bytes(bytes(20 * 2**20 + 1))
    visitor.panel.locator("input[type=file]").first.set_input_files(large)
    toast = visitor.window.get_by_test_id("toast-body")
    toast.wait_for()
    assert "exceed the maximum allowed size of 20" in toast.inner_text()
    visitor.window.get_by_test_id("toast-close").click()

    visitor.upload(picture)
    visitor.panel.get_by_role("button", name="Match", exact=True).click()
    visitor.panel.get_by_text("The text has 100,000 characters").wait_for()
    markup = "a dog ${alert(1)} {{7*7}} <b onclick='x'>"
    captions.fill(markup)
    visitor.panel.get_by_role("button", name="Match", exact=True).click()
    visitor.panel.locator(".look").wait_for()
    assert visitor.panel.locator(".look input").nth(1).get_attribute("value") == f"{markup} 0"
    assert not visitor.outside


@contextlib.contextmanager
def running_space(folder, log, **variables):
    """Run a Space where the package is not installed, with more environment variables; give its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        "HF_MODULES_CACHE": str(folder.parent / "modules"),
        "GRADIO_SERVER_PORT": str(port),
        **variables,
    }
    command = [sys.executable, Path(__file__).with_name("run_space.py"), folder]
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            with contextlib.suppress(urllib.error.URLError):
                urllib.request.urlopen(f"{address}/config")
                break
            assert process.poll() is None, log.read_text()
            time.sleep(0.5)
        else:
            raise TimeoutError(log.read_text())
        yield address
    finally:
        process.terminate()
        process.wait()


@pytest.mark.slow
def test_a_space_runs_where_the_package_is_not_installed(chromium, picture, tmp_path):
    models = []
    for function in ("additive", "biased_general_key"):
        own = tiny_pipeline("scan", alignment_function=function)
        models.append(str(tmp_path / f"scan-{function}"))
        save_with_code(own.model, own.processor, Path(models[-1]))
    write_space(tmp_path / "space", models, title="Space")
    with running_space(tmp_path / "space", tmp_path / "log.txt") as address:
        visitor = Visit(chromium, address, DESKTOP)
        visitor.open("Match captions")
        visitor.choose_example()
        visitor.panel.locator(".image-frame img").wait_for()
        visitor.choose_beside("biased general key")
        visitor.press("Match")
        assert visitor.panel.locator(".look").count() == 2, (tmp_path / "log.txt").read_text()
        assert "v tanh(W1 Q + W2 K)" in visitor.panel.inner_text()
        visitor.assert_quiet_and_fitting()
        visitor.context.close()
