"""Shell completion, made from the parser of all commands."""

import argparse
from collections.abc import Mapping
from functools import cache

from agent.cli.command import Subparsers, add_command
from agent.wing import wings

SHELLS = ("bash", "zsh", "fish")
_BASE = {
    "ID": "wa-agent list --ids",
    "BACKEND": "wa-agent backends list --names",
}
"""The words for names that only the agent knows → the commands that print them."""


@cache
def _names() -> Mapping[str, str]:
    """With those of the wings."""
    return {**_BASE, **{word: command for wing in wings() for word, command in wing.names.items()}}


_BASH = """\
# wa-agent: source this, or put it into /etc/bash_completion.d/
_wa_agent() {
    local word=${COMP_WORDS[COMP_CWORD]} path="" typed i
    for ((i = 1; i < COMP_CWORD; i++)); do
        typed=${COMP_WORDS[i]}
        [[ $typed == -* ]] && continue
        case " $(_wa_agent_words "$path") " in *" $typed "*) path="$path $typed" ;; esac
    done
    COMPREPLY=($(compgen -W "$(_wa_agent_words "$path")" -- "$word"))
}
_wa_agent_words() {
    case "$1" in
%s
    esac
}
complete -F _wa_agent wa-agent
"""
_ZSH = """\
#compdef wa-agent
autoload -U +X bashcompinit && bashcompinit
%s"""


def add(commands: Subparsers) -> None:
    example = "bash > /etc/bash_completion.d/wa-agent"
    parser = add_command(commands, "completion", completion, "print a completion script", example)
    parser.add_argument("shell", choices=SHELLS, help="the shell that reads the script")


def completion(options: argparse.Namespace) -> int:
    from agent.cli.main import build_parser

    words = command_words(build_parser())
    bash = _BASH % "\n".join(_bash_case(path, after) for path, after in words.items())
    scripts = {"bash": bash, "zsh": _ZSH % bash, "fish": _fish(words)}
    print(scripts[options.shell], end="")
    return 0


def command_words(parser: argparse.ArgumentParser, path: str = "") -> dict[str, list[str]]:
    """For every command (by its words): what may follow. `ID` stands for the instances,
    `BACKEND` for the backends."""
    words: dict[str, list[str]] = {path: []}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                words[path].append(name)
                words.update(command_words(inner, f"{path} {name}"))
        elif action.option_strings:
            words[path] += [name for name in action.option_strings if name.startswith("--")]
        elif action.metavar in _names() and not action.option_strings:
            words[path].append(str(action.metavar))
        elif action.choices:
            words[path] += [str(choice) for choice in action.choices]
    return words


def _bash_case(path: str, words: list[str]) -> str:
    shown = [f"$({_names()[word]} 2>/dev/null)" if word in _names() else word for word in words]
    return f'        "{path}") echo "{" ".join(shown)}" ;;'


def _fish(words: Mapping[str, list[str]]) -> str:
    lines = ["# wa-agent: put this into ~/.config/fish/completions/wa-agent.fish"]
    for path, after in words.items():
        conditions = [f"__fish_seen_subcommand_from {name}" for name in path.split()]
        condition = "; and ".join(conditions) or "__fish_use_subcommand"
        lines += [_fish_line(condition, word) for word in after]
    return "\n".join(lines) + "\n"


def _fish_line(condition: str, word: str) -> str:
    if word in _names():
        return f"complete -c wa-agent -f -n '{condition}' -a '({_names()[word]} 2>/dev/null)'"
    if word.startswith("--"):
        return f"complete -c wa-agent -n '{condition}' -l {word[2:]}"
    return f"complete -c wa-agent -f -n '{condition}' -a {word}"
