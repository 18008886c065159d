"""Counters of several server processes, told as one.

A scrape meets one of the processes. Where they share the folder PROMETHEUS_MULTIPROC_DIR, each keeps its numbers in
files there, and whoever is asked adds them up. `manage.py serve` and `python -m recommender.service` see to it.
"""

from __future__ import annotations

import os
from pathlib import Path

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead


def counted() -> CollectorRegistry:
    """All that was counted, by this process and by those that it shares a folder with.

    What a process counted before it died stays, or the sums would fall; what it said of itself (whether its circuit is
    open) goes with it.
    """
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if not folder:
        return REGISTRY
    for pid in {int(file.stem.rpartition("_")[2]) for file in Path(folder).glob("gauge_live*_*.db")}:
        if not Path(f"/proc/{pid}").exists() and Path("/proc/self").exists():
            mark_process_dead(pid, folder)  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]
    return registry
