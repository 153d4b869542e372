"""Summaries from vLLM inside this process: no server to start, to reach or to share. The only importer of vllm.

vLLM batches by itself (continuous batching): every call goes to its engine the moment it has its place at the gate. The
engine is made with the first call and freed with `aclose`. Its model runs in child processes of vLLM's, which are tied
to this one: they hold the GPU's memory, and vLLM lets them live on when the process that made them is killed.
"""

import asyncio
import contextlib
import gc
import itertools
import logging
import multiprocessing
import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from summidx.accounting import CallRecord
from summidx.errors import ContextTooLong, LLMError, Overloaded, RequestRefused, ServerFault, UnknownModel
from summidx.model_loading import one_model_at_a_time
from summidx.settings import LLMSettings
from summidx.summarizers import ServedModel
from summidx.summarizers.chat import ChatSummarizer, Completion
from summidx.summarizers.prose import quote
from summidx.summarizers.vllm_local.leash import Leash
from summidx.summarizers.vllm_local.local_model import answer_shaping, find_local_model
from summidx.summarizers.vllm_local.vllm_log import VLLMLog

LOOK_S = 0.2
"""How often it is looked which processes vLLM has started while it loads."""
SHUTDOWN_S = 2.0
"""For vLLM's processes to end by themselves, which lets go of shared memory in order; then they are killed."""

logger = logging.getLogger(__name__)


class VLLMSummarizer(ChatSummarizer):
    """Asks a model that vLLM runs in this process for each summary. Its engine belongs to one event loop."""

    def __init__(self, settings: LLMSettings, served_model: ServedModel | None) -> None:
        """Make a summariser; nothing is loaded yet.

        Args:
            settings: the model, its engine, and how it is asked.
            served_model: what `find_local_model` found; None: it is looked for now.

        Raises:
            UsageError: vLLM is not installed, or settings do not fit together.
            UnknownModel: there is no such model.
        """
        model = served_model or find_local_model(settings)
        shaping = answer_shaping(settings.engine_args)
        super().__init__(
            settings, model, LocalEngine(settings, model), identity={"provider": "vllm", "engine": shaping}
        )

    def __repr__(self) -> str:
        return f"VLLMSummarizer({self._model.id!r})"


@dataclass(slots=True)
class _Loaded:
    """An engine, what its processes are tied with, and whether it has ever answered."""

    engine: Any
    leash: Leash
    children: set[BaseProcess] = field(default_factory=set)
    below: dict[int, Any] = field(default_factory=dict)
    """What the children have started: a worker for each GPU, where there are several."""
    answered: bool = False


