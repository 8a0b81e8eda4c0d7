"""Use repositories of a Hub in a process that cannot import the package: `load_pushed.py WANTED ANSWERS`.

WANTED is JSON, a list of {"repo_id", "revision", "calls", "payload"}: calls of pipelines as [task or null, arguments,
keywords], and what `handler.py` is asked, or null. ANSWERS is written: a list of {"calls", "handler", "weights"}.
"""

import importlib.util
import json
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "models"), str(TESTS / "pipelines")]
from load_remote_code import Blocked  # noqa: E402
from load_remote_pipelines import plain  # noqa: E402


def handled(repo_id, revision, payload):
    """What an endpoint of the repository answers."""
    from huggingface_hub import snapshot_download

    folder = snapshot_download(repo_id, revision=revision)
    description = importlib.util.spec_from_file_location("handler", Path(folder) / "handler.py")
    handler = importlib.util.module_from_spec(description)
    description.loader.exec_module(handler)
    return plain(handler.EndpointHandler(folder)(payload))


def main():
    sys.meta_path.insert(0, Blocked())
    from transformers import AutoConfig, AutoModel, AutoProcessor, pipeline

    answers = []
    for wanted in json.loads(Path(sys.argv[1]).read_text()):
        where = {"revision": wanted["revision"], "trust_remote_code": True}
        model = AutoModel.from_pretrained(wanted["repo_id"], **where)
        config = AutoConfig.from_pretrained(wanted["repo_id"], **where)
        processor = AutoProcessor.from_pretrained(wanted["repo_id"], **where)
        for loaded in (model, config, processor):
            assert type(loaded).__module__.startswith("transformers_modules."), type(loaded)
        calls = []
        for task, arguments, keywords in wanted["calls"]:
            run = pipeline(task, model=wanted["repo_id"], device="cpu", **where)
            calls.append(plain(run(*arguments, **keywords)))
        payload = wanted["payload"]
        answers.append(
            {
                "calls": calls,
                "handler": None if payload is None else handled(wanted["repo_id"], wanted["revision"], payload),
                "weights": float(sum(parameter.double().sum() for parameter in model.parameters())),
            }
        )
    Path(sys.argv[2]).write_text(json.dumps(answers))
    assert not any(name.partition(".")[0] == "vl_alignment" for name in sys.modules)


if __name__ == "__main__":
    main()
