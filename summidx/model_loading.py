"""One model is loaded at a time in a process, and whatever that imports is imported by one thread.

The modules of transformers import each other late and in circles: where vLLM and sentence-transformers do so at once,
one of them finds half a module ("cannot import name 'PreTrainedConfig' from 'transformers'").
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LOADING = threading.Lock()
_LOOK_S = 0.2


def _never() -> bool:
    return False


@contextmanager
def one_model_at_a_time(given_up: Callable[[], bool] = _never) -> Iterator[None]:
    """Load a model in this block, imports included, when no other is being loaded in this process.

    Args:
        given_up: asked while it waits; once true, the block is entered at once, and must load nothing.
    """
    is_ours = _LOADING.acquire(timeout=_LOOK_S)
    while not is_ours and not given_up():
        is_ours = _LOADING.acquire(timeout=_LOOK_S)
    try:
        yield
    finally:
        if is_ours:
            _LOADING.release()
