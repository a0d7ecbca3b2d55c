"""The manifest of an artefact, with a checksum of its own."""

from __future__ import annotations

import hashlib
import json
from typing import Any

FORMAT = 2
"""Of the manifests that are written, and the only one that is read."""

MANIFEST = "manifest.json"

_SEAL = "sha256"


def sealed(manifest: dict[str, Any]) -> bytes:
    """A manifest as the bytes of its file, with a checksum of its own."""
    return json.dumps(manifest | {_SEAL: _seal(manifest)}, indent=1, sort_keys=True).encode()


def unsealed(content: bytes, key: str) -> dict[str, Any]:
    """The manifest in a file's bytes.

    Raises:
        ValueError: it is not the one that was written for ``key``.
    """
    manifest = json.loads(content)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT or manifest.get("key") != key:
        raise ValueError(MANIFEST)
    if manifest.pop(_SEAL, None) != _seal(manifest):
        raise ValueError(MANIFEST)
    return manifest


def _seal(manifest: dict[str, Any]) -> str:
    # Through JSON and back: what is read has lists and text where what is written may have had others.
    plain = json.loads(json.dumps(manifest))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
