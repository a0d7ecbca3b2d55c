"""Callables of somebody else's code, written ``package.module:function``."""

from __future__ import annotations

import importlib
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergerisk.errors import UserError, described, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def load_callable(spec: str) -> Callable[..., Any]:
    """What ``package.module:function`` names, where the module is installed, on PYTHONPATH, or in the working
    directory.

    Raises:
        UserError: the module is missing or fails when imported, has no such attribute, or it cannot be called.
    """
    module_name, _, attribute = spec.partition(":")
    if not module_name or not attribute:
        raise UserError(f"{spec!r}: a callable is written package.module:function")
    try:
        with _working_directory_importable():
            module = importlib.import_module(module_name)
    except Exception as error:  # importing runs somebody else's code
        hint = "; is it installed, or on PYTHONPATH?" if isinstance(error, ModuleNotFoundError) else ""
        raise UserError(f"{spec!r}: cannot be imported: {described(error)}{hint}") from error
    public = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
    if not hasattr(module, attribute):
        raise UserError(f"{spec!r}: the module has no {attribute!r}{did_you_mean(attribute, public)}")
    function = getattr(module, attribute)
    if not callable(function):
        raise UserError(f"{spec!r}: a {type(function).__name__}, which cannot be called")
    found: Callable[..., Any] = function
    return found


@contextmanager
def _working_directory_importable() -> Iterator[None]:
    """As for ``python -m``; an installed command does not look there."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)
