"""What a run is to run on, looked at before anything is planned or started for it."""

from flows.cluster import cuda_cluster_class
from flows.remote import check_certificates
from summidx.embedding.room import check_gpus
from summidx.settings import Settings


def check_cluster(run_settings: Settings) -> None:
    """Find out whether what the run is to run on can be used.

    GPUs: dask-cuda, the driver, and enough free memory for the embedding model on each. A scheduler that runs already:
    the certificates for it; whether it answers is found out when the first repository is built.

    Raises:
        UsageError: it cannot.
        EmbeddingError: the embedding model cannot be found.
    """
    settings = run_settings.cluster
    if settings.scheduler_address:
        check_certificates(settings.scheduler_address)
    elif settings.gpu_ids and not settings.force_cpu:
        cuda_cluster_class()
        check_gpus(run_settings)
