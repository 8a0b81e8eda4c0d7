"""Run the app.py of a Space in a process that cannot import the package: `run_space.py FOLDER`."""

import runpy
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "models"))
from load_remote_code import Blocked  # noqa: E402

if __name__ == "__main__":
    sys.meta_path.insert(0, Blocked())
    sys.path[0] = sys.argv[1]  # as of a script that lies there
    runpy.run_path(str(Path(sys.argv[1]) / "app.py"), run_name="__main__")
