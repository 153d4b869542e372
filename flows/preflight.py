"""What a run is to run on, looked at before anything is planned or started for it."""

from flows.cluster import cuda_cluster_class
from flows.remote import check_certificates
from summidx.embedding.room import check_gpus, find_idle_gpus
from summidx.settings import Settings


def check_cluster(run_settings: Settings) -> list[str]:
    """Find out whether what the run is to run on can be used.

    GPUs: dask-cuda, the driver, and enough free memory for the embedding model on each. A scheduler that runs already:
    the certificates for it; whether it answers is found out when the first repository is built.

    Returns:
        A line for each thing that could be better.

    Raises:
        UsageError: it cannot.
        EmbeddingError: the embedding model cannot be found.
    """
    settings = run_settings.cluster
    if settings.scheduler_address:
        check_certificates(settings.scheduler_address)
    elif settings.local_gpus:
        cuda_cluster_class()
        check_gpus(run_settings)
    return list(filter(None, [find_idle_gpus(run_settings)]))
