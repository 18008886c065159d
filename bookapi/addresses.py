"""The address of a client, as far as it can be believed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import Any

from django.conf import settings

_WITH_PORT = re.compile(r"\[(?P<v6>[^\]]*)\](?::\d+)?|(?P<v4>[0-9.]+):\d+", re.ASCII)


def client_address(meta: Mapping[str, Any]) -> str:
    """The network address of the client, for counting: an IPv4 address, the /64 of an IPv6 address, or "unknown".

    `X-Forwarded-For` is what each proxy saw, appended on the right; whatever stands left of the entries of our own
    proxies (`TRUSTED_PROXIES` of them) can be made up. With none, the header is not looked at.
    """
    proxies = settings.TRUSTED_PROXIES
    if proxies and (forwarded := meta.get("HTTP_X_FORWARDED_FOR")):
        seen = forwarded.rsplit(",", proxies)
        if address := _normal(seen[-min(proxies, len(seen))].strip()):
            return address
    return _normal(meta.get("REMOTE_ADDR") or "") or "unknown"


@lru_cache(maxsize=4096)
def _normal(text: str) -> str:
    if match := _WITH_PORT.fullmatch(text):
        text = match["v6"] or match["v4"] or ""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped:
            return str(address.ipv4_mapped)
        # Whoever has one address of a /64 has all of them.
        return f"{IPv6Address(int(address) >> 64 << 64)}/64"
    return str(address)
