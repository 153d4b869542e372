"""How many worker processes a run has, and on which GPUs: what was asked for, and what is done of it. Pure."""

from summidx.errors import UsageError
from summidx.settings import ClusterSettings, Provider, Settings


def fit_workers(settings: Settings) -> tuple[Settings, list[str]]:
    """The settings with `cluster.num_processes` as it will be, and a line for each thing that is not done as asked.

        gpu_ids, num_processes not set      one process for each GPU
        more processes than GPUs            one process for each GPU, with a warning
        fewer                               the first GPUs, one process each, with a warning
        force_cpu                           num_processes; gpu_ids counts for nothing
        scheduler_address                   the scheduler's workers; num_processes and gpu_ids count for nothing
        vLLM in the worker                  one process, which has all the GPUs

    Raises:
        UsageError: vLLM is to run in workers of a scheduler that runs already.
    """
    cluster = settings.cluster
    asked = cluster.num_processes if "num_processes" in cluster.model_fields_set else None
    if settings.llm.provider is Provider.VLLM:
        fitted, warnings = _fit_to_vllm(cluster, asked)
    elif cluster.scheduler_address:
        fitted, warnings = cluster, _warn_of_scheduler(cluster, asked)
    elif cluster.gpu_ids and not cluster.force_cpu:
        fitted, warnings = _fit_to_gpus(cluster, asked)
    else:
        fitted, warnings = cluster, []
    return settings.model_copy(update={"cluster": fitted}), warnings


def _fit_to_vllm(cluster: ClusterSettings, asked: int | None) -> tuple[ClusterSettings, list[str]]:
    """A single process: each would load an LLM of its own."""
    if cluster.scheduler_address:
        raise UsageError(
            "vLLM runs inside one worker process, which a scheduler that has its own workers does not promise: leave "
            "--scheduler-address out, or serve the model and name its server with --llm-provider openai"
        )
    warning = (
        f"--num-processes {asked} is not done: vLLM runs inside the worker process, and there is one; it uses more "
        "GPUs by tensor_parallel_size in `llm.engine_args`"
    )
    return cluster.model_copy(update={"num_processes": 1}), [warning] if asked not in (None, 1) else []


def _fit_to_gpus(cluster: ClusterSettings, asked: int | None) -> tuple[ClusterSettings, list[str]]:
    ids = cluster.gpu_ids[:asked]
    warnings = []
    if asked is not None and asked > len(ids):
        warnings.append(
            f"--num-processes {asked} is cut to {len(ids)}: a worker process has a GPU for itself, and --gpu-ids names "
            f"{_list(ids)}"
        )
    elif len(ids) < len(cluster.gpu_ids):
        warnings.append(
            f"--num-processes {asked} leaves GPU {_list(cluster.gpu_ids[len(ids) :])} of --gpu-ids unused: a worker "
            "process has one GPU; leave --num-processes out for one process on each"
        )
    return cluster.model_copy(update={"gpu_ids": ids, "num_processes": len(ids)}), warnings


def _warn_of_scheduler(cluster: ClusterSettings, asked: int | None) -> list[str]:
    given = [
        *([f"--num-processes {asked}"] if asked is not None else ()),
        *([f"--gpu-ids {_list(cluster.gpu_ids)}"] if cluster.gpu_ids else ()),
    ]
    if not given:
        return []
    warning = (
        f"{' and '.join(given)} count{'s' if len(given) == 1 else ''} for nothing: the workers of the scheduler "
        f"{cluster.scheduler_address} are used as they are, with the GPUs that they were started with"
    )
    return [warning]


def _list(ids: tuple[int, ...]) -> str:
    return ",".join(map(str, ids))
