"""Memory that a command and everything it starts take together: how much must be free to run it.

Summed over its processes is the proportional set size (PSS) that Linux gives: a page that several of them share,
as libraries are, counts once. Beside it, the largest resident set size (RSS) of one process, and the largest sum
of them, which counts shared pages once per process.

    python benchmarks/process_memory.py mergerisk run starter --limit 20 --workers 2 --out /tmp/starter
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

INTERVAL = 0.2
"""Seconds between two looks."""


def family(root: int) -> list[int]:
    """A process and its descendants that are alive."""
    children = defaultdict(list)
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                # The name, in parentheses, may hold spaces; after it come the state and the parent.
                parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            except OSError:  # it ended meanwhile
                continue
            children[int(parent)].append(int(folder.name))
    found = [root]
    for process in found:
        found += children[process]
    return found


def sizes(process: int) -> tuple[int, int]:
    """PSS and RSS in bytes; 0 of a process that ended meanwhile."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return 0, 0
    kib = {name: int(value.split()[0]) for name, value in (line.split(":", 1) for line in lines)}
    return 1024 * kib.get("Pss", 0), 1024 * kib.get("Rss", 0)


def main() -> int:
    """Run the command that the arguments are, and print what it took."""
    together = largest = summed = most = 0
    with subprocess.Popen(sys.argv[1:]) as command:
        while command.poll() is None:
            looked_at = [size for size in map(sizes, family(command.pid)) if size != (0, 0)]
            together = max(together, sum(pss for pss, _ in looked_at))
            summed = max(summed, sum(rss for _, rss in looked_at))
            largest = max([largest, *(rss for _, rss in looked_at)])
            most = max(most, len(looked_at))
            time.sleep(INTERVAL)
    gib = 2**30
    print(
        f"at most {most} processes; together {together / gib:.2f} GiB (PSS), {summed / gib:.2f} GiB (sum of RSS); "
        f"the largest {largest / gib:.2f} GiB (RSS)",
        file=sys.stderr,
    )
    return command.returncode


if __name__ == "__main__":
    sys.exit(main())
