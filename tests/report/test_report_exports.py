"""Exports: what they hold, that they are valid, and that names from outside stay names."""

from __future__ import annotations

import io
import json
import math
import re
import xml.etree.ElementTree as ET
from dataclasses import fields, replace
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from jsonschema import Draft202012Validator
from PIL import Image

from mergerisk.errors import UserError
from mergerisk.report import RunRecord, document_schema, summary_schema, summary_to_json
from mergerisk.report.exports import FORMATS, parse_formats, write_exports
from mergerisk.report.exports.figures import _tails, drawn, pictures
from mergerisk.report.exports.latex import escaped as latex_escaped
from mergerisk.report.exports.latex import table_to_latex
from mergerisk.report.exports.markdown import escaped as markdown_escaped
from mergerisk.report.exports.markdown import table_to_markdown
from mergerisk.report.exports.paper_tables import Table, tables
from mergerisk.report.view import view_of
from tests.naive.intervals import ratio_of_means

from .synthetic import standings_of, summary, wilson
from .test_report_page import hostile
from .test_report_views import pair, tiny

if TYPE_CHECKING:
    from pathlib import Path

    from mergerisk.report import Summary

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def small() -> Summary:
    plain = summary(tasks=("digits", "letters"), attacks=("fgsm", "mi_fgsm"), methods=("ties", "dare"), examples=1)
    claims = ({"sentence": "s", "verdict": "holds", "interval": (0.1, math.inf), "p_value": math.nan},)
    return replace(plain, standings=standings_of(plain.results), claims=claims)


def test_summary_keeps_to_its_schema(small: Summary) -> None:
    schema = summary_schema()
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    document = json.loads(summary_to_json(small))
    assert list(validator.iter_errors(document)) == []
    bare = replace(small, standings=(), claims=())
    assert list(validator.iter_errors(json.loads(summary_to_json(bare)))) == []
    for spoilt in (
        document | {"schema_version": 1},
        document | {"more": 1},
        document | {"claims": [{"sentence": "s"}]},
        document | {"results": document["results"] | {"columns": ["asr"]}},
        {name: value for name, value in document.items() if name != "flags"},
    ):
        assert not validator.is_valid(spoilt)


def test_the_schema_that_is_shipped_is_written_from_the_types() -> None:
    written = document_schema.written_schema()
    shipped = document_schema.FILE.read_text(encoding="utf-8")
    assert shipped == written, "python -m mergerisk.report.document_schema writes it anew"
    record = json.loads(written)["$defs"]["RunRecord"]
    assert set(record["properties"]) == {field.name for field in fields(RunRecord)}
    assert set(record["properties"]) - set(record["required"]) == {"notes", "changed", "references"}
    assert record["properties"]["epsilons"]["items"] == {"type": "number", "exclusiveMinimum": 0}
    assert record["properties"]["device"]["description"] == "that computed"


def test_everything_is_written_and_holds_the_same_figures(small: Summary, tmp_path: Path) -> None:
    written = write_exports(small, tmp_path / "deep" / "export")
    assert all(file.is_file() for file in written)
    assert {file.suffix[1:] for file in written} == set(FORMATS)
    folder = tmp_path / "deep" / "export"
    assert pd.read_csv(folder / "data" / "results.csv")["asr"].tolist() == small.results["asr"].tolist()
    assert pd.read_parquet(folder / "data" / "results.parquet")["asr"].tolist() == small.results["asr"].tolist()
    text = (folder / "report.md").read_text(encoding="utf-8")
    for address in re.findall(r"!\[.*?\]\((.*?)\)", text):
        assert (folder / address).is_file()
    assert text.count("![") == 2 * 3 + 1  # per surrogate, and the ranks


