"""A budget in a file holds for several processes, several runs, and processes that are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import torch

from mergerisk.errors import UserError
from mergerisk.study.query_budget import SharedQueries
from mergerisk.transfer import HttpTarget
from tests.transfer.black_box_stand_in import Reply, service

if TYPE_CHECKING:
    from pathlib import Path

    from tests.transfer.black_box_stand_in import Pixels


def test_what_is_used_outlives_the_run(tmp_path: Path) -> None:
    path = tmp_path / "new" / "queries.json"
    queries = SharedQueries(path, 10)
    assert queries.used == 0
    queries.spend(4)
    assert SharedQueries(path, 10).used == 4
    with pytest.raises(UserError, match="query budget of 10 is spent: 4 used, 7 asked for"):
        SharedQueries(path, 10).spend(7)
    assert queries.used == 4
    SharedQueries(path, 11).spend(7)
    assert queries.used == 11


@pytest.mark.parametrize(
    "content", ["", "{", "7", "{}", '{"used": -1}', '{"used": true}', '{"used": "7"}', "\xff"]
)
def test_a_damaged_count_is_never_taken_for_zero(tmp_path: Path, content: str) -> None:
    path = tmp_path / "queries.json"
    path.write_text(content, encoding="latin-1")
    for use in (lambda: SharedQueries(path, 10).used, lambda: SharedQueries(path, 10).spend(1)):
        with pytest.raises(UserError, match=r"queries.json: damaged; write \{"):
            use()
    assert path.read_text(encoding="latin-1") == content


def test_a_place_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be kept here"):
        SharedQueries(tmp_path / "file" / "queries.json", 10)
    (tmp_path / "queries.json").mkdir()
    with pytest.raises(UserError, match="cannot be kept here"):
        SharedQueries(tmp_path / "queries.json", 10).spend(1)


SPENDING = """
import sys
from pathlib import Path
from mergerisk.errors import UserError
from mergerisk.study.query_budget import SharedQueries

queries, spent = SharedQueries(Path(sys.argv[1]), 100), 0
print("ready", flush=True)
sys.stdin.readline()
try:
    while True:
        queries.spend(3)
        spent += 3
except UserError as error:
    print(spent, error)
"""

ASKING = """
import sys
from pathlib import Path
import torch
from mergerisk.study.query_budget import SharedQueries
from mergerisk.transfer import HttpTarget

queries = SharedQueries(Path(sys.argv[1]), 20)
target = HttpTarget(sys.argv[2], ("ant", "bee"), queries=queries, batch_size=2)
target.predict(torch.zeros(20, 3, 2, 2))
"""


def start(program: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"NO_PROXY": "127.0.0.1"},
    )


def test_processes_share_a_budget(tmp_path: Path) -> None:
    path = tmp_path / "queries.json"
    processes = [start(SPENDING, str(path)) for _ in range(3)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    said = [process.communicate("\n", timeout=300)[0] for process in processes]
    assert all("query budget of 100 is spent: 99 used, 3 asked for" in text for text in said)
    assert sum(int(text.split()[0]) for text in said) == SharedQueries(path, 100).used == 99


def test_what_a_killed_process_sent_stays_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    path = tmp_path / "queries.json"

    def answer(number: int, images: list[Pixels]) -> Reply:
        if number == 3:
            victim.send_signal(signal.SIGKILL)
        return Reply({"labels": [0] * len(images)})

    with service(answer) as seen:
        victim = start(ASKING, str(path), seen.address)
        victim.communicate(timeout=300)
        assert victim.returncode == -signal.SIGKILL
        queries = SharedQueries(path, 20)
        assert seen.images == queries.used == 8
        target = HttpTarget(seen.address, ("ant", "bee"), queries=queries, batch_size=2)
        with pytest.raises(UserError, match="query budget of 20 is spent: 8 used, 13 asked for"):
            target.predict(torch.zeros(13, 3, 2, 2))
        target.predict(torch.zeros(12, 3, 2, 2))
        assert seen.images == queries.used == 20
