"""How much commands say: every one takes ``--quiet`` and ``--verbose``, and ``--quiet`` leaves results and errors."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from mergerisk.cli.main import cli
from tests.cli.test_cli import call

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest


def leaves(group: click.Group, *words: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from leaves(command, *words, name)
        else:
            yield (*words, name), command


def demanded(command: click.Command) -> Iterator[str]:
    """Something for everything without which a command says how it is used."""
    for one in command.params:
        if one.required:
            yield from [one.opts[0]] if isinstance(one, click.Option) else []
            yield one.type.choices[0] if isinstance(one.type, click.Choice) else "x"


def test_every_command_takes_either_and_refuses_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    found = dict(leaves(cli))
    assert {("run",), ("validate",), ("leaderboard", "check"), ("store", "gc")} <= found.keys()
    for words, command in found.items():
        code, out, err = call(capsys, *words, *demanded(command), "--quiet", "--verbose")
        said = "mergerisk: --quiet and --verbose exclude each other: leave one out\n"
        assert (words, code, out, err) == (words, 2, "", said)
    assert not [*tmp_path.iterdir()]


def test_quiet_leaves_out_remarks_and_what_libraries_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("HF_HUB_DISABLE_PROGRESS_BARS", raising=False)
    (tmp_path / "model.bin").write_bytes(b"")
    usual = ("init", tmp_path, "--kind", "study", "--force")
    code, out, err = call(capsys, *usual)
    assert (code, err.startswith("note: ")) == (0, True)
    heard: list[str | None] = []
    monkeypatch.setattr(
        "mergerisk.init.find", lambda *_: heard.append(os.environ.get("HF_HUB_DISABLE_PROGRESS_BARS"))
    )
    call(capsys, *usual, "--quiet")
    assert heard == ["1"]
    assert "HF_HUB_DISABLE_PROGRESS_BARS" not in os.environ
    monkeypatch.undo()
    assert call(capsys, *usual, "--quiet") == (0, out, "")
