"""How much memory this process can still have, and has had. Loads no PyTorch."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def free_memory() -> int:
    """Bytes; where the system does not say, 2 GiB."""
    stated = stated_memory()
    return 2**31 if stated is None else stated


def stated_memory() -> int | None:
    """Bytes; None where the system does not say."""
    limits = []
    with suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        limits.append(1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]))
    with suppress(OSError, ValueError):  # a container's own limit
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text(encoding="ascii"))
        limits.append(limit - int((group / "memory.current").read_text(encoding="ascii")))
    return max(0, min(limits)) if limits else None


def forget_peak() -> bool:
    """Have :func:`peak_memory` begin anew; whether the system can (Linux does)."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def peak_memory() -> int | None:
    """The most bytes of the machine's memory that this process has held, since :func:`forget_peak`; None where the
    system does not say."""
    return _of_process("VmHWM")


def resident_memory() -> int | None:
    """Bytes of the machine's memory that this process holds; None where the system does not say."""
    return _of_process("VmRSS")


def _of_process(field: str) -> int | None:
    with suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace").splitlines()
        return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])
    return None
