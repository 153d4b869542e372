"""Why vLLM could not load a model, found in its log."""

import json
import logging.config
import os
from pathlib import Path

import pytest

from summidx.summarizers.vllm_local import vllm_log
from summidx.summarizers.vllm_local.vllm_log import OPERATORS, VLLMLog

TRACEBACKS = """2026-01-01 ERROR EngineCore: WorkerProc failed to start.
Traceback (most recent call last):
  File "worker.py", line 1, in load
    raise ValueError("no: that is not it")
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB.
2026-01-01 ERROR EngineCore: EngineCore failed to start.
Traceback (most recent call last):
Exception: WorkerProc initialization failed. See root cause above.
"""


@pytest.fixture
def fresh(monkeypatch):
    """As in a process that has had no vLLM yet."""
    for name in OPERATORS:
        monkeypatch.delenv(name, raising=False)
    vllm_log._log_file.cache_clear()
    yield
    vllm_log._log_file.cache_clear()
    os.environ.pop("VLLM_LOGGING_CONFIG_PATH", None)


def test_the_first_cause_of_this_load_is_told_and_not_that_of_an_earlier_one(fresh):
    first = VLLMLog()
    file = vllm_log._log_file()
    file.write_text("OSError: of an earlier load\n")
    assert first.read_cause() == "OSError: of an earlier load"
    log = VLLMLog()
    with file.open("a") as stream:
        stream.write(TRACEBACKS)
    assert log.read_cause() == "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB."


def test_vllm_is_told_to_write_there_and_not_to_standard_output(fresh, capfd):
    log = VLLMLog()
    logging.config.dictConfig(json.loads(Path(os.environ["VLLM_LOGGING_CONFIG_PATH"]).read_text()))
    (handler,) = logging.getLogger("vllm").handlers
    try:
        logging.getLogger("vllm.engine").error("failed", exc_info=RuntimeError("why it failed"))
    finally:
        logging.getLogger("vllm").removeHandler(handler)
        handler.close()
    assert log.read_cause() == "RuntimeError: why it failed"
    assert capfd.readouterr() == ("", "")


def test_an_operator_who_wants_its_log_elsewhere_has_it_there(fresh, monkeypatch):
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "DEBUG")
    assert VLLMLog().read_cause() == ""
    assert "VLLM_LOGGING_CONFIG_PATH" not in os.environ
