"""Whatever file a person writes for mergerisk, checked with all it names: every fault is said at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mergerisk import api
from mergerisk.audit.schema import in_words_of_audits, load_audit
from mergerisk.audit.verdict import check_gates
from mergerisk.errors import Faults, UserError, located
from mergerisk.report.formatting import plural
from mergerisk.study import load_study
from mergerisk.yaml_files import read_mappings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mergerisk.audit.schema import Audit
    from mergerisk.study import Plan


def validate_file(
    file: str, *, data: str | Path | None = None, offline: bool = False, settings: Sequence[str] = ()
) -> tuple[str, tuple[str, ...]]:
    """Check a file by what its fields say it is.

    Args:
        file: a shipped study's name; or the path of a study, or of an audit, which has ``base`` and ``images``; of
            a recipe, this package's or mergekit's; or of claims.
        data: what a study's relative paths are relative to; by default the file's folder.
        offline: take what comes from a hub from its cache only.
        settings: values instead of the file's; see :func:`mergerisk.given_settings.with_settings`.

    Returns:
        What it is, in a few words, and a sentence each on what must be known of what it names.

    Raises:
        UserError: the file, or one that it names, is at fault.
    """
    path = Path(file)
    fields = set(read_mappings(path, "a study")[0]) if path.is_file() else set()
    audits, recipes = "base" in fields and "images" in fields, {"base", "merge_method", "models", "slices"}
    claims = bool({"claims", "include"} & fields) and not {"base", "backbone"} & fields
    if data is not None and (audits or claims or recipes & fields):
        raise UserError("--data is of a study; other files name what they read relative to their own folder")
    if audits:
        return _audit(load_audit(path, settings=settings), offline=offline)
    if claims:
        from mergerisk.statistics import load_claims

        return plural(len(load_claims(path, settings=settings)), "claim"), ()
    if recipes & fields:
        from mergerisk.recipe import load_merges

        merges = load_merges(path, Path("merged"), settings=settings)
        return f"{plural(len(merges), 'merge')} of checkpoints, which are checked when they are merged", ()
    if not settings:
        return _in_words(api.validate(file, data=data, offline=offline))
    study = load_study(file, resolve=False, data=data, settings=settings)
    with located(file):
        return _in_words(api.validate(study, offline=offline))


def _audit(asked: Audit, *, offline: bool) -> tuple[str, tuple[str, ...]]:
    faults, study = Faults(), None
    with faults.collecting():
        study = asked.to_study()
    if study is not None:
        with faults.collecting():
            check_gates(asked, [spec.label for spec in study.surrogates])
        with faults.collecting(), in_words_of_audits():
            checked = api.validate(study, offline=offline)
    faults.settle()
    return _in_words(checked)


def _in_words(plan: Plan) -> tuple[str, tuple[str, ...]]:
    return f"{plural(plan.study.settings, 'setting')} in {plural(len(plan.stages), 'stage')}", plan.notes
