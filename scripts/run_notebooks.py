"""Runs the tutorials, each in an empty folder, and keeps what they show.

`python scripts/run_notebooks.py [NAME …]`, with the extra `docs`. Pages and GitHub show notebooks as they are
kept, so run this whenever what they show has changed; a test runs them too and says so.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "docs" / "tutorials"


def executed(file: Path, folder: str | Path) -> Any:
    """A notebook, run from its first cell to its last in a folder; without what differs from run to run.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell ended in an error.
    """
    notebook: Any = nbformat.read(file, as_version=4)
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=900, kernel_name="python3", resources=resources).execute()
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.execution_count = None
            # What libraries warn of on standard error is of this machine.
            cell.outputs = [_plain(output) for output in cell.outputs if output.get("name") != "stderr"]
    return notebook


def _plain(output: Any) -> Any:
    """An output without numbers of cells and ids of displays."""
    output.pop("execution_count", None)
    if output.output_type == "execute_result":
        output.execution_count = None
    if "transient" in output:
        del output["transient"]
    if "metadata" in output:
        output.metadata = {}
    html = output.get("data", {}).get("text/html", "")
    if re.search(r"\d stages? done in ", html):  # progress, ended: how long depends on who else computes
        output.data["text/html"] = re.sub(r" in [\w ]+", "", html)
    return output


def main(names: list[str]) -> None:
    """Run the notebooks of these names, or all."""
    for file in sorted(FOLDER.glob("*.ipynb")):
        if not names or file.stem in names:
            with tempfile.TemporaryDirectory() as folder:
                nbformat.write(executed(file, folder), file)
            print(f"{file.name}: {file.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main(sys.argv[1:])
