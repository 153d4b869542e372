"""Stands for NVIDIA's bindings where there is no GPU: a driver that tells of one, which is empty."""

from types import SimpleNamespace

SIZE_BYTES = 80 * 2**30


class NVMLError(Exception):
    """Never raised here."""


class NVMLError_LibraryNotFound(NVMLError):  # noqa: N801 - the bindings' name
    """Never raised here."""


def nvmlInit() -> None:  # noqa: N802
    """Done."""


def nvmlShutdown() -> None:  # noqa: N802
    """Done."""


def nvmlDeviceGetCount() -> int:  # noqa: N802
    """One."""
    return 1


def nvmlDeviceGetHandleByIndex(number: int) -> int:  # noqa: N802
    """The number itself."""
    return number


def nvmlDeviceGetName(device: int) -> str:  # noqa: N802
    """What it is."""
    return "no GPU"


def nvmlDeviceGetMemoryInfo(device: int) -> SimpleNamespace:  # noqa: N802
    """All of it is free."""
    return SimpleNamespace(total=SIZE_BYTES, free=SIZE_BYTES)


def nvmlDeviceGetMigMode(device: int) -> tuple[int, int]:  # noqa: N802
    """It is whole."""
    return 0, 0


def nvmlDeviceGetComputeRunningProcesses(device: int) -> list[object]:  # noqa: N802
    """None."""
    return []
