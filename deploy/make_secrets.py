"""Writes deploy/.env and deploy/secrets/ for compose.yaml, once, with secrets that nobody else has.

It needs nothing but Python: a machine that runs containers need not have anything else of ours.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

HERE = Path(__file__).parent
#: Passwords stand in addresses, so they are made of letters and digits.
NAMES = ("SECRET_KEY", "POSTGRES_PASSWORD", "RABBITMQ_PASSWORD", "GRAFANA_PASSWORD")


def make(folder: Path) -> bool:
    """Whether there was anything to make. What is there stays: the database knows its password by now."""
    token = folder / "secrets" / "metrics_token"
    token.parent.mkdir(mode=0o700, exist_ok=True)
    # The folder is for its owner alone. The file in it is for whoever it is mounted to, who has another number.
    made = [_write(token, secrets.token_hex(), 0o644)]
    lines = ["# Made by `make up`. Other variables of compose.yaml can be set here as well: SHOP_URL, PUBLIC_URL."]
    lines += [f"{name}={secrets.token_hex()}" for name in NAMES]
    made.append(_write(folder / ".env", "\n".join([*lines, ""]), 0o600))
    return any(made)


def _write(file: Path, text: str, mode: int) -> bool:
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "w") as output:
        os.fchmod(descriptor, mode)  # whatever the umask is
        output.write(text)
    return True


if __name__ == "__main__":
    if make(HERE):
        print("Made deploy/.env and deploy/secrets: keep them, and keep them to yourself.")
