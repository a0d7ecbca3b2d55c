"""A study from a file, from a mapping, or from those that ship with the package."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from mergerisk.errors import UserError, did_you_mean
from mergerisk.given_settings import with_settings
from mergerisk.plain_data import check_plain
from mergerisk.study.fields.basics import FILES
from mergerisk.study.fields.names import Placing
from mergerisk.study.resolving import resolve as resolve_study
from mergerisk.study.schema import Study
from mergerisk.study.shipped import shipped_studies
from mergerisk.validation import findings
from mergerisk.yaml_files import read_mapping

if TYPE_CHECKING:
    from collections.abc import Sequence


def load_study(
    name: str | Path,
    *,
    resolve: bool = True,
    data: str | Path | None = None,
    files: bool = True,
    settings: Sequence[str] = (),
) -> Study:
    """A study from a file, or one that ships with the package.

    Args:
        name: ``"starter"``, or the path of a YAML file.
        resolve: check hyper-parameters and fill in their defaults, for which implementations are imported.
        data: what relative paths in the study are relative to; by default the study file's folder.
        files: see that tasks, methods and attacks are there. Those of a finished run were, once, and its results
            need none of them; its paths are placed already, and stay as they are.
        settings: values instead of the file's, as ``budgets.epsilon=[2/255]``; see
            :func:`mergerisk.given_settings.with_settings`.

    Raises:
        UserError: no such study, not YAML, or a field that is wrong; the message names it.
    """
    path = _find(name)
    content = with_settings(read_mapping(path, "a study"), settings)
    content.setdefault("name", path.stem)
    if data is not None and not Path(data).is_dir():
        raise UserError(f"--data {data}: no such folder")
    try:
        return parse_study(content, path.parent if data is None else Path(data), resolve=resolve, files=files)
    except UserError as error:
        shipped = data is None and str(name) in shipped_studies()
        hint = "; give the folder with what it reads: --data DIR" if shipped else ""
        raise UserError(*(f"{path}: {fault}{hint}" for fault in error.faults)) from error


def parse_study(
    content: dict[str, Any], folder: Path | None = None, *, resolve: bool = True, files: bool = True
) -> Study:
    """A study from a mapping.

    Args:
        content: the fields of :class:`Study`.
        folder: what relative paths in it are relative to; the working directory by default.
        resolve: see :func:`load_study`.
        files: likewise.

    Raises:
        UserError: a field is wrong; the message names it.
    """
    check_plain(content)
    try:
        study = Study.model_validate(
            content, context={FILES: files, Placing: Placing(folder or Path()) if files else None}
        )
    except ValidationError as error:
        raise UserError(*findings(error, Study.model_fields)) from error
    return resolve_study(study) if resolve else study


def _find(name: str | Path) -> Path:
    """The file of a study that ships with the package, or the path itself.

    Raises:
        UserError: it is neither.
    """
    shipped = shipped_studies()
    if str(name) in shipped:
        return shipped[str(name)]
    path = Path(name)
    if path.is_file():
        return path
    if path.suffix in {".yaml", ".yml"} or len(path.parts) > 1:
        raise UserError(f"{path}: no such file")
    raise UserError(
        f"unknown study {str(name)!r}{did_you_mean(str(name), shipped)}; or give the path of a YAML file"
    )
