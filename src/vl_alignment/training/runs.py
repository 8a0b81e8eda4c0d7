"""Where a run keeps its things, and the results of all runs of an output folder.

{output}/{model}-{dataset}-{alignment_function}[-released]-seed{n}/
  run.json, checkpoints/, model/, history.jsonl, predictions.parquet, results.json (written last)
{output}/results.jsonl, one line per finished run
"""

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from huggingface_hub.utils import WeakFileLock

from vl_alignment.data.atomic_files import cannot_write, remove_leftovers, whole_file, whole_folder
from vl_alignment.data.confidential import without_secrets
from vl_alignment.data.json_text import parse_json
from vl_alignment.models.errors import CheckpointError, ConfigurationError, ResultsError

__all__ = [
    "RESULTS_SCHEMA_VERSION",
    "RunDirectory",
    "commit",
    "describe_machine",
    "load_results",
    "model_folder",
    "one_program_at_a_time",
    "read_json_file",
    "rebuild_results",
    "recorded_command",
    "versions",
    "write_file",
    "write_json",
]

RESULTS_SCHEMA_VERSION = 1
RESULT_FIELDS = (
    "schema_version",
    "run_id",
    "task",
    "dataset",
    "model",
    "alignment_function",
    "released_layout",
    "seed",
    "metrics",
    "training",
    "versions",
    "commit",
    "command",
    "started",
    "finished",
)
PACKAGES = ("vl-alignment", "torch", "transformers", "datasets", "accelerate", "evaluate", "numpy")


class NewerResultsError(ResultsError):
    """Results that only a newer version of this package can read."""


class RunDirectory:
    """The folder of one run.

    Args:
        path: Need not exist; nothing is made before something is written.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.run_id = self.path.name
        self.run_file = self.path / "run.json"
        self.checkpoints = self.path / "checkpoints"
        self.model = self.path / "model"
        self.history = self.path / "history.jsonl"
        self.predictions = self.path / "predictions.parquet"
        self.results = self.path / "results.json"

    @classmethod
    def named(
        cls,
        output: Path | str,
        *,
        model: str,
        dataset: str,
        alignment_function: str,
        seed: int,
        released_layout: bool = False,
    ) -> "RunDirectory":
        """Return the run directory of an output folder for these names."""
        released = "-released" if released_layout else ""
        parts = [re.sub(r"[^A-Za-z0-9_.]+", "_", part) for part in (model, dataset, alignment_function)]
        return cls(Path(output) / f"{'-'.join(parts)}{released}-seed{seed}")

    @property
    def finished(self) -> bool:
        """Whether the run has results that can be read."""
        if not self.results.exists():
            return False
        try:
            read_result(self.results)
        except NewerResultsError:
            raise
        except ResultsError as error:
            warnings.warn(f"{error} The run is not taken as finished.", stacklevel=2)
            return False
        return True

    def check_writable(self) -> None:
        """Make the folder.

        Raises:
            ConfigurationError: It cannot be made or written to.
        """
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise ConfigurationError(
                f"The output folder {self.path} cannot be written ({error.strerror}); choose another with --output."
            ) from error
        previous = self.path / ".previous-model"
        if previous.exists() and not self.model.exists():  # stopped in the middle of save_model
            with contextlib.suppress(FileNotFoundError):  # another process of this run was faster
                previous.rename(self.model)

    def write_run(self, description: Mapping[str, Any]) -> None:
        """Write run.json: everything needed to start the run again."""
        write_json(self.run_file, {"schema_version": RESULTS_SCHEMA_VERSION, "run_id": self.run_id, **description})

    def read_run(self) -> dict[str, Any] | None:
        """Return run.json, or None where there is none.

        Raises:
            ResultsError: It cannot be read.
        """
        return read_json_file(self.run_file, "remove the run's folder") if self.run_file.exists() else None

    def read_history(self) -> list[dict[str, Any]]:
        """Return the learning curve, one record a line of history.jsonl; none where there is no such file.

        Raises:
            ResultsError: It cannot be read.
        """
        if not self.history.exists():
            return []
        try:
            rows = [parse_json(line) for line in self.history.read_text(encoding="utf-8").splitlines()]
        except (OSError, ValueError) as error:
            raise ResultsError(f"The learning curve cannot be read ({error}).", path=self.history) from error
        if not all(isinstance(row, dict) for row in rows):
            raise ResultsError("The learning curve cannot be read (a line is no record).", path=self.history)
        return rows

    def save_model(self, model: Any, processor: Any = None) -> None:
        """Replace `model/` by these weights (and processor) in one step.

        Raises:
            CheckpointError: It cannot be written; the earlier weights are still there.
        """
        writing, previous = self.path / ".writing-model", self.path / ".previous-model"
        with whole_folder(self.model, writing, previous, CheckpointError):
            model.save_pretrained(writing)
            if processor is not None:
                processor.save_pretrained(writing)

    def write_predictions(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write predictions.parquet, one row per test item.

        Raises:
            ResultsError: It cannot be written.
        """
        import pyarrow
        import pyarrow.parquet

        with whole_file(self.predictions, ResultsError) as file:
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), file)

    def write_results(self, result: Mapping[str, Any]) -> None:
        """Write results.json, the sign that the run is finished.

        Raises:
            ResultsError: A field of the schema is missing, or the file cannot be written.
        """
        result = {"schema_version": RESULTS_SCHEMA_VERSION, "run_id": self.run_id, **result}
        missing = [name for name in RESULT_FIELDS if name not in result]
        if missing:
            raise ResultsError(f"The fields {missing} are missing.", path=self.results)
        write_json(self.results, {name: result[name] for name in RESULT_FIELDS} | result)
        remove_leftovers(self.path)


