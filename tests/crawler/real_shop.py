"""The copy of the real shop, where REAL_SHOP_DIR names its folder."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

FOLDER = os.environ.get("REAL_SHOP_DIR", "")


def unpacked(folder: Path) -> Path:
    """The root of the site, unpacked below `folder`."""
    # Python before 3.11.4 knows no filter; later ones warn without one, and a warning is an error here.
    safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    with tarfile.open(Path(FOLDER) / "site.tar.gz") as archive:
        archive.extractall(folder, **safely)  # type: ignore[arg-type]  # noqa: S202 - an archive of ours
    return folder / "site"
