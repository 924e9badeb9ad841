"""What a command says in a line: a warning of the package, once; and digits that a run has lost."""

import warnings

import pytest
from program import Command
from run_folder import rows, summary

from ebmrun.command.messages import plain_warnings

WITHOUT_DIGITS = ("relax.coordinates=state", "nudge.strength=1e-5", "arch.activation=sigmoid",
                  "arch.hidden=[32,32,32,32,32]", "alignment.every=1", "hydra.run.dir=run")


def test_lost_digits_are_said_once_and_are_no_convergence(command: Command, capfd: pytest.CaptureFixture[str]) -> None:
    """A sigmoid's slope is 1/4 at most, so that layer 1 moves by 1e-5 / 4^5 = 1e-8 of its state or less: below 6e-8,
    half of the last digit of float32. With the errors for coordinates nothing is lost."""
    short = ("trainer.max_steps=3", "relax.max_steps=20")
    status, said = command(*WITHOUT_DIGITS, *short)
    assert status == 0
    assert said and len(set(said)) == len(said)
    assert all(line.startswith("ebmrun: warning: the nudge moves layer") for line in said)
    assert [row["relax/converged"] for row in rows("run")] == ["0", "0", "0"]
    found = summary("run")
    assert found["alignment/relative_error"] < 0.1 and found["alignment/relative_error/worst_layer"] == 1
    assert found["alignment/relative_error/worst"] > 0.5  # what the whole hides
    assert "(layer 1)" in next(line for line in capfd.readouterr().out.splitlines() if "worst layer" in line)
    assert command(*WITHOUT_DIGITS, *short, "relax.coordinates=error", "resume=false") == (0, [])
    assert summary("run")["relax/converged"] == 1 and summary("run")["alignment/relative_error/worst"] < 1e-3


def test_a_warning_for_users_is_one_line_and_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        with plain_warnings():
            for text in ("one\n  line", "another", "one\n  line"):
                with warnings.catch_warnings():  # whoever does this makes Python forget what it has shown
                    warnings.warn(text, stacklevel=1)
    block = ["ebmrun: warning: one line", "ebmrun: warning: another"]
    assert capsys.readouterr().err.splitlines() == 2 * block  # each block, such as a run of several, says it again


def test_warnings_for_programmers_look_as_ever() -> None:
    with pytest.warns(DeprecationWarning, match="old") as seen, plain_warnings():
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert len(seen) == 1
    with pytest.warns(UserWarning, match="after") as seen:
        warnings.warn("after", stacklevel=1)
    assert len(seen) == 1
