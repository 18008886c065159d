"""What `make cluster` shows: every process with its address and state, and what happens, as it happens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.table import Table

from deploy.cluster.cluster import Cluster

STYLES = {"ready": "green", "starting": "yellow", "restarting": "bold red", "ending": "yellow", "ended": "dim"}


@contextmanager
def showing(console: Console, rows: Callable[[], list[dict[str, Any]]]) -> Iterator[None]:
    """The table at the end of a terminal, always as things are now; nothing where there is no terminal."""
    if not console.is_terminal:
        yield
        return
    with Live(console=console, get_renderable=lambda: table(rows()), refresh_per_second=2, transient=True):
        yield


def table(rows: list[dict[str, Any]]) -> Table:
    """One row a process."""
    shown = Table(box=None, pad_edge=False)
    for name in ("process", "state", "address", "pid", "restarts"):
        shown.add_column(name, no_wrap=name != "address", justify="right" if name in {"pid", "restarts"} else "left")
    for row in rows:
        style = STYLES.get(row["state"], "")
        shown.add_row(
            row["name"],
            f"[{style}]{row['state']}[/{style}]",
            row["address"],
            str(row["pid"] or ""),
            str(row["restarts"] or ""),
        )
    return shown


def welcome(cluster: Cluster, account: str, password: str, why: str) -> Panel:
    """Where everything is, and the first account's password, which is not shown again."""
    shown = Table.grid(padding=(0, 2))
    shown.add_column(style="bold", no_wrap=True)
    shown.add_column(overflow="fold")
    shown.add_row("API", f"{cluster.url}/api/v1")
    shown.add_row("Documentation", f"{cluster.url}/api/v1/docs")
    shown.add_row("Administration", f"{cluster.url}/admin/")
    if password:
        shown.add_row("Account", f"{account}, password {password}  (shown this once)")
    else:
        shown.add_row("Accounts", "as before")
    shown.add_row("Shop", f"{cluster.site.shop.name} at {cluster.site.shop_url}, {why}")
    shown.add_row("Database", cluster.site.database_url)
    shown.add_row("Broker", cluster.site.broker_url)
    if cluster.size.prometheus:
        shown.add_row("Prometheus", cluster["prometheus"].url)
    shown.add_row("Logs", str(cluster.site.logs))
    return Panel(shown, title="Book catalogue, scaled out", border_style="green", expand=False)


def stopwatch() -> Callable[[], str]:
    """Says how long ago it was made: "12 s"."""
    begun = time.monotonic()
    return lambda: f"{time.monotonic() - begun:.0f} s"
