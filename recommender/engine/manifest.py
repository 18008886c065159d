"""What an artifact says of itself: what it was made of, with which libraries, and the sum of each of its files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any

import orjson

from recommender.engine.errors import DamagedArtifact, ForeignArtifact

MANIFEST = "manifest.json"
FORMAT = 2  # of the artifact: raised when an older reader would misread a newer folder
#: Whose files, or whose arithmetic, the artifact depends on. Another major version may read them otherwise.
LIBRARIES = ("numpy", "scipy", "scikit-learn")


def libraries() -> dict[str, str]:
    return {name: version(name) for name in LIBRARIES}


def sums(folder: Path) -> dict[str, dict[str, Any]]:
    """{path within the folder: {sha256, bytes}} of every file but the manifest."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    names = [name for name in names if name != MANIFEST]
    return {name: {"sha256": _sum(folder / name), "bytes": (folder / name).stat().st_size} for name in names}


def read(folder: Path) -> dict[str, Any]:
    """The manifest of an artifact that this program can read.

    Raises:
        DamagedArtifact: there is none, or it is no JSON.
        ForeignArtifact: it is not of ours, of a newer format, or of another major version of a library.
    """
    path = folder / MANIFEST
    try:
        manifest = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        raise DamagedArtifact(f"{path} is missing.") from None
    except orjson.JSONDecodeError:
        raise DamagedArtifact(f"{path} is not JSON.") from None
    check(manifest, str(path))
    return dict(manifest)


def check(manifest: Any, name: str) -> None:
    """Raises ForeignArtifact; `name` is how the message calls the manifest."""
    if not _is_ours(manifest):
        raise ForeignArtifact(f"{name} is not the manifest of a recommender.")
    if manifest["format"] != FORMAT:
        raise ForeignArtifact(f"{name} is of format {manifest['format']}; this program reads format {FORMAT}.")
    for library, ours in libraries().items():
        theirs = str(manifest["libraries"].get(library))
        if _major(theirs) != _major(ours):
            raise ForeignArtifact(f"{name} was made with {library} {theirs}; here is {ours}.")


def _is_ours(manifest: Any) -> bool:
    kinds = {"format": int, "version": str, "weights": dict, "libraries": dict, "files": dict}
    if not isinstance(manifest, dict) or not all(isinstance(manifest.get(name), kind) for name, kind in kinds.items()):
        return False
    return all(
        ".." not in PurePosixPath(name).parts and not name.startswith("/") and {"sha256", "bytes"} <= set(expected)
        for name, expected in manifest["files"].items()
    )


def verify(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Every file that the manifest names is there, whole and unchanged, and no other one. Raises DamagedArtifact."""
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {MANIFEST}
    if stray := sorted(present - manifest["files"].keys()):
        raise DamagedArtifact(f"{folder / stray[0]} is not in the manifest.")
    for name, expected in manifest["files"].items():
        path = folder / name
        if name not in present:
            raise DamagedArtifact(f"{path} is missing.")
        if (size := path.stat().st_size) != expected["bytes"]:
            raise DamagedArtifact(f"{path} has {size:,} bytes instead of {expected['bytes']:,}.")
        if not is_whole(path, expected):
            raise DamagedArtifact(f"{path} is not what the manifest's sha256 says.")


def is_whole(path: Path, expected: Mapping[str, Any]) -> bool:
    """Whether it is there, and has this sum and size."""
    return path.is_file() and path.stat().st_size == expected["bytes"] and _sum(path) == expected["sha256"]


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _major(version_of_library: str) -> str:
    return version_of_library.partition(".")[0]
