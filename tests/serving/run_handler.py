"""Answer requests with the handler beside a model, in a process that cannot import the package.

`run_handler.py FOLDER ...` reads `requests.json` of each folder and writes `answers.json`.
"""

import importlib.util
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "models"))
from load_remote_code import Blocked  # noqa: E402


def main():
    sys.meta_path.insert(0, Blocked())
    for folder in map(Path, sys.argv[1:]):
        specification = importlib.util.spec_from_file_location("handler", folder / "handler.py")
        module = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(module)
        handler = module.EndpointHandler()
        assert type(handler.pipeline.model).__module__.startswith("transformers_modules.")
        answers = [handler(request) for request in json.loads((folder / "requests.json").read_text())]
        (folder / "answers.json").write_text(json.dumps(answers))
    assert not any(name.partition(".")[0] == "vl_alignment" for name in sys.modules)


if __name__ == "__main__":
    main()
