"""Where vLLM writes its log while it runs in this process: a file, in which the cause of a failed load is found.

Else it writes to standard output, which is for our report, and says there why it failed; the error that it raises does
not. No vLLM is imported here: it reads its configuration as it is imported, and so do the processes that it starts.
"""

import atexit
import json
import os
import re
import shutil
import tempfile
from functools import cache
from pathlib import Path

OPERATORS = frozenset(
    {"VLLM_CONFIGURE_LOGGING", "VLLM_LOGGING_CONFIG_PATH", "VLLM_LOGGING_LEVEL", "VLLM_LOGGING_STREAM"}
)
"""Where an operator has set one of these, vLLM's log goes where they say."""
MAX_READ = 10_000_000

_CAUSE = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception): .+", re.MULTILINE)
"""The last line of a traceback."""


class VLLMLog:
    """The log from now on; the first in a process sets up where it goes."""

    def __init__(self) -> None:
        self._file = _log_file()
        self._start = self._file.stat().st_size if self._file is not None and self._file.exists() else 0

    def read_cause(self) -> str:
        """What failed first, as the log has it; "" where it says nothing.

        What fails later in a log is that others noticed.
        """
        if self._file is None:
            return ""
        try:
            with self._file.open("rb") as stream:
                stream.seek(self._start)
                text = stream.read(MAX_READ).decode("utf-8", "replace")
        except OSError:
            return ""
        found = _CAUSE.search(text)
        return found[0] if found else ""


@cache
def _log_file() -> Path | None:
    """The file, which goes with this process; None where an operator has set another."""
    if os.environ.keys() & OPERATORS:
        return None
    folder = Path(tempfile.mkdtemp(prefix="summidx-vllm-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    file, configuration = folder / "vllm.log", folder / "logging.json"
    configuration.write_text(
        json.dumps(
            {
                "version": 1,
                "disable_existing_loggers": False,
                "formatters": {"plain": {"format": "%(asctime)s %(levelname)s %(processName)s: %(message)s"}},
                "handlers": {"file": {"class": "logging.FileHandler", "filename": str(file), "formatter": "plain"}},
                "loggers": {"vllm": {"handlers": ["file"], "level": "INFO", "propagate": False}},
            }
        ),
        encoding="utf-8",
    )
    os.environ["VLLM_LOGGING_CONFIG_PATH"] = str(configuration)
    return file
