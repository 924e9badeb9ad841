"""What a run is called where many stand beside each other."""

from __future__ import annotations

from collections.abc import Collection, Sequence

LONGEST = 128  # characters that Weights & Biases takes


def run_name(algo: str, words: Sequence[str]) -> str:
    """``pc nudge.strength=0.1 seed=3``: the algorithm, and what the other words of a command set."""
    others = (word.lstrip("+") for word in words if key(word) not in ("algo", "study"))
    return " ".join([algo, *others])[:LONGEST]


def among(words: Sequence[str], keys: Collection[str]) -> list[str]:
    """The words that set one of these keys, or something below it."""
    return [word for word in words if any(f"{key(word)}.".startswith(f"{each}.") for each in keys)]


def key(word: str) -> str:
    """What a word of a command sets."""
    return word.lstrip("+~").partition("=")[0].partition("@")[0]
