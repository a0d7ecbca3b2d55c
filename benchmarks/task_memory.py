"""Memory and speed of a large task: a folder of 224-pixel JPEGs into a store, then one pass over all images.

    python benchmarks/task_memory.py                 # 50,000 images: 1.4 GB of files, 7.5 GB in the store
    python benchmarks/task_memory.py --images 10000

Everything lies in a temporary folder. Making the task and passing over it run in one new process, whose peak
resident size is what the system says of it (``ru_maxrss``); so does each measurement of decoding. The pass does
what predicting does but for the model: images become float32 in batches, and a small computation reads them.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CLASSES = 10
DISTINCT = 256
"""Pictures that differ; the others are copies, which are decoded all the same."""
SIDE = 224
BATCH = 128


def write_images(folder: Path, count: int) -> None:
    """A folder of class folders; one image in five is a test image."""
    import numpy as np
    from PIL import Image, ImageFilter

    random = np.random.default_rng(0)
    encoded = []
    for index in range(DISTINCT):
        noise = random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        path = folder / f"{index}.jpg"
        Image.fromarray(noise).filter(ImageFilter.GaussianBlur(1.5)).save(path, quality=92)
        encoded.append(path.read_bytes())
        path.unlink()
    for split in ("train", "test"):
        for label in range(CLASSES):
            (folder / split / f"class {label}").mkdir(parents=True)
    for index in range(count):
        split = "test" if index // CLASSES % 5 == 0 else "train"
        place = folder / split / f"class {index % CLASSES}" / f"{index:06d}.jpg"
        place.write_bytes(encoded[index % DISTINCT])


def make_and_pass(images: str, store: str, threads: str) -> dict[str, Any]:
    """The task stage, then a pass over every split."""
    import torch

    from mergerisk.store import Store
    from mergerisk.study.executors.attempt import make_artefact
    from mergerisk.study.kinds.load_task import LoadTask
    from mergerisk.study.workbench import Compute, Workbench
    from mergerisk.tasks import task_source

    torch.set_num_threads(int(threads))
    source = task_source(images)
    start = time.perf_counter()
    stage = LoadTask(label=source.name, identity=source.identity(), source=source)
    hashed = time.perf_counter()
    make_artefact(stage, Workbench(Store(Path(store)), Compute()))
    made = time.perf_counter()
    bench = Workbench(Store(Path(store)), Compute())  # one that has verified nothing yet
    task = bench.task(stage.result)
    opened = time.perf_counter()
    total, count = 0.0, 0
    for split in (task.train, task.calibration, task.test):
        for batch in split.images.split(BATCH):
            total += float(batch.mean())
            count += len(batch)
    done = time.perf_counter()
    return {
        "images": count,
        "hashing": hashed - start,
        "decoding": made - hashed,
        "verifying": opened - made,
        "passing": done - opened,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def decode_only(images: str, threads: str) -> dict[str, Any]:
    """Decoding alone; 0 threads for a plain loop over Pillow."""
    if threads == "0":
        import numpy as np
        from PIL import Image

        files = sorted(Path(images).rglob("*.jpg"))
        start, cpu = time.perf_counter(), time.process_time()
        for file in files:
            with Image.open(file) as image:
                np.array(image.convert("RGB"))
        return {"images": len(files), "seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu}
    from mergerisk.tasks import task_source

    stream = task_source(images, size=SIDE).stream(int(threads))
    assert stream is not None
    start, cpu = time.perf_counter(), time.process_time()
    count = sum(len(portion) for portion in stream)
    return {"images": count, "seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu}


def in_new_process(what: str, *arguments: str) -> dict[str, Any]:
    """Call a function of this file in a process of its own."""
    command = [sys.executable, __file__, "--call", what, *arguments]
    made: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--folder", help="where the temporary folder is made")
    parser.add_argument("--call", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.call:
        print(json.dumps(globals()[options.call[0]](*options.call[1:])))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        images, store = Path(name) / "images", Path(name) / "store"
        images.mkdir()
        write_images(images, options.images)
        for threads in (0, 1, 2):
            found = in_new_process("decode_only", str(images), str(threads))
            label = f"{threads} thread{'s'[: threads != 1]}" if threads else "plain loop over Pillow"
            rates = [found["images"] / found[time] for time in ("seconds", "cpu")]
            print(f"decoding, {label}: {rates[0]:.0f} images/s, {rates[1]:.0f} per second of CPU")
        found = in_new_process("make_and_pass", str(images), str(store), "2")
        kept = sum(file.stat().st_size for file in store.rglob("*") if file.is_file())
        print(f"task of {found['images']} images, {kept / 2**30:.2f} GiB in the store")
        for part, label in (
            ("hashing", "hashing the files"),
            ("decoding", "task stage (size, decoding, writing)"),
            ("verifying", "first opening (checksum)"),
            ("passing", f"a pass in batches of {BATCH}"),
        ):
            print(f"  {label}: {found[part]:.1f} s, {found['images'] / found[part]:.0f} images/s")
        print(f"  peak resident memory: {found['peak'] / 2**30:.2f} GiB")


if __name__ == "__main__":
    main()
