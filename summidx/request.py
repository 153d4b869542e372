"""What a run is asked to do: the flow's parameters, turned into repositories and settings."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from summidx import sources
from summidx.cache import check_cache_url
from summidx.errors import UsageError
from summidx.index_uri import normal_index_root
from summidx.records import RepoRef
from summidx.settings import Settings, load_settings
from summidx.store.names import escape_name
from summidx.workers import fit_workers

SETTINGS = {
    "index_root": "index_root",
    "levels": "levels",
    "tests": "tests",
    "llm_provider": "llm.provider",
    "llm_model": "llm.model",
    "llm_base_url": "llm.base_url",
    "llm_timeout": "llm.timeout_s",
    "max_retries": "llm.max_retries",
    "llm_concurrency": "llm.concurrency",
    "summary_language": "llm.summary_language",
    "prompt_file": "llm.prompt_file",
    "embedding_model": "embedding.model",
    "num_processes": "cluster.num_processes",
    "threads_per_worker": "cluster.threads_per_worker",
    "gpu_ids": "cluster.gpu_ids",
    "force_cpu": "cluster.force_cpu",
    "scheduler_address": "cluster.scheduler_address",
    "skip_existing": "skip_existing",
    "retry_degraded": "retry_degraded",
    "retry_known": "retry_known",
    "confirm_rebuild": "confirm_rebuild",
    "stop_after": "stop_after",
    "repo_timeout": "repo_timeout",
    "cache_policy": "cache.policy",
    "stage": "stage",
}
"""The setting that each parameter goes before."""
PLACES = ("llm_base_url", "scheduler_address")


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """What was asked for. A setting that is not in `overrides` is taken from environment, file or default."""

    repos_root: str
    specs: tuple[str, ...]
    repos_file: str
    overrides: Mapping[str, Any]
    limit: int | None = None
    """Only the first so many repositories of the plan, the largest; None: all."""
    resume_failed: bool = False
    """The repositories are those that the last run of the index root did not finish."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """All that were given, `resume_failed` left out."""

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> "BuildRequest":
        """Read the flow's parameters; None, "" and no repository (empty fields of a form) mean: not given."""
        given = {name: value for name, value in parameters.items() if value is not None and value not in ("", ())}
        overrides: dict[str, Any] = {}
        for name, setting in SETTINGS.items():
            if name in given:
                group, _, field = setting.rpartition(".")
                (overrides.setdefault(group, {}) if group else overrides)[field] = given[name]
        return cls(
            repos_root=given.get("repos_root", ""),
            specs=tuple(given.get("repos", ())),
            repos_file=given.get("repos_file", ""),
            overrides=overrides,
            limit=_read_limit(given.get("limit")),
            resume_failed=bool(given.pop("resume_failed", False)),
            parameters=given,
        )

    def resuming(self, earlier: Mapping[str, Any]) -> "BuildRequest":
        """The same, with what is not given here as the run had it that is resumed (its `parameters`).

        Not taken from there: which repositories there are, since its plan says that; and to whom code goes or from
        whom it comes, which a file under the index root must not decide.
        """
        inherited = {name: value for name, value in earlier.items() if name in SETTINGS and name not in PLACES}
        return replace(self.from_parameters({**inherited, **self.parameters}), resume_failed=self.resume_failed)

    @property
    def names_repositories(self) -> bool:
        """True where parameters say which repositories are meant; else the settings do."""
        return bool(self.repos_root or self.specs or self.repos_file)

    def settings(self, *, log_dir: str | None = None, cache_url: str | None = None, from_api: bool = False) -> Settings:
        """The settings, with paths that mean the same in every process.

        Args:
            log_dir: goes before the setting of that name.
            cache_url: goes before `cache.url`. It is no parameter of a run: those are shown to everybody who may see
                the run, and a database's URL holds its password.
            from_api: it came over Prefect's API (a run of a deployment), from whoever may start a run there, and not
                from who started this process: no LLM server, Dask scheduler or bucket that the process's own settings
                do not name.

        Raises:
            UsageError: they cannot be used.
        """
        overrides = {**self.overrides, **({"log_dir": log_dir} if log_dir else {})}
        if cache_url:
            overrides["cache"] = {**overrides.get("cache", {}), "url": cache_url}
        settings = load_settings(overrides, from_api=from_api)
        places = {
            "index_root": normal_index_root(settings.index_root),
            "log_dir": str(Path(settings.log_dir).expanduser().absolute()),
        }
        settings = settings.model_copy(update=places)
        check_cache_url(settings.cache_url)
        return fit_workers(settings)[0]

    def warnings(self) -> list[str]:
        """What is done otherwise than was asked for; a line each."""
        settings = load_settings(self.overrides)
        root = self._root(settings)
        unnamable = sources.find_unnamable(root) if root else ()
        return fit_workers(settings)[1] + [
            f"{folder} is left out: its name is no printable UTF-8, so no index can be named after it; rename it"
            for folder in unnamable
        ]

    def _root(self, settings: Settings) -> str:
        """The folder whose sub-folders are built; "" where only single repositories are."""
        return self.repos_root or ("" if self.names_repositories or self.resume_failed else settings.repos_root)

    def repos(self, settings: Settings) -> list[RepoRef]:
        """The repositories that are asked for; where none is named, those under the setting `repos_root`.

        Raises:
            UsageError: there is none, or a name cannot be used.
        """
        specs = [*self.specs, *_read_specs(self.repos_file)]
        root = self._root(settings)
        refs = [*(sources.discover(root) if root else ()), *map(sources.parse_spec, specs)]
        if not refs:
            where = f"no sub-folder of {root} is a repository" if root else "no repository is named"
            raise UsageError(f"{where}, so there is nothing to build: use --repos-root, --repo or --repos-file")
        refs = list(dict.fromkeys(refs))
        sources.check_names(refs)
        for ref in refs:
            escape_name(ref.name)  # refuses a name that no folder can have
        return refs


def _read_limit(limit: int | None) -> int | None:
    if limit is not None and limit < 1:
        raise UsageError(f"a limit of {limit} repositories leaves nothing to do: give 1 or more, or leave it out")
    return limit


def _read_specs(path: str) -> list[str]:
    if not path:
        return []
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the file of repositories {path} cannot be read ({error}): name another") from None
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
