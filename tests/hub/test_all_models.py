"""One variant of every model, from its run to a process without the package: pushed, loaded, asked, served."""

import pytest
from tests.pipelines.load_remote_pipelines import plain
from tests.pipelines.repositories import READ, TASKS, TEXTS
from tests.pipelines.test_remote_pipelines import close
from transformers import pipeline

from vl_alignment.hub.push import push_study

from .clients import load_pushed, picture
from .run_folder import write_run

pytestmark = pytest.mark.hub
PICTURE = picture()
REQUESTS = {
    "scan": ([PICTURE, TEXTS], {"output_attentions": True}, {"image": PICTURE, "text": TEXTS}),
    "mac": ([PICTURE, TEXTS[0]], {"top_k": 2}, {"image": PICTURE, "question": TEXTS[0]}),
    "m4c": ([PICTURE, TEXTS[0]], READ, {"image": PICTURE, "question": TEXTS[0], **READ}),
    "attngan": ([TEXTS[0]], {"num_images": 2, "seed": 3}, TEXTS[0]),
}


@pytest.mark.slow
def test_every_model_answers_the_same_where_the_package_is_not_installed(client, tmp_path):
    runs = {kind: write_run(tmp_path / "runs", kind, "additive") for kind in REQUESTS}
    report = push_study(tmp_path / "runs", "me")
    assert report.failures == {}
    repositories = {kind: report.pushed[run.name].repo_id for kind, run in runs.items()}

    # One of them by transformers' own pipeline as well.
    zero_shot = ["zero-shot-image-classification", [PICTURE], {"candidate_labels": TEXTS, "hypothesis_template": "{}"}]
    wanted, expected = [], []
    for kind, (arguments, keywords, inputs) in REQUESTS.items():
        calls = [[TASKS[kind], arguments, keywords], *([zero_shot] if kind == "scan" else [])]
        payload = {"inputs": inputs}
        wanted.append({"repo_id": repositories[kind], "revision": "main", "calls": calls, "payload": payload})
        folder = str(runs[kind] / "model")
        answers = []
        for task, given, options in calls:
            own = pipeline(task, model=folder, device="cpu")
            answers.append(plain(own(*given, **options)))
        expected.append(answers)
    found = load_pushed(wanted, tmp_path, client.url)
    for kind, answer, here in zip(REQUESTS, found, expected, strict=True):
        assert close(answer["calls"], here), kind

        served = answer["handler"]
        assert isinstance(served, list), served  # a refusal is a dict
        if kind == "attngan":
            assert served[0]["image"].startswith("iVBOR")  # a PNG in base64
        else:
            best = "text" if kind == "scan" else "answer"
            assert served[0][best] == here[0][0][best] and served[0]["score"] == pytest.approx(here[0][0]["score"])