class LocalEngine:
    """vLLM's asynchronous engine: loaded once, when first needed, and again after its processes died."""

    def __init__(self, settings: LLMSettings, model: ServedModel) -> None:
        self._settings = settings
        self._model = model
        self._context_tokens = model.max_model_len or 0
        self._loading: asyncio.Task[_Loaded] | None = None
        self._loaded: _Loaded | None = None
        self._ids = itertools.count()

    async def complete(
        self, payload: Mapping[str, Any], record: CallRecord, *, timeout_s: float | None = None
    ) -> Completion:
        """One chat completion, asked for once, within `timeout_s` (default: that of a call); loading is not in it.

        Raises:
            ContextTooLong: prompt and answer are longer than the context; nothing was sent.
            Overloaded: there was no answer in time.
            ServerFault: the engine failed. Where it died, it is loaded again.
            RequestRefused: vLLM does not take the request.
            UnknownModel: the model cannot be loaded, or its engine dies before it answers anything.
        """
        loaded = await self._running()
        timeout_s = timeout_s or self._settings.timeout_s
        failure: LLMError
        try:
            async with asyncio.timeout(timeout_s):
                return await self._generate(loaded, payload, record)
        except TimeoutError:
            failure = Overloaded(
                f"vLLM did not answer within {timeout_s:g} s; raise `llm.timeout_s` if it is only slow"
            )
        except LLMError:
            raise
        except Exception as error:
            logger.debug("vLLM failed", exc_info=error)
            failure = self._map_error(error, loaded)
        raise failure  # here, without vLLM's own as its context: it may go to a process that cannot unpickle that

    async def count_tokens(self, payload: Mapping[str, Any]) -> int | None:
        """Tokens of a prompt, its chat template applied, as the model's tokenizer makes them."""
        prompt = await self._render((await self._running()).engine, payload)
        return len(prompt["prompt_token_ids"])

    async def aclose(self) -> None:
        """End the engine and its processes, one that is still loading too; the next call loads a new one."""
        loading, self._loading, self._loaded = self._loading, None, None
        if loading is None:
            return
        loading.cancel()
        with contextlib.suppress(asyncio.CancelledError, LLMError):
            await _end(await loading)

    async def _running(self) -> _Loaded:
        return await asyncio.shield(self._loading or self._start_loading())

    def _start_loading(self, dead: _Loaded | None = None) -> asyncio.Task[_Loaded]:
        self._loading = asyncio.create_task(self._load(dead))
        self._loading.add_done_callback(_note_seen)
        return self._loading

    async def _generate(self, loaded: _Loaded, payload: Mapping[str, Any], record: CallRecord) -> Completion:
        engine = loaded.engine
        prompt = await self._render(engine, payload)
        tokens = len(prompt["prompt_token_ids"])
        if tokens + payload["max_tokens"] > self._context_tokens:
            raise ContextTooLong(f"the prompt has {tokens} tokens", self._context_tokens, tokens)
        parameters = _sampling_parameters(engine, payload)
        record.sent()
        started = time.monotonic()
        results = [each async for each in engine.generate(prompt, parameters, f"summidx-{next(self._ids)}")]
        record.answered(time.monotonic() - started)
        if not results or not results[-1].outputs or results[-1].outputs[0].finish_reason in (None, "abort", "error"):
            raise ServerFault("vLLM gave a request up")
        loaded.answered = True
        output = results[-1].outputs[0]
        record.spent(payload["messages"], tokens, len(output.token_ids))
        return Completion(output.text, output.finish_reason, tokens, len(output.token_ids))

    async def _render(self, engine: Any, payload: Mapping[str, Any]) -> Any:  # noqa: ANN401 - vLLM is an optional part
        """The prompt's tokens, as vLLM's own server would make them of the messages."""
        from vllm.renderers.params import ChatParams

        template = (payload.get("extra_body") or {}).get("chat_template_kwargs") or {}
        chat = ChatParams(chat_template_kwargs={"add_generation_prompt": True, **template})
        # The length is looked at here, to the token; vLLM's own check is of the prompt without its answer.
        tokenize = replace(engine.renderer.default_chat_tok_params, max_total_tokens=None)
        _, (prompt,) = await engine.renderer.render_chat_async([payload["messages"]], chat, tokenize)
        return prompt

    async def _load(self, dead: _Loaded | None) -> _Loaded:
        """Load the model in a thread; meanwhile tie each process that vLLM starts. What is dead is cleared away before.

        Raises:
            UnknownModel: vLLM cannot load it.
        """
        if dead is not None:
            await _end(dead)  # it may still hold the memory
        others = set(multiprocessing.active_children())
        given_up = False

        def make() -> None:
            with one_model_at_a_time(lambda: given_up):
                engine_args = None if given_up else _import_engine_args()
                if given_up:
                    raise UnknownModel("the run ended before its model was loaded")
                _make_engine(engine_args, self._settings, self._model, loaded)

        started = time.monotonic()
        leash = Leash()
        loaded = _Loaded(None, leash)
        log = VLLMLog()
        with ThreadPoolExecutor(1, "summidx-vllm") as thread:
            making = asyncio.get_running_loop().run_in_executor(thread, make)
            try:
                while not making.done():
                    await asyncio.wait({making}, timeout=LOOK_S)
                    _tie_new(loaded, others)
                making.result()
            except asyncio.CancelledError:
                given_up = True
                while not making.done():  # its process gone, vLLM gives up as well
                    _tie_new(loaded, others)
                    _kill(loaded)
                    await asyncio.wait({making}, timeout=LOOK_S)
                making.exception()  # seen; what it says follows from giving up
                await _end(loaded)
                raise
            except LLMError:
                await _end(loaded)
                raise
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
                if isinstance(error, RuntimeError):  # of its processes vLLM says no more than that they failed
                    reason = log.read_cause() or reason
                await _end(loaded)
                raise UnknownModel(
                    f"vLLM cannot load the model {self._settings.model} ({quote(reason)}): see `llm.model` and "
                    "`llm.engine_args`; out of memory, lower max_model_len or gpu_memory_utilization in them"
                ) from error
        logger.info("vLLM loaded %s in %.0f s", self._model.id, time.monotonic() - started)
        self._loaded = loaded
        return loaded

    def _map_error(self, error: Exception, loaded: _Loaded) -> LLMError:
        from vllm.exceptions import VLLMClientError
        from vllm.v1.engine.exceptions import EngineDeadError

        if isinstance(error, VLLMClientError):
            return RequestRefused(f"vLLM refuses the request: {quote(str(error))}")
        if not isinstance(error, EngineDeadError):
            return ServerFault(f"vLLM failed: {type(error.__cause__ or error).__name__}: {quote(str(error))}")
        if loaded.answered and self._loaded is loaded:  # else somebody has seen to it
            self._loaded = None
            logger.warning("vLLM's engine died; the model is loaded again")
            self._start_loading(dead=loaded)
        if not loaded.answered:
            return UnknownModel(
                f"vLLM's engine died before it answered anything with {self._settings.model}: out of memory, lower "
                "max_model_len or gpu_memory_utilization in `llm.engine_args`; its messages stand above"
            )
        return ServerFault("vLLM's engine died")


