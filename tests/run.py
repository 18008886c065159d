"""`python -m tests.run`: the suite on SQLite, then what needs a database on PostgreSQL."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Collection, Mapping
from tempfile import TemporaryDirectory

from tests.services import NoPostgres, postgres

#: More processes than this only wait for the disk.
PROCESSES = ["-n", "logical", "--maxprocesses", "8"]
VERDICTS = {0: "passed", 1: "FAILED", 5: "no test was run"}


def main(arguments: list[str]) -> int:
    """0 if both halves passed. A PostgreSQL that is not there fails where CI=true, and is told elsewhere."""
    with TemporaryDirectory(prefix="bookapi-tests-") as folder:
        # Not the checkout's own var/: a catalogue may be served from it at this moment.
        sqlite = {"DATABASE_URL": "", "VAR_DIR": folder}
        codes = {"SQLite": _pytest("SQLite", sqlite, arguments)}
        reason = ""
        try:
            with postgres() as url:
                # The other tests passed above, and a database makes no difference to them.
                only = ["-p", "tests.database_only", *arguments]
                codes["PostgreSQL"] = _pytest("PostgreSQL", {"DATABASE_URL": url, "VAR_DIR": folder}, only)
        except NoPostgres as error:
            reason = str(error)
    print()
    for name, code in codes.items():
        print(f"{name}: {VERDICTS.get(code, f'FAILED, pytest ended with {code}')}")
    if reason:
        print(f"PostgreSQL: NOT RUN, {reason}")
    missing = bool(reason) and os.environ.get("CI") == "true"
    return 1 if missing or not is_success(codes.values(), chosen=bool(arguments)) else 0


def is_success(codes: Collection[int], *, chosen: bool) -> bool:
    """Whether pytest's exit codes are fine. A choice of tests (`-k`) may leave one half empty, but not both."""
    return 0 in codes and set(codes) <= ({0, 5} if chosen else {0})


def _pytest(name: str, environment: Mapping[str, str], arguments: list[str]) -> int:
    """pytest's exit code: 0 passed, 1 failed, 5 found no test."""
    print(f"\n=== {name}", flush=True)
    command = [sys.executable, "-m", "pytest", *PROCESSES, *arguments]
    return subprocess.run(command, env={**os.environ, **environment}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
