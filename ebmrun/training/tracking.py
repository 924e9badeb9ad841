"""What a run leaves behind: its config, a row per logged step, a summary, and the same in Weights & Biases."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from types import TracebackType
from typing import Any, SupportsFloat

from omegaconf import OmegaConf

from ebmrun.errors import ConfigError, RunError
from ebmrun.files import replace, writing
from ebmrun.training.folder import FAILED, FREE_ON_RESUME, RESULTS, clear
from ebmrun.training.provenance import continued, provenance
from ebmrun.training.run_name import among, run_name
from ebmrun.training.wandb_client import STEP, Client, LoggerConfig


@dataclass(frozen=True)
class Progress:
    """How far a run has come: the ``steps`` of its checkpoint, and the last of them that has a row."""

    steps: int
    last_row: int


class Tracker(AbstractContextManager["Tracker"]):
    """The files of one run, under `run_dir`: .hydra/config.yaml, metrics.csv, summary.json and wandb/.

    Every file is whole at any moment: rows reach the disk one at a time, everything else is replaced at once. A run
    that begins clears the folder of an earlier one; with `resume`, metrics.csv keeps its rows up to the checkpoint's
    step and drops those after it. Use as a context manager.

    `axis` is the column that the others are drawn over in Weights & Biases; without one, the step.

    Raises ConfigError where an older metrics.csv has other columns or ends before the checkpoint, RunError where the
    disk refuses. Weights & Biases never stops a run: where it fails, one line on stderr says so and the run goes on
    without it.
    """

    def __init__(self, run_dir: Path, config: Mapping[str, Any], logger: LoggerConfig, columns: Sequence[str],
                 resume: Progress | None = None, overrides: Sequence[str] = (), axis: str = STEP) -> None:
        self.run_dir = run_dir
        self.columns = ("step", *columns)
        metrics = run_dir / "metrics.csv"
        rows = _rows_up_to(resume, metrics, self.columns) if resume else []
        self.provenance = provenance(config)
        with writing(run_dir):
            (run_dir / ".hydra").mkdir(parents=True, exist_ok=True)
        if resume:
            self.provenance = continued(run_dir, self.provenance)
        clear(run_dir, (FAILED,) if resume else RESULTS)  # the summary of an earlier end stays, and names its steps
        with replace(metrics) as file:
            file.writelines([_line(self.columns), *rows])
        left: dict[str, Any] = {"overrides": list(overrides), "provenance": self.provenance, "config": dict(config)}
        for name, value in left.items():  # the configuration last, for it says that a run has begun
            with replace(run_dir / ".hydra" / f"{name}.yaml") as file:
                file.write(OmegaConf.to_yaml(OmegaConf.create(value)).encode())
        with writing(metrics):
            self._metrics = metrics.open("ab", buffering=0)
        whole = {**config, "provenance": self.provenance}
        free = among(overrides, FREE_ON_RESUME)
        algo = config.get("algo", {}).get("name", run_dir.resolve().name)
        name = run_name(algo, [word for word in overrides if word not in free])
        self._wandb = Client(run_dir, whole, logger, resume is not None, name, columns, axis) if logger.wandb else None

    @property
    def wandb_location(self) -> str | None:
        """The run's page or its offline directory; None without Weights & Biases."""
        return self._wandb.location if self._wandb else None

    def log(self, step: int, metrics: Mapping[str, SupportsFloat]) -> None:
        """Append one row; absent metrics leave their fields empty. Raises KeyError for a key that has no column."""
        if unknown := metrics.keys() - set(self.columns[1:]):
            raise KeyError(f"no column of metrics.csv is called {', '.join(sorted(unknown))}")
        row = _line([str(step), *(_number(metrics[key]) if key in metrics else "" for key in self.columns[1:])])
        whole = self._metrics.tell()
        with writing(self.run_dir / "metrics.csv"):
            if self._metrics.write(row) != len(row):
                self._metrics.truncate(whole)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self._wandb:
            self._wandb.log(step, metrics)

    def finish(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """Write summary.json, strict JSON with sorted keys: what was found, and the provenance. Raises RunError where
        a number in it is not finite."""
        summary = {**found, **{f"provenance/{key}": value for key, value in self.provenance.items()}}
        for key, value in summary.items():
            try:
                json.dumps(value, allow_nan=False)
            except ValueError as error:
                raise RunError(f"summary.json: {key}={value} is not finite; look at metrics.csv for the step at which "
                               "the run went wrong") from error
        with replace(self.run_dir / "summary.json") as file:
            file.write(json.dumps(summary, allow_nan=False, indent=2, sort_keys=True).encode() + b"\n")
        if self._wandb:
            self._wandb.summarise(summary)
        return summary

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._metrics.close()
        if self._wandb:
            self._wandb.close(failed=error is not None)


class Silent(Tracker):
    """A tracker that leaves nothing: of a rehearsal, and of every process but the first."""

    def __init__(self) -> None:
        pass

    def log(self, step: int, metrics: Mapping[str, SupportsFloat]) -> None:
        """Does nothing."""

    def finish(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """Does nothing."""
        return dict(found)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        pass


def _rows_up_to(progress: Progress, metrics: Path, columns: Sequence[str]) -> list[bytes]:
    """The complete rows of an older metrics.csv up to a step, as they stand in the file."""
    step = progress.steps
    if not metrics.exists():
        raise ConfigError(f"{metrics} is gone, and the run's checkpoint is at step {step}: put it back, or start "
                          "anew with resume=false")
    with writing(metrics):
        lines = metrics.read_bytes().splitlines(keepends=True)
    complete = [line for line in lines if line.endswith(b"\n")]
    if complete and complete[0] != _line(columns):
        header = complete[0].decode(errors="replace").rstrip("\n").split(",")
        missing, new = set(header) - set(columns), set(columns) - set(header)
        differing = [*(f"-{name}" for name in sorted(missing)), *(f"+{name}" for name in sorted(new))]
        raise ConfigError(f"{metrics} has other columns than this run ({', '.join(differing) or 'in another order'}): "
                          "resume with the saved config, or start anew in another run directory")
    try:
        steps = [int(row.split(b",", 1)[0]) for row in complete[1:]]
    except ValueError as error:
        raise ConfigError(f"{metrics} has a row without a step ({error}): mend it, or start anew in another run "
                          "directory") from error
    if progress.last_row and progress.last_row not in steps:
        raise ConfigError(f"{metrics} has no row of step {progress.last_row}, and the run's checkpoint is at step "
                          f"{step}: they are of different runs, start anew with resume=false")
    return [row for row, at in zip(complete[1:], steps) if at <= step]


def _line(fields: Sequence[str]) -> bytes:
    return (",".join(fields) + "\n").encode()


def _number(value: SupportsFloat) -> str:
    """The shortest text that reads back as the same number."""
    return str(int(value)) if isinstance(value, Integral) else repr(float(value))