def _make_engine(engine_args: Any, settings: LLMSettings, model: ServedModel, loaded: _Loaded) -> None:  # noqa: ANN401
    """Make an engine and put it in its place. No variable holds it: vLLM keeps this frame, and so what is in it."""
    from vllm.v1.engine.async_llm import AsyncLLM

    folder = Path(settings.model).expanduser()
    is_folder = folder.is_dir()
    arguments = {
        "model": str(folder.resolve()) if is_folder else settings.model,
        "revision": None if is_folder else model.root,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        **settings.engine_args,
        "max_model_len": model.max_model_len,
    }
    loaded.engine = AsyncLLM.from_engine_args(engine_args(**arguments))
    _sampling_parameters(loaded.engine, {"extra_body": settings.extra_body})


def _import_engine_args() -> Any:  # noqa: ANN401
    """Import vLLM, and have it start its processes afresh: forked, one with threads and a CUDA context would hang."""
    os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    from vllm.engine.arg_utils import AsyncEngineArgs

    return AsyncEngineArgs


def _sampling_parameters(engine: Any, payload: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """Those of the request over the model's own defaults, as vLLM's server has it."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    extra = {name: value for name, value in (payload.get("extra_body") or {}).items() if name != "chat_template_kwargs"}
    if unknown := sorted(extra.keys() - set(SamplingParams.__struct_fields__)):
        raise UnknownModel(
            f"`llm.extra_body` holds {', '.join(unknown)}, which is neither chat_template_kwargs nor a sampling "
            "parameter of this vLLM: leave it out"
        )
    own = {name: payload[name] for name in ("temperature", "seed", "max_tokens") if name in payload}
    defaults = engine.model_config.get_diff_sampling_param()
    return SamplingParams(**{**defaults, **extra, **own, "output_kind": RequestOutputKind.FINAL_ONLY})


def _tie_new(loaded: _Loaded, others: set[BaseProcess]) -> None:
    import psutil  # comes with vLLM

    for child in set(multiprocessing.active_children()) - others - loaded.children:
        loaded.children.add(child)
        if child.pid is not None:
            loaded.leash.tie(child.pid)
    for child in loaded.children:
        with contextlib.suppress(psutil.Error):  # it ended
            for process in psutil.Process(child.pid).children(recursive=True):
                if process.pid not in loaded.below:
                    loaded.below[process.pid] = process
                    loaded.leash.tie(process.pid)


def _kill(loaded: _Loaded) -> None:
    import psutil

    for child in loaded.children:
        child.kill()
    for process in loaded.below.values():
        with contextlib.suppress(psutil.Error):
            process.kill()


async def _end(loaded: _Loaded) -> None:
    """End an engine, its processes and their leash."""
    await asyncio.to_thread(_end_now, loaded)


def _end_now(loaded: _Loaded) -> None:
    engine, loaded.engine = loaded.engine, None
    if engine is not None:
        with contextlib.suppress(Exception):  # of a dead engine there is less to end
            engine.shutdown(timeout=SHUTDOWN_S)
    _kill(loaded)
    for child in loaded.children:
        child.join(SHUTDOWN_S)
    loaded.leash.release()
    del engine
    gc.collect()  # its finaliser does not work any more at the end of the process, and says so


def _note_seen(task: asyncio.Task[_Loaded]) -> None:
    if not task.cancelled():
        task.exception()  # seen here, should nobody wait for it any more
