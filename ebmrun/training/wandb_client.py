"""Weights & Biases, on a leash: its first failure ends it, with one line on stderr, and never the run."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, SupportsFloat

from ebmrun.files import replace

ONLINE_PATIENCE = 5.0  # seconds that a server may take to answer before the run goes on offline
UPLOAD_PATIENCE = 30.0  # seconds that the last upload may take; `wandb sync` sends what is left


@dataclass
class LoggerConfig:
    """Where metrics go besides metrics.csv; `project`, `group` and `tags` are those of Weights & Biases."""

    wandb: bool = True
    project: str = "ebmrun"
    group: str | None = None
    tags: list[str] = field(default_factory=list)


class Client:
    """One run. ``location`` is its page or its offline directory, None where there is neither."""

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
                except Exception as error:  # noqa: BLE001 - whatever fails here, offline needs none of it
                    _warn(f"Weights & Biases is out of reach, so it records offline: {error}")
                    _end_service()  # which would refuse the id of the run that failed
                    wandb.setup(settings)
            self._run = start(mode="offline")
            self.location = str(Path(self._run.dir).parent)

    def log(self, step: int, metrics: Mapping[str, SupportsFloat]) -> None:
        """Sends one row."""
        with self._leash():
            if self._run:
                self._run.log(dict(metrics), step=step)

    def summarise(self, summary: Mapping[str, Any]) -> None:
        """Sends the summary."""
        with self._leash():
            if self._run:
                self._run.summary.update(dict(summary))

    def close(self, failed: bool) -> None:
        """Ends the run, as failed or not."""
        with self._leash():
            if self._run:
                self._run.finish(exit_code=int(failed))

    @contextmanager
    def _leash(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - no failure of the client is worth a run
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


def _warn(message: str) -> None:
    print(f"ebmrun: warning: {' '.join(message.split())}", file=sys.stderr)
