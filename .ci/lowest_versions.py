"""Print the lowest version of every dependency that pyproject.toml admits, as constraints for pip.

A bound `>=A` becomes `==A`, so that a bound at which nothing was released is noticed. What those packages pull in is
left to pip.
"""

import re
import tomllib
from pathlib import Path

BOUND = re.compile(r"(?P<name>[A-Za-z0-9._-]+)>=(?P<version>[0-9][0-9.]*)")
EXTRAS = ("features", "hdf5", "ocr", "index", "demo", "test", "browser")


def lowest_versions() -> list[str]:
    """Return a line for each dependency of the project and of the extras that its tests use."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements = [
        *project["dependencies"],
        *(one for extra in EXTRAS for one in project["optional-dependencies"][extra]),
    ]
    lines = []
    for requirement in requirements:
        bound = BOUND.match(requirement)
        if bound is None:
            raise SystemExit(f"pyproject.toml: {requirement!r} begins with no lower bound; write it as name>=version")
        marker = requirement.partition(";")[2]
        lines.append(f"{bound['name']}=={bound['version']}" + (f";{marker}" if marker else ""))
    return lines


if __name__ == "__main__":
    print("\n".join(lowest_versions()))
