"""Weights & Biases, on a leash: its first failure ends it, with one line on stderr, and never the run."""

from __future__ import annotations

import logging
import secrets
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, SupportsFloat

from ebmrun.errors import warn
from ebmrun.files import replace

ONLINE_PATIENCE = 5.0  # seconds that a server may take to answer before the run goes on offline
FLUSH_PATIENCE = 5.0  # seconds that its process may take to write the end of an offline run
STEP = "step"  # the axis of what is measured at a batch
EVALUATED = ("test", "val")  # sections of what is measured at the end of an epoch
BLOCK = 32768  # bytes of a block of an offline run's file
UPLOAD_PATIENCE = 30.0  # seconds that the last upload may take; `wandb sync` sends what is left


@dataclass
class LoggerConfig:
    """Where metrics go besides metrics.csv. The others are Weights & Biases' own; null stands for a name of
    what the run sets (in a sweep, of what differs between its runs), the study as the type of its job, and no group."""

    wandb: bool = True
    project: str = "ebmrun"
    name: str | None = None
    job_type: str | None = None
    group: str | None = None
    tags: list[str] = field(default_factory=list)


class Client:
    """One run. ``location`` is its page or its offline directory, None where there is neither. ``columns`` are drawn
    over ``axis``, those of an evaluation over the epoch."""

    def __init__(self, run_dir: Path, config: Mapping[str, Any], logger: LoggerConfig, resume: bool, name: str,
                 columns: Sequence[str], axis: str = STEP) -> None:
        self.location: str | None = None
        self._axis = axis
        self._run: Any = None
        logging.raiseExceptions = False  # its log on a full disk would fill stderr with tracebacks
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
                            name=logger.name or name, job_type=logger.job_type or study(config),
                            config=dict(config), id=_run_id(run_dir, resume), resume="allow", reinit="create_new",
                            settings=settings)
            if mode not in ("offline", "dryrun"):
                try:
                    if wandb.login(prompt=False, verify=False):
                        self.location = self._begin(start(mode="online"), columns).url
                        return
                except Exception as error:  # noqa: BLE001 - whatever fails here, offline needs none of it
                    warn(f"Weights & Biases is out of reach, so it records offline: {error}")
                    _end_service()  # which would refuse the id of the run that failed
                    wandb.setup(settings)
            self.location = str(Path(self._begin(start(mode="offline"), columns).dir).parent)

    def _begin(self, run: Any, columns: Sequence[str]) -> Any:
        self._run = run
        for name, over in axes(columns, self._axis).items():
            if over:
                run.define_metric(name, step_metric=over)
            else:
                run.define_metric(name, hidden=True, summary="none" if name == STEP else None)
        return run

    def log(self, step: int, metrics: Mapping[str, SupportsFloat]) -> None:
        """Sends one row."""
        with self._leash():
            if self._run:
                # At once: a row that waited for the next would reach the summary after the run's own.
                own = {STEP: step} if self._axis == STEP else {}
                self._run.log({**own, **metrics}, step=step, commit=True)

    def summarise(self, summary: Mapping[str, Any]) -> None:
        """Sends the summary."""
        with self._leash():
            if self._run:
                self._run.summary.update(dict(summary))

    def close(self, failed: bool) -> None:
        """Ends the run, as failed or not."""
        with self._leash():
            if self._run:
                offline = self._run.offline
                self._run.finish(exit_code=int(failed))
                for path in Path(self.location).glob("*.wandb") if offline and self.location else ():
                    end = time.monotonic() + FLUSH_PATIENCE
                    while torn(path) and time.monotonic() < end:
                        time.sleep(0.1)
                    if torn(path):
                        warn(f"{path} was cut short, as by a full disk: what Weights & Biases got ends there, and "
                             "metrics.csv has every row")

    @contextmanager
    def _leash(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - no failure of the client is worth a run
            self._run = None
            warn(f"the run goes on without Weights & Biases: {str(error) or type(error).__name__}")
            _end_service()  # whose own farewell at exit would end in a traceback


def axes(columns: Sequence[str], axis: str) -> dict[str, str | None]:
    """What each section of metrics (``train/*``) or single one is drawn over; None for what others are drawn over,
    which comes first."""
    across = [axis, *(["epoch"] if "epoch" in columns else [])]
    found: dict[str, str | None] = dict.fromkeys(across)
    for column in columns:
        section, slash, _ = column.partition("/")
        evaluated = section in EVALUATED and "epoch" in columns
        found.setdefault(f"{section}/*" if slash else column, "epoch" if evaluated else axis)
    return found


def study(config: Mapping[str, Any]) -> str | None:
    """The name of a study from the path of its function: certify of ebmrun.studies.certify.study.run."""
    parts = str(config.get("study", {}).get("run", "")).split(".")
    return next((part for part in reversed(parts) if part not in ("", "run", "study")), None)


def torn(path: Path) -> bool:
    """Whether the file of an offline run ends within a record, or before the one that ends the run.

    It is a log of LevelDB's kind after seven bytes of its own: blocks of 32 KiB, records in chunks that begin with a
    checksum, a length and a type (1 a whole record, 2 to 4 the first, a middle and the last part of one).
    """
    data, at, kind, record, ended = path.read_bytes(), 7, 0, b"", False
    if data and not data.startswith(b":W&B"):
        return False  # a format of another day, of which nothing is known
    while at < len(data):
        if BLOCK - at % BLOCK < 7:  # too little for a chunk's head: filled up with zeros
            at += BLOCK - at % BLOCK
        elif at + 7 > len(data):
            return True
        else:
            length, kind = struct.unpack_from("<HB", data, at + 4)
            record = (b"" if kind in (1, 2) else record) + data[at + 7 : at + 7 + length]
            at += 7 + length
            ended = ended or (kind in (1, 4) and at <= len(data) and _is_exit(record))
    return at != len(data) or kind not in (1, 4) or not ended


def _is_exit(record: bytes) -> bool:
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

    return bool(Record.FromString(record).HasField("exit"))


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
