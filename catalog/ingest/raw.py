"""What was scraped, as it is kept: every character of it, on every database."""

from __future__ import annotations

import json
from typing import Any

import orjson


def storable(raw: dict[str, Any]) -> dict[str, Any]:
    """`raw` as a JSON column takes it: PostgreSQL's knows neither NUL nor halves of surrogate pairs.

    Nearly always `raw` itself; else its JSON as text, in which those are escapes.
    """
    try:
        if rb"\u0000" not in orjson.dumps(raw):
            return raw
    except TypeError:
        pass
    return {"json": json.dumps(raw, default=str)}


def restored(kept: dict[str, Any]) -> dict[str, Any]:
    """What `storable` was given."""
    if kept.keys() == {"json"}:
        raw: dict[str, Any] = json.loads(kept["json"])
        return raw
    return kept
