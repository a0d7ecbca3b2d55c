"""The models of a study or of an audit, before anything is merged or attacked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mergerisk.audit.schema import in_words_of_audits, load_audit
from mergerisk.checking import check_study
from mergerisk.listeners.events import CheckFinished
from mergerisk.listeners.told import listening
from mergerisk.study import load_study
from mergerisk.yaml_files import read_mapping

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mergerisk.checking import StudyCheck
    from mergerisk.listeners.told import Told


def check_file(
    file: str,
    *,
    device: str = "auto",
    offline: bool = False,
    settings: Sequence[str] = (),
    progress: bool = True,
) -> StudyCheck:
    """Check the models that a file names; see :func:`mergerisk.checking.check_study`.

    Args:
        file: a shipped study's name, or the path of a study's file or of an audit's, which has a ``base``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        offline: take what comes from a hub from its cache only.
        settings: values instead of the file's; see :func:`mergerisk.given_settings.with_settings`.
        progress: show on standard error how far it is.

    Raises:
        UserError: the file, or one that it names, is at fault.
    """
    with listening() as told:
        with told.showing(progress):
            found = _checked(file, device, offline, settings, told)
        told(CheckFinished(found.warnings))
    return found


def _checked(file: str, device: str, offline: bool, settings: Sequence[str], told: Told) -> StudyCheck:
    if not Path(file).is_file() or "base" not in read_mapping(Path(file), "a study or an audit"):
        study = load_study(file, settings=settings) if settings else file
        return check_study(study, device=device, offline=offline, listener=told)
    audit = load_audit(file, settings=settings)
    out = Path("audits") / audit.name
    with in_words_of_audits():
        return check_study(audit.to_study(), out, device=device, offline=offline, listener=told)
