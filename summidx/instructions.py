"""A user's own instructions for the summaries of each level, in the place of the built-in ones."""

import tomllib
from collections.abc import Mapping
from pathlib import Path

from summidx.errors import UsageError
from summidx.records import Level

INSTRUCTION_KEYS = (*(level.value for level in Level), "system")
"""What instructions may be given for: a level, or `system`: who the model is and what it writes for, at all levels."""
MAX_INSTRUCTION_CHARS = 4000
"""It stands in every prompt of its level, and takes its room from the code."""
MAX_PROMPT_FILE_BYTES = 200_000


def load_instructions(path: str) -> dict[str, str]:
    """Read a prompt file: TOML with a text for any of `INSTRUCTION_KEYS`.

    Raises:
        UsageError: it cannot be read, is no TOML, or holds something else.
    """
    try:
        with Path(path).expanduser().open("rb") as file:
            data = file.read(MAX_PROMPT_FILE_BYTES + 1)
        if len(data) > MAX_PROMPT_FILE_BYTES:
            raise UsageError(f"the prompt file {path} is larger than {MAX_PROMPT_FILE_BYTES} bytes: name a TOML file")
        found = tomllib.loads(data.decode("utf-8"))
    except FileNotFoundError:
        raise UsageError(f"the prompt file {path} does not exist: create it, or name another") from None
    except OSError as error:
        raise UsageError(f"the prompt file {path} cannot be read ({error.strerror}): name another") from None
    except (ValueError, RecursionError) as error:  # tomllib's and the codec's errors are ValueErrors
        said = " ".join(str(error).split())
        raise UsageError(
            f"the prompt file {path} cannot be read as TOML in UTF-8 ({said}): mend it, or name another"
        ) from None
    try:
        return check_instructions(found)
    except ValueError as error:
        raise UsageError(f"the prompt file {path} cannot be used: {error}") from None


def check_instructions(found: Mapping[str, object]) -> dict[str, str]:
    """Instructions as they are used: known keys, bounded texts, no white space around.

    Raises:
        ValueError: there is something else; the message says what, on one line.
    """
    checked = {}
    for key, text in found.items():
        if key not in INSTRUCTION_KEYS:
            raise ValueError(f"{key[:60]!r} is none of {', '.join(INSTRUCTION_KEYS)}")
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"{key!r} must be a text that is not empty")
        if len(text) > MAX_INSTRUCTION_CHARS:
            raise ValueError(f"{key!r} has {len(text)} characters, more than the {MAX_INSTRUCTION_CHARS} allowed")
        checked[key] = "\n".join(line.rstrip() for line in text.strip().splitlines())
    return checked
