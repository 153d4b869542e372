"""What Prefect and Dask run; the only place that imports them."""
