"""One model is loaded at a time in a process, and whatever that imports is imported by one thread.

The modules of transformers import each other late and in circles: where vLLM and sentence-transformers do so at once,
one of them finds half a module ("cannot import name 'PreTrainedConfig' from 'transformers'").
"""

import threading

MODEL_LOADING = threading.Lock()
"""Held while a model is loaded, imports included."""
