"""Keep of a study what its tables, statistics and pages are made of, and go on from there on another machine.

    python benchmarks/keep_study.py outputs/study benchmarks/results/study   # after every session
    cp -r benchmarks/results/study outputs/study                             # before the next one

Weights, checkpoints, logs and features stay behind. Of a run's predictions those columns are kept that comparisons over
test items read. A run that is kept counts as done; what needs its weights (attention, grounding) is made before.
"""

import argparse
import shutil
from pathlib import Path

import pyarrow.parquet

from vl_alignment.analysis.outcomes import OUTCOME_COLUMNS
from vl_alignment.training.runs import load_results, rebuild_results

# What ranks leave nothing to say for.
BESIDE_RANKS = ("score", "prediction")
OF_A_RUN = ("run.json", "history.jsonl", "grounding.json")
OF_A_FUNCTION = ("examples.json", "*.png")  # one seed's are enough for a card
# A part's page is a section of the study's.
LEFT_BEHIND = ("logs", "failures", "controls", ".lock", "report.html")


def keep_predictions(source: Path, target: Path) -> None:
    """Copy what `load_outcomes` reads, small."""
    table = pyarrow.parquet.read_table(source)
    needless = BESIDE_RANKS if "rank" in table.column_names else ()
    columns = [name for name in table.column_names if name in OUTCOME_COLUMNS and name not in needless]
    pyarrow.parquet.write_table(table.select(columns), target, compression="zstd", compression_level=19)


def keep_part(source: Path, target: Path) -> int:
    """Copy one part; return how many runs it has."""
    target.mkdir(parents=True, exist_ok=True)
    rebuild_results(source)
    results = load_results(source)
    if not results:
        return 0
    first_seed = min(result["seed"] for result in results)
    for result in results:
        run, kept = source / result["run_id"], target / result["run_id"]
        if not run.is_dir():
            continue
        kept.mkdir(exist_ok=True)
        names = OF_A_RUN + OF_A_FUNCTION * (result["seed"] == first_seed)
        for path in [path for name in names for path in run.glob(name)]:
            shutil.copy2(path, kept / path.name)
        if (run / "predictions.parquet").exists():
            keep_predictions(run / "predictions.parquet", kept / "predictions.parquet")
    runs = {path.parent.name for path in source.glob("*/run.json")}
    for path in source.iterdir():
        if path.name in runs or path.name in LEFT_BEHIND:
            continue
        if path.is_dir():
            shutil.copytree(path, target / path.name, dirs_exist_ok=True)
        else:
            shutil.copy2(path, target / path.name)
    return len(results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="folder of the study")
    parser.add_argument("kept", type=Path, help="folder for what is kept of it")
    parsed = parser.parse_args()
    for part in sorted(path.parent for path in parsed.study.glob("*/part.json")):
        print(f"{part.name}: {keep_part(part, parsed.kept / part.name)} runs")
    if (parsed.study / "report.html").exists():
        shutil.copy2(parsed.study / "report.html", parsed.kept / "report.html")


if __name__ == "__main__":
    main()
