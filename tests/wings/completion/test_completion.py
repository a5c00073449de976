"""Shell completion: it knows every command, and a real bash completes with it."""

import shutil
import subprocess
from pathlib import Path

import pytest

from agent.cli.main import run


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_every_command(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    text = capsys.readouterr().out
    for word in ("create", "trash", "restore", "revoke", "--watch", "list --ids"):
        assert word.removeprefix("--") in text, word
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=text, text=True, check=True)


def test_bash_really_completes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", "bash"]) == 0
    script = tmp_path / "completion"
    script.write_text(capsys.readouterr().out)

    def complete(*words: str) -> list[str]:
        line = " ".join(f"'{word}'" for word in words)
        code = (
            f"source {script}; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1};"
            'wa-agent() { echo alpha beta; }; _wa_agent; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
        return done.stdout.split()

    assert complete("wa-agent", "cre") == ["create"]
    assert complete("wa-agent", "trash", "") == ["--help", "list", "restore"]
    assert complete("wa-agent", "show", "al") == ["alpha"]
    assert complete("wa-agent", "qr", "--wa") == ["--watch"]
