"""The help of `wa-agent` itself: its commands by what a person wants to do."""

import argparse

from agent.cli.groups import sections


class InSections(argparse.RawDescriptionHelpFormatter):
    def _format_action(self, action: argparse.Action) -> str:
        if not isinstance(action, argparse._SubParsersAction):
            return super()._format_action(action)
        commands = {command.dest: command for command in action._choices_actions}
        parts = []
        for title, words in sections().items():
            shown = [commands[word] for word in words.split() if word in commands]
            parts += [f"\n{title}:\n"] if shown else []
            parts += map(super()._format_action, shown)
        return self._join_parts(parts)