def model_folder(path: Path) -> Path:
    """Return the folder of a model, given it or that of its run."""
    return path / "model" if (path / "model" / "config.json").exists() else path


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file that is never seen half written, and holds no tokens.

    Raises:
        ResultsError: It cannot be written; an earlier one is still there.
    """
    with whole_file(path, ResultsError) as file:
        file.write(without_secrets(f"{json.dumps(value, indent=2)}\n").encode())


def read_json_file(path: Path, remedy: str) -> Any:
    """Return the content of a JSON file of results.

    Args:
        path: Of the file.
        remedy: What the message says to do where it is damaged.

    Raises:
        ResultsError: It cannot be read.
    """
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ResultsError(f"Cannot be read ({error}); {remedy}.", path=path) from error


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file of results that is never seen half written, and its folder where there is none.

    Raises:
        ResultsError: It cannot be written; an earlier one is still there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path.parent, error, ResultsError) from error
    with whole_file(path, ResultsError) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def read_result(path: Path) -> dict[str, Any]:
    """Read one results.json.

    Raises:
        ResultsError: It is damaged, incomplete, or of a newer version.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ResultsError(f"Cannot be read ({error}).", path=path) from error
    return _checked(text, path)


def load_results(output: Path | str, *, strict: bool = False) -> list[dict[str, Any]]:
    """Return the results of all finished runs of an output folder, sorted by run_id.

    Lines of `results.jsonl` count too where the run's own folder is not there, as in committed results.

    Args:
        output: The folder, or one `.jsonl` file.
        strict: Whether a damaged file or line is an error; otherwise it is left where it is, with a warning.

    Raises:
        ResultsError: There is no such folder, results of a newer version, or (strict) damaged ones.
    """
    output = Path(output)
    if not output.exists():
        raise ResultsError("There is no such results folder or file.", path=output)
    results: dict[str, dict[str, Any]] = {}
    lines = output if output.is_file() else output / "results.jsonl"
    damaged: list[ResultsError] = []
    if lines.exists():
        for number, line in enumerate(lines.read_text(errors="replace").splitlines(), start=1):
            if line.strip():
                _collect(lambda line=line, number=number: _checked(line, f"{lines}:{number}"), results, damaged)
    if output.is_dir():
        for file in sorted(output.glob("*/results.json")):
            _collect(lambda file=file: read_result(file), results, damaged)
    for error in damaged:
        if strict:
            raise error
        warnings.warn(f"{error} It is left out.", stacklevel=2)
    return [results[run_id] for run_id in sorted(results)]


