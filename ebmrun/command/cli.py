"""The command `ebmrun`: Hydra composes, `experiment.run` does the rest, and every error ends here."""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor
from contextlib import nullcontext, suppress
from io import TextIOWrapper
from itertools import pairwise
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from ebmrun.command import completion, help
from ebmrun.command.messages import complaint, one_line, plain_warnings, say
from ebmrun.command.sweep import record_failure, record_held
from ebmrun.config import forget_inherited, resolved, typed  # which registers the schema of the configuration
from ebmrun.errors import ConfigError, Held, RunError
from ebmrun.training import folder
from ebmrun.training.interrupts import termination
from ebmrun.training.launch import leads
from ebmrun.training.run_name import among, run_name

PACKAGE = Path(__file__).parents[1]
CONF = next(path for path in (PACKAGE / "conf", PACKAGE.parent / "conf") if path.is_dir())
GROUPS = sorted(
    path.name for path in CONF.iterdir() if path.is_dir() and path.name not in ("hydra", "__pycache__")
)

made: list[Path] = []  # the folders that this command makes, outermost first


def main() -> None:
    """Run the command with the arguments in `sys.argv`.

    Raises:
        SystemExit: 2 for a configuration that cannot be run, 1 for a run that failed or that another process is
            writing, 130 for an interrupt, 143 for a SIGTERM. Several runs go on past one that fails, and then end in
            the smallest status among those that failed.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors instead of printing them
    own = Path("conf")
    if own.is_dir() and not own.samefile(CONF):
        sys.argv[1:1] = ["--config-dir", str(own)]  # first, so that one on the command line replaces it
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda word: word not in ("-m", "--multirun"))  # Hydra knows it in front
    made.clear()
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # a log of a sweep then shows what has ended
    try:
        if (said := answer(sys.argv[1:])) is not None:
            print(said)
            return
        require_names(sys.argv[1:])
        # Another process of `torchrun` may wait, deaf to SIGTERM, for the first.
        with plain_warnings(), termination() if leads() else nullcontext():
            hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(task)()
    except (HydraException, OmegaConfBaseException, YAMLError, OSError, ValueError) as error:
        # A run's own errors end in `task`: what arrives here was raised on the way to one.
        say(complaint(error, GROUPS), 2)
        raise SystemExit(2) from None
    except (TypeError, AttributeError, AssertionError) as error:  # Hydra's own, over values it does not foresee
        say(f"cannot compose the configuration ({one_line(error)}): a group takes the name of one of its options", 2)
        raise SystemExit(2) from None
    except BrokenExecutor:
        say("a process of the sweep was killed, perhaps for want of memory, and the others with it: the same command "
            "with the same hydra.sweep.dir goes on from there")
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    finally:
        remove_unused()


def answer(words: Sequence[str]) -> str | None:
    """What a question about the command itself is answered with; None for a run. Raises ConfigError."""
    folders = [CONF, *(Path(folder) for flag, folder in pairwise(words) if flag in ("--config-dir", "-cd"))]
    if {"-h", "--help"} & set(words):
        return help.text(folders)
    if "--completion" not in [word.partition("=")[0] for word in words]:
        return None
    shell = words[-1].rpartition("=")[2]
    if shell == "query":
        line = os.environ.get("COMP_LINE", "ebmrun ")
        return "\n".join(completion.choices(line, CONF, help.options(folders)))
    return completion.script(shell)


def require_names(words: Sequence[str]) -> None:
    """Raises ConfigError for a word that gives a group anything but names."""
    for word in filter(unnamed, words):
        raise ConfigError(f"{word}: a group takes the name of one of its options, as in algo=pc; add -m for a run of "
                          "each of several, as in algo=bp,pc")


def unnamed(word: str) -> bool:
    """Whether an override gives a group anything but names: a list (Hydra would merge its options), a number, null,
    true, false or nothing; or removes the group."""
    group = word.lstrip("+~").partition("=")[0]
    no_name = r"^~|[=,](\[.*|null|true|false|nan|-?inf|-?[\d.][\d.e-]*)?(,|$)"
    return group in GROUPS and re.search(no_name, word) is not None


def task(cfg: DictConfig) -> None:
    """One run, in the folder that Hydra made for it or in the one to resume; its errors become a line and a status."""
    settings = HydraConfig.get()
    made_dir, several = Path(settings.runtime.output_dir), settings.mode == RunMode.MULTIRUN
    if settings.runtime.cwd not in sys.path:
        sys.path.append(settings.runtime.cwd)  # where a user's own energies lie; last, to shadow nothing
    if several and cfg.logger.name is None:
        cfg.logger.name = run_name(str(cfg.algo.get("name")),
                                   among(settings.overrides.task, settings.callbacks["sweep"]["swept"]))
    try:
        with plain_warnings():  # here, too: this may be a process of a launcher's own
            in_folder(cfg, made_dir, list(settings.overrides.task), several)
    except Exception as error:  # noqa: BLE001 - of several runs, the others go on
        status, message = judge(error)
        say(f"{made_dir.name}: {message}" if several else message, status)
        if not several:
            raise SystemExit(status) from None
        try:
            if isinstance(error, Held):
                record_held(Path(settings.sweep.dir), made_dir.name, settings.callbacks["sweep"]["command"])
            else:
                record_failure(made_dir, status, message)
        except RunError:  # where a line finds no place, no other run will
            raise SystemExit(status) from None
    finally:
        if several and made_dir.is_dir() and not any(made_dir.iterdir()):
            made_dir.rmdir()


def in_folder(cfg: DictConfig, made_dir: Path, overrides: list[str], several: bool) -> None:
    """The run, once its folder is its own. Of the processes of `torchrun`, the first one holds it for all."""
    forget_inherited(cfg, overrides)
    asked = typed(cfg).resume
    if isinstance(asked, str) and several:
        raise ConfigError(f"resume={asked} is one run's folder, and these are several: give theirs, as "
                          "hydra.sweep.dir=PATH")
    run_dir = Path(asked) if isinstance(asked, str) else made_dir
    if run_dir != made_dir or not leads():
        remove_unused()  # at once: `torchrun` may kill this process at any time
    with folder.locked(run_dir) if leads() and (run_dir == made_dir or run_dir.is_dir()) else nullcontext():
        goes_on = several or bool(cfg.study.get("goes_on"))  # a study of several runs is as a sweep
        cfg.resume = folder.resumes(run_dir, resolved(cfg), goes_on)
        from ebmrun.experiment import run  # only now: torch takes longer to load than all of this

        run(cfg, run_dir, overrides)
        folder.clear(run_dir, [folder.FAILED])


def judge(error: Exception) -> tuple[int, str]:
    """Exit status and line for an error of a run; one that nobody foresaw shows its traceback first."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, (ConfigError, RunError)):
            return 2 if isinstance(cause, ConfigError) else 1, one_line(cause)
        cause = cause.__cause__
    text = str(error)
    misnamed = (text.startswith(("Error locating target", "Expected a callable target"))
                or "unexpected keyword argument" in text)
    if isinstance(error, OmegaConfBaseException) or isinstance(error, InstantiationException) and misnamed:
        return 2, complaint(error, GROUPS)
    traceback.print_exception(error)
    return 1, f"{type(error).__name__}: {one_line(error)}"


def remove_unused() -> None:
    """Remove the folders that this command made and no run wrote to."""
    for each in reversed(made):
        with suppress(OSError):  # another process of a job may write there, or remove it, at the same time
            if {path.name for path in each.iterdir()} <= {"multirun.yaml"}:
                (each / "multirun.yaml").unlink(missing_ok=True)
                each.rmdir()


class Folders(Callback):
    """Hydra's callback that notes the folders that a command makes."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Before a single run."""
        note(Path(config.hydra.run.dir))

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Before several runs."""
        note(Path(config.hydra.sweep.dir))


def note(folder: Path) -> None:
    """Remember which folders are not there yet, for ``remove_unused``."""
    folder = folder.absolute()
    made.extend(path for path in (*reversed(folder.parents), folder) if not path.exists())
