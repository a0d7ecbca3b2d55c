"""Tables in LaTeX, ready to paste: booktabs rules, special characters escaped."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mergerisk.report.exports.paper_tables import Table

_ESCAPES = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%",
    "_": r"\_", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "'": r"\textquotesingle{}", "`": r"\textasciigrave{}",
    "ε": r"$\varepsilon$", "×": r"$\times$", "Δ": r"$\Delta$", "∞": r"$\infty$", "−": r"$-$", "→": r"$\to$",
    "≥": r"$\geq$", "≤": r"$\leq$", "–": "--", "’": "'", "\u202f": r"\,", "\u00a0": "~",
}  # fmt: skip


LINE = 85
"""Characters that fit into a line of an article, about."""


def escaped(text: str) -> str:
    """Text that LaTeX sets as it stands, on one line.

    ``'`` and ``"`` need the package textcomp before LaTeX 2020; other letters are left as UTF-8.
    """
    line = re.sub(r"[ \t\r\n]+", " ", text).strip()
    return "".join(_ESCAPES.get(character, character) for character in line if _visible(character))


def table_to_latex(table: Table) -> str:
    """A ``table`` with caption and label; needs ``\\usepackage{booktabs}``, and ``graphicx`` where it is wide.

    One of more than `LINE` characters is scaled to the width of the text; one of sentences breaks its lines.
    """
    wordy = any(len(text) > 60 for row in table.rows for text in row)
    widths = [max(map(len, column)) for column in zip(table.columns, *table.rows, strict=True)]
    wide = not wordy and sum(widths) + 3 * len(widths) > LINE
    share = f"p{{{0.83 / len(table.columns):.2f}\\linewidth}}"
    layout = share * len(table.columns) if wordy else "l" + "r" * (len(table.columns) - 1)
    body = [_row([escaped(column) for column in table.columns]), r"\midrule"]
    for r, row in enumerate(table.rows):
        cells = [escaped(text) for text in row]
        body.append(_row([rf"\textbf{{{x}}}" if (r, c) in table.best and x else x for c, x in enumerate(cells)]))
    lines = [
        f"% needs: \\usepackage{{booktabs}}{chr(92) + 'usepackage{graphicx}' if wide else ''}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escaped(table.caption)}}}",
        rf"\label{{tab:{table.name}}}",
        *([r"\resizebox{\linewidth}{!}{%"] if wide else []),
        rf"\begin{{tabular}}{{{layout}}}",
        r"\toprule",
        *body,
        r"\bottomrule",
        r"\end{tabular}" + ("}" if wide else ""),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _row(cells: list[str]) -> str:
    # a row that starts with a bracket would be taken for the option of the row break before it
    first = "{}" + cells[0] if cells[0].startswith("[") else cells[0]
    return " & ".join([first, *cells[1:]]) + r" \\"


def _visible(character: str) -> bool:
    return character.isprintable() or character in "\u00a0\u202f"
