"""What is fuzzed: sound files of every format that strangers hand over, and answers of their services, and what reads
each of them."""

from __future__ import annotations

import gzip
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from unittest import mock

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import torch
from safetensors.numpy import save_file

from tests.cli.bad_files import FILES
from tests.tasks.material import encoded, table, write_folder
from tests.transfer.black_box_stand_in import Reply, service

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@dataclass(frozen=True)
class Target:
    """One format.

    Attributes:
        name: of the format.
        file: the file that is spoiled, within a folder of its own.
        make: writes it, and what it needs beside it, into the folder.
        read: reads it as mergerisk's commands do.
        is_text: whether spoiling words makes more sense than spoiling bits.
    """

    name: str
    file: str
    make: Callable[[Path], None]
    read: Callable[[Path], object]
    is_text: bool = False


def _yaml(kind: str) -> Target:
    from mergerisk.audit.schema import load_audit
    from mergerisk.recipe import load_merges
    from mergerisk.statistics.claims import load_claims
    from mergerisk.study.reading import load_study

    def make(folder: Path) -> None:
        text = "".join(f"{field}: {value}\n" for field, value in FILES[kind].items())
        (folder / "file.yaml").write_text(text, encoding="utf-8")

    readers: dict[str, Callable[[Path], object]] = {
        "study": lambda folder: load_study(folder / "file.yaml", files=False),
        "audit": lambda folder: load_audit(folder / "file.yaml"),
        "recipe": lambda folder: load_merges(folder / "file.yaml", folder / "out"),
        "claims": lambda folder: load_claims(folder / "file.yaml"),
    }
    return Target(kind, "file.yaml", make, readers[kind], is_text=True)


def _make_checkpoint(folder: Path) -> None:
    save_file({"a": np.ones((3, 4), np.float32), "b": np.arange(6)}, folder / "model.safetensors")


def _read_checkpoint(folder: Path) -> None:
    from mergerisk.models.on_disk.checkpoints import Checkpoint

    checkpoint = Checkpoint(folder / "model.safetensors")
    for name in checkpoint:
        checkpoint[name]


def _read_task(name: str) -> Callable[[Path], object]:
    from mergerisk.tasks import load_task

    return lambda folder: load_task(str(folder / name)).test.images[:2]


def _make_npz(folder: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 3), dtype=np.uint8)
    labels, split = np.arange(24) % 3, np.repeat([0, 1], 12)
    np.savez(folder / "task.npz", images=images, labels=labels, split=split)


def _make_parquet(folder: Path) -> None:
    (folder / "task").mkdir()
    for split in ("train", "test"):
        pq.write_table(table([0, 1, 2] * 4), folder / "task" / f"{split}-00000.parquet")


def _make_pictures(folder: Path) -> None:
    write_folder(folder / "pictures", {"train": 3, "test": 3})
    (folder / "pictures" / "test" / "apple" / "000.png").write_bytes(encoded(99))


def _make_rates(folder: Path) -> None:
    rows = [
        {"task": t, "attack": a, "surrogate": s, "target": m, "epsilon": "4/255", "asr": 0.4, "images": 100}
        for t in ("cars", "dtd")
        for a in ("fgsm", "mi_fgsm")
        for s in ("expert", "pretrained")
        for m in ("ties", "weight_averaging")
    ]
    pd.DataFrame(rows).to_csv(folder / "rates.csv", index=False)


def _read_rates(folder: Path) -> object:
    from mergerisk.statistics.claim_sources import read_tables

    return read_tables(str(folder / "rates.csv"))


def _make_manifest(folder: Path) -> None:
    from mergerisk.store import Store, content_key

    recipe = {"stage": "craft"}
    Store(folder / "store").put(content_key(recipe), {"a": np.arange(5)}, recipe=recipe)
    place = Store(folder / "store").folder(content_key(recipe))
    (folder / "manifest.json").unlink(missing_ok=True)
    (folder / "manifest.json").symlink_to(place / "manifest.json")


def _read_store(folder: Path) -> object:
    from mergerisk.store import LostArtefactError, Store, content_key

    try:
        return Store(folder / "store").get(content_key({"stage": "craft"}))
    except LostArtefactError:
        return None


def _http(answer: Literal["labels", "scores"], *, packed: bool = False) -> Target:
    """A service's whole answer, as bytes on the line, when it is asked about two images."""
    content = json.dumps(
        {"labels": ["ant", 1]} if answer == "labels" else {"scores": [[0.5, 1e-3], [-2, 7]]}
    ).encode()
    headers = "Content-Type: application/json\r\nRetry-After: 2\r\n"
    if packed:
        content = gzip.compress(content, mtime=0)
        headers += "Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n"
        content = b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content)
    else:
        headers += f"Content-Length: {len(content)}\r\n"
    sound = f"HTTP/1.1 200 OK\r\n{headers}\r\n".encode() + content

    def make(folder: Path) -> None:
        (folder / "answer").write_bytes(sound)

    def read(folder: Path) -> object:
        from mergerisk.transfer import HttpTarget, Queries

        said = (folder / "answer").read_bytes()
        with service(lambda *_: Reply(raw=lambda _: [said])) as seen, mock.patch.dict(os.environ, NO_PROXY="*"):
            target = HttpTarget(
                seen.address,
                ("ant", "bee"),
                queries=Queries(10),
                answer=answer,
                timeout=2.0,
                retries=1,
                sleep=lambda _: None,
            )
            return target.predict(torch.zeros(2, 3, 2, 2))

    return Target(f"http {answer}{' packed' * packed}", "answer", make, read, is_text=not packed)


def targets() -> list[Target]:
    """Every format."""
    return [
        *(_yaml(kind) for kind in FILES),
        Target(
            "safetensors",
            "model.safetensors",
            _make_checkpoint,
            _read_checkpoint,
        ),
        Target("npz", "task.npz", _make_npz, _read_task("task.npz")),
        Target("parquet", "task/test-00000.parquet", _make_parquet, _read_task("task")),
        Target("picture", "pictures/test/apple/000.png", _make_pictures, _read_task("pictures")),
        Target("rates", "rates.csv", _make_rates, _read_rates, is_text=True),
        _http("labels"),
        _http("scores"),
        _http("scores", packed=True),
        Target("manifest", "manifest.json", _make_manifest, _read_store, is_text=True),
    ]
