"""Completion: what a word may become, and a real bash that asks at a TAB."""

import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
from program import ROOT, environment

from ebmrun.command import cli, help
from ebmrun.command.completion import SCRIPTS, choices


def after(line: str) -> list[str]:
    return choices(f"ebmrun {line}", cli.CONF, help.options([cli.CONF]))


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml"))


def test_a_group_offers_its_options_one_by_one() -> None:
    assert after("algo=") == [f"algo={name}" for name in options("algo")]
    assert after("seed=1 cost=sq") == ["cost=squared_error"]
    assert after("-m cost=cross_entropy,") == ["cost=cross_entropy,squared_error"]  # what is there is not offered again


def test_keys_are_offered_level_by_level() -> None:
    assert after("nud") == ["nudge.", "nudge="]
    assert after("nudge.") == [
        "nudge.holds=", "nudge.joint=", "nudge.nodes=", "nudge.points=", "nudge.random_sign=", "nudge.strength=",
        "nudge.weights="]
    assert after("see") == ["seed="] and after("zebra") == [] == after("seed.") == after("nudge.zebra.")
    assert {f"{group}=" for group in cli.GROUPS} <= set(after(""))


def test_the_words_before_decide_which_keys_there_are() -> None:
    assert after("optim=adam optim.be") == ["optim.betas="] and after("optim=sgd optim.be") == []
    assert after("optim=nope optim.mom") == ["optim.momentum="]  # as if it were not there


def test_a_key_offers_its_present_value_or_both_truths() -> None:
    assert after("seed=3 seed=") == ["seed=3"]
    assert after("trainer.compile=") == ["trainer.compile=false", "trainer.compile=true"]
    assert after("arch.hidden=") == [] == after("trainer.max_steps=")  # a list, and null


@pytest.fixture
def command(tmp_path: Path) -> Path:
    """A folder with `ebmrun` in it, and an option of the user's own."""
    (tmp_path / "conf/energy").mkdir(parents=True)
    (tmp_path / "conf/energy/mine.yaml").write_text("_target_: my_energy.Mine\n")
    (tmp_path / "ebmrun").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ebmrun "$@"\n')
    (tmp_path / "ebmrun").chmod(0o755)
    return tmp_path


def test_a_real_bash_completes(command: Path) -> None:
    variables = environment(PATH=f"{command}:{os.environ['PATH']}", PS1="$ ", TERM="dumb")
    master, slave = pty.openpty()
    shell = subprocess.Popen(["bash", "--noprofile", "--norc", "-i"], stdin=slave, stdout=slave, stderr=slave,
                             cwd=command, env=variables, start_new_session=True)

    def said(keys: str, until: str) -> str:
        os.write(master, keys.encode())
        text, end = "", time.monotonic() + 60
        while not re.search(until, text):
            assert time.monotonic() < end, text
            if select.select([master], [], [], 0.1)[0]:
                text += os.read(master, 10000).decode()
        return text

    try:
        said('eval "$(ebmrun --completion bash)"; echo rea""dy\n', "ready")
        # A whole option is followed by a space, a key by none.
        assert said("ebmrun algo=ep_\t", "centered").endswith("ebmrun algo=ep_centered ")
        assert said("nudge.str\t", "strength").endswith("nudge.strength=")
        assert said("1 -m algo=bp,ch\t", "chl").endswith("algo=bp,chl ")
        assert said("energy=m\t", "mine").endswith("energy=mine ")
        assert "ebmrun: error" not in said("\x15echo $COMP_WORDBREAKS\n", "=")  # which other commands still rely on
    finally:
        shell.kill()
        shell.wait()
        os.close(master)
        os.close(slave)


def test_each_shell_has_a_script() -> None:
    assert cli.answer(["--completion", "bash"]) == SCRIPTS["bash"]
    assert cli.answer(["--completion=fish"]) == SCRIPTS["fish"] and cli.answer(["seed=1"]) is None


def test_another_shell_is_one_line(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for words in (["--completion", "tcsh"], ["--completion=tcsh"]):
        monkeypatch.setattr(sys, "argv", ["ebmrun", *words])
        with pytest.raises(SystemExit, match="2"):
            cli.main()
        (line,) = capfd.readouterr().err.splitlines()
        assert line == ("ebmrun: error: tcsh is no shell that ebmrun knows: choose one of bash, zsh, fish, as in "
                        "ebmrun --completion bash")
