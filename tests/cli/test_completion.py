"""``completion``: what a shell completes after it has read what we print."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pgflow_mp.cli.main import VERBS, main


def script(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["completion", shell]) == 0
    return capsys.readouterr().out


def completed(script: str, *words: str) -> list[str]:
    """What bash offers for the last word."""
    quoted = " ".join(f"'{word}'" for word in words)
    code = (
        f"{script}\nCOMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; "
        '$(complete -p pgflow-mp | sed "s/.*-F \\([^ ]*\\).*/\\1/") pgflow-mp; '
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=False, timeout=30)
    return done.stdout.split()


def test_bash_completes_commands_options_and_their_values(capsys: pytest.CaptureFixture[str]) -> None:
    text = script("bash", capsys)
    assert set(VERBS) <= set(completed(text, "pgflow-mp", ""))
    assert completed(text, "pgflow-mp", "canc") == ["cancel"]
    assert completed(text, "pgflow-mp", "retry", "--dry") == ["--dry-run"]
    assert completed(text, "pgflow-mp", "run", "--compile", "ext") == ["extend"]
    assert completed(text, "pgflow-mp", "completion", "z") == ["zsh"]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_read_theirs(shell: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = script(shell, capsys)
    assert [verb for verb in VERBS if verb not in text] == []
    assert "--max-memory-per-worker" in text or "max-memory-per-worker" in text
    if (program := shutil.which(shell)) is not None:
        (tmp_path / "file").write_text(text)
        subprocess.run([program, "-n", str(tmp_path / "file")], check=True, timeout=30)
