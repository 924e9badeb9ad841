"""Completion in a shell: the few lines that each shell needs to ask the command itself at each TAB, and the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from ebmrun.errors import ConfigError

# `--completion query` prints a choice a line for the line in COMP_LINE. Bash takes `=` for the end of a word, and wants
# of each choice only what comes after it. A choice that can go on (KEY= or GROUP.) is followed by no space.
BASH = """_ebmrun() {
    local line=${COMP_LINE:0:COMP_POINT} choice
    local word=${line##* } before=
    [[ $COMP_WORDBREAKS == *=* && $word == *=* ]] && before=${word%"${word##*=}"}
    COMPREPLY=()
    while IFS= read -r choice; do
        COMPREPLY+=("${choice#"$before"}")
    done < <(COMP_LINE=$line "$1" --completion query 2>/dev/null)
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} != *[=.] ]] && compopt +o nospace
}
complete -o nospace -o default -F _ebmrun ebmrun"""

ZSH = """_ebmrun() {
    local -a choices values keys
    choices=(${(f)"$(COMP_LINE=$LBUFFER ${words[1]} --completion query 2>/dev/null)"})
    keys=(${(M)choices:#*[=.]})
    values=(${choices:#*[=.]})
    compadd -S '' -a keys
    compadd -a values
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
compdef _ebmrun ebmrun"""

FISH = """function _ebmrun
    set -l words (commandline -cpo)
    set -lx COMP_LINE (commandline -cp)
    $words[1] --completion query 2>/dev/null
end
complete -c ebmrun -f -a '(_ebmrun)'"""

SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def script(shell: str) -> str:
    """What a shell evaluates once. Raises ConfigError for one that is not known."""
    if shell not in SCRIPTS:
        raise ConfigError(f"{shell} is no shell that ebmrun knows: choose one of {', '.join(SCRIPTS)}, as in "
                          "ebmrun --completion bash")
    return SCRIPTS[shell]


def choices(line: str, conf: Path, options: Mapping[str, Sequence[str]]) -> list[str]:
    """What the last word of a command line may become: the options of a group, after a comma too; the keys of the
    configuration that the words before it compose; the present value of a key."""
    *before, word = line.split(" ")[1:] or [""]
    key, equals, value = word.partition("=")
    if equals and key in options:
        chosen, comma, _ = value.rpartition(",")
        found = [f"{key}={chosen}{comma}{option}" for option in options[key] if option not in chosen.split(",")]
    else:
        cfg = composed(conf, [each for each in before if "=" in each])
        above = key.rpartition(".")[0]
        if equals:
            found = [f"{key}={each}" for each in values(OmegaConf.select(cfg, key))]
        else:
            node = OmegaConf.select(cfg, above) if above else cfg
            names = [f"{above}.{name!s}".lstrip(".") for name in node] if isinstance(node, DictConfig) else []
            groups = [f"{name}=" for name in options if not above]
            found = groups + [name + ("." if isinstance(OmegaConf.select(cfg, name), DictConfig) else "=")
                              for name in names]
    return sorted({each for each in found if each.startswith(word)})


def values(now: Any) -> list[str]:
    """What to offer a key that has a value now: that, or both truths; nothing for a list or a group of keys."""
    if isinstance(now, bool):
        return ["false", "true"]
    return [] if now is None or OmegaConf.is_config(now) else [str(now)]


def composed(conf: Path, words: list[str]) -> DictConfig:
    """The configuration of these words, as far as they make one; without them otherwise."""
    with initialize_config_dir(str(conf), version_base="1.3"):
        try:
            return compose("config", words)
        except HydraException:
            return compose("config")
