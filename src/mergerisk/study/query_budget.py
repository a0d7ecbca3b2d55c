"""A query budget that several processes and runs share."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from mergerisk.disk import locked
from mergerisk.errors import UserError
from mergerisk.store.keys import content_key
from mergerisk.study.files import write_bytes
from mergerisk.transfer.queries import QueryBudget

if TYPE_CHECKING:
    from pathlib import Path

    from mergerisk.study.fields.targets import TargetSpec


class SharedQueries(QueryBudget):
    """A budget whose count lies in a file, ``{"used": N}``; the system frees its lock when a process dies.

    The file is replaced whole and is on the disk before :meth:`spend` returns, so the images reserved are never
    forgotten: neither a kill nor a power cut can lead to more queries than the limit.

    Args:
        path: the file; nothing is used as long as it does not exist. Its folder is made.
        limit: images in all. It may change between runs; what is used stays.

    Raises:
        UserError: the limit is negative, or the folder cannot be made.
    """

    def __init__(self, path: Path, limit: int) -> None:
        super().__init__(limit)
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unusable(path, error) from error

    @property
    def used(self) -> int:
        """Images reserved so far, by whomever.

        Raises:
            UserError: the file is not a count. It is never taken for zero.
        """
        try:
            content = json.loads(self.path.read_bytes())
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise _unusable(self.path, error) from error
        except ValueError:
            content = None
        used = content.get("used") if isinstance(content, dict) else None
        if type(used) is not int or used < 0:
            raise UserError(
                f'{self.path}: damaged; write {{"used": N}} into it, N being the images that were sent so far'
            )
        return used

    def spend(self, count: int) -> None:
        """Count images as sent, under a lock that other processes respect.

        Raises:
            UserError: the budget does not allow them, or the count cannot be kept.
        """
        try:
            with locked(self.path.with_name(f"{self.path.name}.lock")):
                write_bytes(self.path, json.dumps({"used": self.check(count)}).encode())
        except OSError as error:
            raise _unusable(self.path, error) from error


def shared_queries(root: Path, spec: TargetSpec) -> SharedQueries:
    """The budget of a study's target, which has one, counted in the store at ``root``."""
    assert spec.queries is not None, "an http target has a budget"
    return SharedQueries(root / "queries" / f"{content_key({'target': spec.label})[:16]}.json", spec.queries)


def _unusable(path: Path, error: OSError) -> UserError:
    return UserError(f"{path}: the count of queries cannot be kept here: {error.strerror}; choose another place")