def rebuild_results(output: Path | str) -> Path:
    """Write `results.jsonl` anew from the runs; a damaged old one is kept as `results.jsonl.damaged`.

    Raises:
        ResultsError: As in `load_results`.
    """
    output = Path(output)
    file = output / "results.jsonl"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        results = load_results(output)
    for warning in caught:
        warnings.warn(warning.message, stacklevel=2)
    if any(str(file) in str(warning.message) for warning in caught):
        shutil.copyfile(file, file.with_suffix(".jsonl.damaged"))
    with whole_file(file, ResultsError) as stream:
        stream.write("".join(json.dumps(result) + "\n" for result in results).encode())
    return file


def _collect(read: Any, results: dict[str, dict[str, Any]], damaged: list[ResultsError]) -> None:
    try:
        result = read()
    except NewerResultsError:
        raise
    except ResultsError as error:
        damaged.append(error)
    else:
        results[result["run_id"]] = result


def _checked(text: str, path: object) -> dict[str, Any]:
    try:
        result = parse_json(text)
    except ValueError as error:
        raise ResultsError(f"Damaged: {error}.", path=path) from error
    if not isinstance(result, dict) or not isinstance(result.get("schema_version"), int):
        raise ResultsError("Damaged: not a result with a schema_version.", path=path)
    if result["schema_version"] > RESULTS_SCHEMA_VERSION:
        raise NewerResultsError(
            f"Written by a newer version of vl-alignment (schema {result['schema_version']}, "
            f"this one reads {RESULTS_SCHEMA_VERSION}); update vl-alignment.",
            path=path,
        )
    missing = [name for name in RESULT_FIELDS if name not in result]
    if missing:
        raise ResultsError(f"Damaged: without {missing}.", path=path)
    run_id = result["run_id"]  # names a folder
    named = isinstance(run_id, str) and Path(run_id).name == run_id != ".."
    if not named or not isinstance(result["metrics"], dict):
        raise ResultsError("Damaged: run_id is no name of a folder, or metrics are no mapping.", path=path)
    return result


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "unknown"
    return found


@cache
def commit() -> str | None:
    """Return the commit of the checkout this package runs from, `-dirty` where it was changed; None if installed.

    Read once a process: the code that runs is what was loaded, whatever is committed while a long comparison goes on.
    """
    package = Path(__file__).resolve().parents[1]

    def git(*arguments: str) -> str:
        call = ["git", "-C", str(package), *arguments]
        return subprocess.run(call, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != package.parents[1]:
            return None  # an environment inside some other repository
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None


@contextlib.contextmanager
def one_program_at_a_time(folder: Path, accelerator: Any = None) -> Iterator[None]:
    """Hold a folder of the cache for the processes of one program; another program that wants it waits.

    Args:
        folder: Need not exist.
        accelerator: Of the program's processes, where there are several.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    main = accelerator is None or accelerator.is_main_process
    with WeakFileLock(f"{folder}.lock") if main else contextlib.nullcontext():
        if accelerator is not None:
            accelerator.wait_for_everyone()
        yield
        if accelerator is not None:
            accelerator.wait_for_everyone()


def recorded_command(arguments: Iterable[str] | None = None) -> str:
    """Return the command as given, without tokens, the program's name alone, folders below home or here short."""
    given = list(sys.argv if arguments is None else arguments)
    if not given:
        return ""
    shortened = [Path(given[0]).name]
    for argument in given[1:]:
        for folder, short in ((f"{Path.cwd()}{os.sep}", ""), (str(Path.home()), "~")):
            if len(folder) > 1:
                argument = argument.replace(folder, short)
        shortened.append(argument)
    quoted = (part if part.startswith("~") and " " not in part else shlex.quote(part) for part in shortened)
    return without_secrets(" ".join(quoted))


def describe_machine() -> dict[str, Any]:
    """Return processor, cores, memory and accelerators, without names of hosts or users."""
    import torch

    machine: dict[str, Any] = {
        "processor": _processor_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        machine["memory_gib"] = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    if torch.cuda.is_available():
        machine["accelerators"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return machine


def _processor_name() -> str:
    import platform

    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
