"""What a run leaves behind: its config, a row per logged step, a summary, and the same in Weights & Biases."""

from __future__ import annotations

import errno
import json
import os
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from numbers import Integral
from pathlib import Path
from types import TracebackType
from typing import Any, SupportsFloat

from omegaconf import OmegaConf

from ebmrun.errors import ConfigError, RunError
from ebmrun.files import replace, writing

ONLINE_PATIENCE = 5.0  # seconds that a server may take to answer before the run goes on offline
UPLOAD_PATIENCE = 30.0  # seconds that the last upload may take; `wandb sync` sends what is left


@dataclass
class LoggerConfig:
    """Where metrics go besides metrics.csv; `project`, `group` and `tags` are those of Weights & Biases."""

    wandb: bool = True
    project: str = "ebmrun"
    group: str | None = None
    tags: list[str] = field(default_factory=list)


class Tracker(AbstractContextManager["Tracker"]):
    """The files of one run, under `run_dir`: .hydra/config.yaml, metrics.csv, summary.json and wandb/.

    Every file is whole at any moment: rows reach the disk one at a time, everything else is replaced at once.
    With `resume_step`, metrics.csv keeps its rows up to that step and drops those after it. Use as a context manager.

    Raises ConfigError where an older metrics.csv has other columns, RunError where the disk refuses.
    Weights & Biases never stops a run: where it fails, one line on stderr says so and the run goes on without it.
    """

    def __init__(self, run_dir: Path, config: Mapping[str, Any], logger: LoggerConfig, columns: Sequence[str],
                 resume_step: int | None = None, overrides: Sequence[str] = ()) -> None:
        self.run_dir = run_dir
        self.columns = ("step", *columns)
        metrics = run_dir / "metrics.csv"
        rows = [] if resume_step is None else _rows_up_to(resume_step, metrics, self.columns)
        with writing(run_dir):
            (run_dir / ".hydra").mkdir(parents=True, exist_ok=True)
        with replace(metrics) as file:
            file.writelines([_line(self.columns), *rows])
        if resume_step is None:
            with writing(run_dir):
                (run_dir / "summary.json").unlink(missing_ok=True)
        for name, value in ("config", dict(config)), ("overrides", list(overrides)):
            with replace(run_dir / ".hydra" / f"{name}.yaml") as file:
                file.write(OmegaConf.to_yaml(OmegaConf.create(value)).encode())
        with writing(metrics):
            self._metrics = metrics.open("ab", buffering=0)
        self._wandb = _Wandb(run_dir, config, logger, resume_step is not None) if logger.wandb else None

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

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write summary.json, strict JSON with sorted keys. Raises RunError where a number in it is not finite."""
        for key, value in summary.items():
            try:
                json.dumps(value, allow_nan=False)
            except ValueError as error:
                raise RunError(f"summary.json: {key}={value} is not finite; look at metrics.csv for the step at which "
                               "the run went wrong") from error
        with replace(self.run_dir / "summary.json") as file:
            file.write(json.dumps(dict(summary), allow_nan=False, indent=2, sort_keys=True).encode() + b"\n")
        if self._wandb:
            self._wandb.summarise(summary)

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

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Does nothing."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        pass


class _Wandb:
    """The Weights & Biases client, on a leash: its first failure ends it, with one line, and never the run."""

    def __init__(self, run_dir: Path, config: Mapping[str, Any], logger: LoggerConfig, resume: bool) -> None:
        self.location: str | None = None
        self._run: Any = None
        with self._leash():
            import wandb

            settings = wandb.Settings(
                silent=True, console="off", symlink=False, disable_git=True, disable_code=True, save_code=False,
                x_disable_stats=True, x_disable_machine_info=True, x_save_requirements=False,
                init_timeout=ONLINE_PATIENCE, finish_timeout=UPLOAD_PATIENCE)
            mode = wandb.setup(settings).settings.mode
            if mode == "disabled":
                return
            start = partial(wandb.init, project=logger.project, group=logger.group, tags=logger.tags, dir=run_dir,
                            config=dict(config), id=_run_id(run_dir, resume), resume="allow", settings=settings)
            if mode not in ("offline", "dryrun"):
                try:
                    if wandb.login(prompt=False, verify=False):
                        self._run = start(mode="online")
                        self.location = self._run.url
                        return
                except Exception as error:  # noqa: BLE001  (whatever fails here, offline needs none of it)
                    _warn(f"Weights & Biases is out of reach, so it records offline: {error}")
                    _end_service()  # which would refuse the id of the run that failed
                    wandb.setup(settings)
            self._run = start(mode="offline")
            self.location = str(Path(self._run.dir).parent)

    def log(self, step: int, metrics: Mapping[str, SupportsFloat]) -> None:
        with self._leash():
            if self._run:
                self._run.log(dict(metrics), step=step)

    def summarise(self, summary: Mapping[str, Any]) -> None:
        with self._leash():
            if self._run:
                self._run.summary.update(dict(summary))

    def close(self, failed: bool) -> None:
        with self._leash():
            if self._run:
                self._run.finish(exit_code=int(failed))

    @contextmanager
    def _leash(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001  (no failure of the client is worth a run)
            self._run = None
            _warn(f"the run goes on without Weights & Biases: {str(error) or type(error).__name__}")
            _end_service()  # whose own farewell at exit would end in a traceback


def _end_service() -> None:
    """End the process through which the client writes and sends; a dead one raises, and may ask for an exit."""
    with suppress(Exception, SystemExit):
        import wandb

        wandb.teardown()


def _run_id(run_dir: Path, resume: bool) -> str:
    """The id under which Weights & Biases knows the run; a resumed run keeps its own."""
    path = run_dir / "wandb" / "run-id"
    if not (resume and path.exists()):
        path.parent.mkdir(exist_ok=True)
        with replace(path) as file:
            file.write(secrets.token_hex(4).encode())
    return path.read_text()


def _rows_up_to(step: int, metrics: Path, columns: Sequence[str]) -> list[bytes]:
    """The complete rows of an older metrics.csv up to a step, as they stand in the file."""
    with writing(metrics):
        lines = metrics.read_bytes().splitlines(keepends=True) if metrics.exists() else []
    complete = [line for line in lines if line.endswith(b"\n")]
    if not complete:
        return []
    if complete[0] != _line(columns):
        header = complete[0].decode(errors="replace").rstrip("\n").split(",")
        missing, new = set(header) - set(columns), set(columns) - set(header)
        differing = [*(f"-{name}" for name in sorted(missing)), *(f"+{name}" for name in sorted(new))]
        raise ConfigError(f"{metrics} has other columns than this run ({', '.join(differing) or 'in another order'}): "
                          "resume with the saved config, or start anew in another run directory")
    try:
        return [row for row in complete[1:] if int(row.split(b",", 1)[0]) <= step]
    except ValueError as error:
        raise ConfigError(f"{metrics} has a row without a step ({error}): mend it, or start anew in another run "
                          "directory") from error


def _line(fields: Sequence[str]) -> bytes:
    return (",".join(fields) + "\n").encode()


def _number(value: SupportsFloat) -> str:
    """The shortest text that reads back as the same number."""
    return str(int(value)) if isinstance(value, Integral) else repr(float(value))


def _warn(message: str) -> None:
    print(f"ebmrun: warning: {' '.join(message.split())}", file=sys.stderr)
