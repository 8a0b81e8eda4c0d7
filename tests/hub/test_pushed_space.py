"""A Space as it comes from the Hub, opened in a real browser: its page loads every model from the Hub, and answers."""

import pytest
from huggingface_hub import snapshot_download
from tests.pipelines.repositories import TEXTS
from tests.serving.test_demo_browser import DESKTOP, Visit, running_space

from vl_alignment.hub.push import push_study

from .hub_server import OWNER_TOKEN
from .run_folder import write_run

pytestmark = [pytest.mark.hub, pytest.mark.browser, pytest.mark.slow]
PAGES = {"Match captions": "Match", "Ask": "Ask", "Ask what is written": "Read", "Draw": "Draw"}


def test_the_space_of_a_study_shows_one_variant_of_every_model(chromium, client, tmp_path):
    for kind in ("scan", "mac", "m4c", "attngan"):
        write_run(tmp_path / "runs", kind, "additive")
    report = push_study(tmp_path / "runs", "me", space="trial")
    assert report.failures == {} and report.space is not None
    space = snapshot_download(
        report.space.repo_id, repo_type="space", local_dir=tmp_path / "space", cache_dir=tmp_path / "cache"
    )
    variables = {"HF_ENDPOINT": client.url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    variables |= {"HF_HOME": str(tmp_path / "huggingface"), "HF_TOKEN": OWNER_TOKEN}
    with running_space(tmp_path / "space", tmp_path / "log.txt", **variables) as address:
        assert str(space) == str(tmp_path / "space")
        visitor = Visit(chromium, address, DESKTOP)
        for tab, button in PAGES.items():
            visitor.open(tab)
            if tab == "Draw":  # the tiny model knows no word of the example
                visitor.panel.get_by_label("Caption").fill(TEXTS[0])
            else:
                visitor.choose_example()
                visitor.panel.locator(".image-frame img").wait_for()
            visitor.press(button)
            assert visitor.panel.locator(".look .pictures img").count() >= 1, (tmp_path / "log.txt").read_text()
            assert visitor.panel.locator(".message").count() == 0
        visitor.assert_quiet_and_fitting()
        visitor.context.close()
