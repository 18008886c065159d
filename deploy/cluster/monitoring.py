"""Prometheus with the jobs and rules of deploy/monitoring, at the addresses of this cluster's processes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from deploy.cluster.site import HOST, Site
from deploy.cluster.supervisor import Kept

CONTAINERS = Path(__file__).resolve().parents[1] / "monitoring" / "prometheus.yml"
#: The job that asks each kind of process.
JOBS = {"api": "api", "auth": "api", "admin": "api", "prediction": "prediction"}


def write(site: Site, several: Sequence[Kept]) -> Path:
    """The configuration's file. Where processes are stands in others, which Prometheus reads again when they change."""
    folder = site.folder / "prometheus"
    folder.mkdir(parents=True, exist_ok=True)
    configuration = yaml.safe_load(CONTAINERS.read_text(encoding="utf-8"))
    configuration["rule_files"] = [str(CONTAINERS.parent / name) for name in configuration["rule_files"]]
    for job in configuration["scrape_configs"]:
        for containers_only in ("dns_sd_configs", "static_configs", "relabel_configs"):
            job.pop(containers_only, None)
        if "authorization" in job:
            job["authorization"]["credentials_file"] = str(site.metrics_token_file)
        job["file_sd_configs"] = [{"files": [str(_targets(site, job["job_name"]))]}]
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(configuration), encoding="utf-8")
    for name in ("gateway-internal", "rabbitmq-metrics", "prometheus"):
        job_name = name.partition("-")[0]
        _say(_targets(site, job_name), [{"targets": [f"{HOST}:{site.ports[name]}"], "labels": {}}])
    write_targets(site, several)
    return file


def write_targets(site: Site, several: Sequence[Kept]) -> None:
    """Say where the processes are now."""
    for job in set(JOBS.values()):
        groups = [
            {"targets": [kept.url.removeprefix("http://")], "labels": {"service": kept.kind}}
            for kept in several
            if JOBS.get(kept.kind) == job and kept.url
        ]
        _say(_targets(site, job), groups)


def _targets(site: Site, job: str) -> Path:
    return site.folder / "prometheus" / f"targets-{job}.json"


def _say(file: Path, groups: list[dict[str, Any]]) -> None:
    draft = file.with_suffix(".draft")
    draft.write_text(json.dumps(groups))
    draft.replace(file)
