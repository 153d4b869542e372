"""Reads the settings, once, for a process; and refuses what a run may not choose."""

import os
from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr, ValidationError
from pydantic_settings import SettingsError

from summidx.errors import UsageError
from summidx.index_uri import refuse_other_roots
from summidx.instructions import load_instructions
from summidx.llm_hosts import refuse_credentials, refuse_other_hosts
from summidx.settings.tree import Settings, settings_file


def load_settings(overrides: Mapping[str, Any] | None = None, *, from_api: bool = False) -> Settings:
    """Read the settings, `overrides` (nested, as the tree is) going before environment and file.

    OPENAI_BASE_URL and OPENAI_API_KEY are read where our own variables are not set. A prompt file is read here, once:
    what it says goes on in `llm.instructions`, and no other process needs the file.

    Args:
        overrides: what goes before. An LLM server among them must be one that environment and file allow.
        from_api: they are of a run that came over Prefect's API, from whoever may start a run there: environment and
            file allow the LLM server, the Dask scheduler and the bucket that they name, and no other. Else they allow
            all, unless they name `llm.allowed_hosts`.

    Raises:
        UsageError: one line that names each field that cannot be used, or says why the prompt file cannot; or that the
            LLM server, the scheduler or the index root is not allowed.
    """
    if os.environ.get("SUMMIDX_CONFIG") and not settings_file().is_file():
        raise UsageError(f"SUMMIDX_CONFIG names {settings_file()}, which is no file: name one, or unset it")
    try:
        settings = Settings(**(dict(overrides or {})))
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc']))}: {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors(include_input=False)
        )
        raise UsageError(f"unusable settings: {problems}") from None
    except SettingsError as error:  # a variable that is no JSON where JSON is needed
        raise UsageError(f"unusable settings in the environment: {error}") from None
    except (OSError, ValueError) as error:  # a settings file that is no TOML
        raise UsageError(f"{settings_file()} cannot be read: {error}") from None
    default_url = os.environ.get("OPENAI_BASE_URL", "")
    refuse_credentials(settings.llm.base_url or default_url)
    asked = dict((overrides or {}).get("llm") or {})
    if base_url := asked.pop("base_url", ""):
        ours = Settings(**{**(overrides or {}), "llm": asked}).llm
        refuse_other_hosts(base_url, ours.allowed_hosts, ours.base_url or default_url, must_be_named=from_api)
    if from_api:
        _refuse_other_schedulers(settings.cluster.scheduler_address, overrides or {})
        if "index_root" in (overrides or {}):
            mine = Settings(**{key: value for key, value in (overrides or {}).items() if key != "index_root"})
            refuse_other_roots(settings.index_root, mine.allowed_index_roots, mine.index_root)
    llm: dict[str, Any] = {
        "base_url": settings.llm.base_url or default_url,
        "api_key": SecretStr(settings.llm.api_key.get_secret_value() or os.environ.get("OPENAI_API_KEY", "")),
    }
    if settings.llm.prompt_file:
        own = {**settings.llm.instructions, **load_instructions(settings.llm.prompt_file)}
        llm |= {"instructions": own, "prompt_file": ""}
    return settings.model_copy(update={"llm": settings.llm.model_copy(update=llm)})


def _refuse_other_schedulers(address: str, overrides: Mapping[str, Any]) -> None:
    """Refuse a scheduler that environment and file do not name: what it sends is unpickled, which runs code."""
    asked = {key: value for key, value in (overrides.get("cluster") or {}).items() if key != "scheduler_address"}
    ours = Settings(**{**overrides, "cluster": asked}).cluster
    if address not in ("", ours.scheduler_address, *ours.allowed_schedulers):
        raise UsageError(
            f"{address} is not among the Dask schedulers that this worker may connect to, and could run code here: "
            "name it in the worker's own environment (SUMMIDX_CLUSTER__ALLOWED_SCHEDULERS) or file "
            "(`cluster.allowed_schedulers`), or leave scheduler_address out"
        )