def test_only_the_formats_asked_for_are_written(small: Summary, tmp_path: Path) -> None:
    write_exports(small, tmp_path, parse_formats("tex, MD"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.md", "tables"]
    assert "![" not in (tmp_path / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("text", "said"), [("md,docx", "docx"), ("", "no format"), (" , ", "no format")])
def test_unknown_formats_are_refused(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        parse_formats(text)
    assert parse_formats(None) == FORMATS


def test_methods_table_by_hand() -> None:
    found = {
        table.name: table
        for table in tables(view_of(tiny([*pair("digits", 0.2, 0.6), *pair("letters", 0.2, 0.6)])))
    }
    methods = found["methods"]
    assert [row[0] for row in methods.rows] == ["ties", "dare"]
    # of ties: accuracy (0.8 + 0.6)/2, half-width 0.03/√2; ASR 0.2 ± 0.05/√2; relative 0.2/0.8
    low, high = ratio_of_means([(0.2, 0.15, 0.25)] * 2, [(0.8, *wilson(0.8, 80))] * 2, [0.0, 0.0])
    relative = f"25.0% [{100 * low:.1f}, {100 * high:.1f}]"
    assert methods.rows[0][1:4] == ("70.0% [67.9, 72.1]", "20.0% [16.5, 23.5]", relative)
    assert [row[5] for row in methods.rows] == ["yes", "yes"]
    assert methods.best == {(0, 3), (1, 1)}
    assert found["relative_asr_by_task"].rows == (("ties", "25%", "25%"), ("dare", "75%", "75%"))
    assert found["relative_asr_by_task"].best == {(0, 1), (0, 2)}


NASTY = r"50% & #1_a^b ~ {x} \cmd $y$ <z> | [w] *v* `u`"
TABLE = Table("nasty", NASTY, ("method", NASTY), ((NASTY, "1.5"), ("[0.2]", "ε ≥ 2 × 3")), frozenset({(0, 1)}))


def test_latex_escapes_every_special_character() -> None:
    text = latex_escaped(NASTY)
    bare = re.sub(r"\\(text\w+\{\}|[{}$&#%_])", "", text)
    assert not set("\\{}$&#^_~%<>|`") & set(bare), bare
    assert latex_escaped("ε\x00 ≥\n2") == r"$\varepsilon$ $\geq$ 2"


def test_latex_table_is_whole() -> None:
    lines = table_to_latex(TABLE).splitlines()
    assert "booktabs" in lines[0]
    assert [line for line in lines if line.endswith("rule")] == [r"\toprule", r"\midrule", r"\bottomrule"]
    rows = [line for line in lines if line.endswith(r"\\")]
    assert len(rows) == 3
    assert all(len(re.findall(r"(?<!\\)&", row)) == 1 for row in rows)
    assert rows[1].endswith(r"& \textbf{1.5} \\")
    assert rows[2].startswith("{}[0.2]")
    assert len([line for line in lines if "begin{" in line]) == len([line for line in lines if "end{" in line])


def test_wide_latex_tables_are_scaled() -> None:
    wide = Table("w", "c", tuple(f"a long title {i}" for i in range(9)), (("x",) * 9,))
    assert r"\resizebox{\linewidth}{!}{%" in table_to_latex(wide)
    assert r"\resizebox" not in table_to_latex(replace(wide, columns=("a",) * 9))


def test_markdown_cells_end_where_they_should() -> None:
    lines = table_to_markdown(TABLE).splitlines()
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in lines[2:]] == [3, 3, 3, 3]
    assert "**1.5**" in lines[4]


@pytest.mark.parametrize(
    ("raw", "safe"),
    [
        ("<b>&", "&lt;b&gt;&amp;"), ("a\n| b", r"a \| b"), ("_x_ [y](z)", r"\_x\_ \[y\](z)"), ("- x", r"\- x"),
        ("1. x", r"1\. x"), ("---", r"\---"), ("-0.1", "-0.1"), ("1.5", "1.5"), ("2020) x", r"2020\) x"),
    ],
)  # fmt: skip
def test_markdown_shows_text_as_it_stands(raw: str, safe: str) -> None:
    assert markdown_escaped(raw) == safe


def test_hostile_names_stay_text_in_every_export(tmp_path: Path) -> None:
    for file in write_exports(hostile(), tmp_path):
        assert file.resolve().is_relative_to(tmp_path.resolve())
        if file.suffix in {".md", ".tex"}:
            text = file.read_text(encoding="utf-8")
            assert "<script" not in text
            assert "<img" not in text
        elif file.suffix == ".svg":
            assert not list(ET.parse(file).iter(f"{SVG}script"))


def test_a_pictures_name_can_be_told_from_its_surrogates() -> None:
    names = ["expert", "expert/mnist", "weight_averaging+surgery", "ties 0.1", "Ties-0.1", "../../..", "…"]
    assert [*_tails(names).values()] == [
        "_expert", "_expert-mnist", "_weight_averaging+surgery", "_ties-0.1", "_Ties-0.1-2", "_surrogate",
        "_surrogate-2",
    ]  # fmt: skip


def test_pictures_are_the_same_each_time_and_titled(small: Summary) -> None:
    shown = list(pictures(view_of(small)))
    assert [picture.name for picture in shown] == [
        "accuracy_against_risk_expert", "curves_expert", "heat_map_expert", "accuracy_against_risk_pretrained",
        "curves_pretrained", "heat_map_pretrained", "standings",
    ]  # fmt: skip
    for picture in (shown[0], shown[-1]):
        svg = drawn(picture, "svg")
        assert svg == drawn(picture, "svg")
        root = ET.fromstring(svg)
        assert root[0].tag == f"{SVG}title"
        assert root[0].text == picture.title
    png = drawn(shown[1], "png")
    assert png == drawn(shown[1], "png")
    image = Image.open(io.BytesIO(png))
    assert image.width > 600
    assert len(image.convert("RGB").getcolors(1 << 24) or []) > 50  # something was drawn


def test_names_are_never_read_as_mathematics() -> None:
    plain = summary(tasks=("digits",), attacks=("fgsm",), methods=("ties", "dare"), examples=0)
    odd = replace(
        plain,
        run=replace(plain.run, methods=("$\\frac{1$", "dare")),
        results=plain.results.replace("ties", "$\\frac{1$"),
        accuracy=plain.accuracy.replace("ties", "$\\frac{1$"),
        epsilon50=plain.epsilon50.replace("ties", "$\\frac{1$"),
    )
    assert all(drawn(picture, "svg") for picture in pictures(view_of(odd)))
