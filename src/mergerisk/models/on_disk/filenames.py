"""What the files of a model are called."""

from __future__ import annotations

import json
import shlex
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergerisk.disk import refuse_special
from mergerisk.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PREPROCESSOR = "preprocessor_config.json"
PROCESSOR = "processor_config.json"
"""Of transformers 5, which may hold what a preprocessor does under ``image_processor``."""
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
PICKLED_ADAPTER = "adapter_model.bin"

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json")
"""Files that say what a text becomes before a model reads it, in one of several layouts; never all are needed."""

PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})
"""Endings of files that are, or may be, pickles."""


def convert_command(source: object) -> str:
    """How to get safetensors of pickled weights, for messages.

    Args:
        source: a file, a folder or ``org/name``.
    """
    path = Path(str(source))
    made = f"DIR/{converted_name(path.name)}" if path.is_file() else "DIR"
    return f"mergerisk convert {shlex.quote(str(source))} --out DIR, then give {made}"


def converted_name(pickle: str) -> str:
    """What the one file is called that a pickle becomes."""
    return ADAPTER_WEIGHTS if pickle == PICKLED_ADAPTER else WEIGHTS


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        UserError: it cannot be read, or holds something else.
    """
    try:
        refuse_special(path)
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except UserError:
        raise
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: must hold a JSON object")
    return content


@contextmanager
def without_adapter(folder: Path) -> Iterator[Path]:
    """A folder with a model's files but those of an adapter, which transformers, with PEFT, would put on top."""
    if not (folder / ADAPTER_CONFIG).is_file():
        yield folder
        return
    with tempfile.TemporaryDirectory() as place:
        for file in folder.iterdir():
            if file.name not in {ADAPTER_CONFIG, ADAPTER_WEIGHTS}:
                Path(place, file.name).symlink_to(file.resolve())
        yield Path(place)
