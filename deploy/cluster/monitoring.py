"""What Prometheus is told: the rules of deploy/monitoring, and where the processes of this cluster are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from deploy.cluster.site import HOST, Site
from deploy.cluster.supervisor import Kept

RULES = Path(__file__).resolve().parents[1] / "monitoring"
#: Kinds of processes that are asked for measurements, which is what each is asked under the name of.
JOBS = ("api", "auth", "admin", "prediction", "gateway")


def write(site: Site, gateway_port: int, several: list[Kept]) -> Path:
    """The configuration's file. The targets are in a second one, which Prometheus reads again when it changes."""
    folder = site.folder / "prometheus"
    folder.mkdir(parents=True, exist_ok=True)
    write_targets(site, gateway_port, several)
    jobs = [_job(site, name, folder) for name in JOBS]
    configuration = {
        "global": {"scrape_interval": "15s", "evaluation_interval": "15s"},
        "rule_files": [str(path) for path in sorted(RULES.glob("*rules*.yml"))],
        "scrape_configs": jobs,
    }
    file = folder / "prometheus.yml"
    file.write_text(json.dumps(configuration, indent=1))  # JSON is YAML
    return file


def write_targets(site: Site, gateway_port: int, several: list[Kept]) -> None:
    """Say where the processes are now."""
    folder = site.folder / "prometheus"
    for job in JOBS:
        addresses = [kept.url.removeprefix("http://") for kept in several if kept.kind == job and kept.url]
        if job == "gateway":
            addresses = [f"{HOST}:{gateway_port}"]
        draft = folder / f"targets-{job}.draft"
        draft.write_text(json.dumps([{"targets": addresses}]))
        draft.replace(folder / f"targets-{job}.json")


def _job(site: Site, name: str, folder: Path) -> dict[str, Any]:
    job: dict[str, Any] = {"job_name": name, "file_sd_configs": [{"files": [str(folder / f"targets-{name}.json")]}]}
    if name in {"api", "auth", "admin"}:
        job["authorization"] = {"credentials_file": str(site.folder / "metrics_token")}
    return job
