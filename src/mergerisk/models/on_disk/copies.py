"""Files that hold several copies of a model (EMA, teacher and student), and which of them is meant."""

from __future__ import annotations

from pathlib import Path


def split_copy(spec: str) -> tuple[str, str]:
    """``two.safetensors#model_ema`` → ``two.safetensors`` and ``model_ema.``, with which the copy's names begin.

    A spec without ``#``, or that names what exists as it is written, has no such prefix.
    """
    source, _, prefix = spec.rpartition("#")
    if not source or not prefix or Path(spec).expanduser().exists():
        return spec, ""
    return source, f"{prefix.removesuffix('.')}."


def with_copy(source: str, prefix: str) -> str:
    """The spec that :func:`split_copy` takes apart."""
    return f"{source}#{prefix.removesuffix('.')}" if prefix else source
