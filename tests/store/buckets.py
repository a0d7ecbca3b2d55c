"""A server that speaks S3, and buckets on it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.importorskip("s3fs")
moto_server = pytest.importorskip("moto.server")


@contextmanager
def serving() -> Iterator[str]:
    """The URL of one that listens meanwhile, and that this process and those that it starts take for S3."""
    running = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "NO_PROXY": "127.0.0.1",
        }.items():
            patch.setenv(name, value)
        yield f"http://{host}:{port}"
    running.stop()


def new_bucket(name: str) -> str:
    """The URL of a place in a bucket that is made for it."""
    import s3fs

    bucket = f"b-{abs(hash(name))}"
    s3fs.S3FileSystem(skip_instance_cache=True).mkdir(bucket)
    return f"s3://{bucket}/runs"
