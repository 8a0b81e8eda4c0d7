"""Run pipelines of repositories in a process that cannot import the package: `load_remote_pipelines.py FOLDER ...`.

Reads `calls.json` of each folder, a list of [task or null, arguments, keywords] with pictures as data URLs, and writes
what the pipelines answer to `answers.json`; pictures as the sums of their pixels.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "models"))
from load_remote_code import Blocked  # noqa: E402


def plain(found):
    """What can be written as JSON."""
    import numpy as np
    from PIL import Image

    if isinstance(found, (list, tuple)):
        return [plain(value) for value in found]
    if isinstance(found, dict):
        return {key: plain(value) for key, value in found.items()}
    if isinstance(found, Image.Image):
        return int(np.asarray(found, dtype=np.int64).sum())
    return found.tolist() if isinstance(found, np.ndarray) else found


def main():
    sys.meta_path.insert(0, Blocked())
    from transformers import pipeline

    for folder in map(Path, sys.argv[1:]):
        answers = []
        for task, arguments, keywords in json.loads((folder / "calls.json").read_text()):
            run = pipeline(task, model=str(folder), device="cpu", trust_remote_code=True)
            assert type(run.model).__module__.startswith("transformers_modules."), type(run.model)
            answers.append(plain(run(*arguments, **keywords)))
        (folder / "answers.json").write_text(json.dumps(answers))
    assert not any(name.partition(".")[0] == "vl_alignment" for name in sys.modules)


if __name__ == "__main__":
    main()
