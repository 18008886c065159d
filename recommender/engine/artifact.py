"""Trained engines on disk or in a bucket: published whole, verified before use, and one of them the champion.

STORE/champion.json                     {"version": ...}: the one to be served, replaced atomically
STORE/20261124T101500-0b12cd/           a version; time-ordered
    manifest.json                       written last; a folder without it is no version
    *.npy, featurizer/                  arrays, mapped when they are loaded; vectorizers, without pickle
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from pathlib import Path
from typing import Any

import orjson
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from recommender.engine import manifest as manifests
from recommender.engine.engine import Engine
from recommender.engine.errors import ArtifactError, DamagedArtifact, ForeignArtifact
from recommender.engine.manifest import MANIFEST

POINTER = "champion.json"
UNFINISHED = ".publishing-"
_VERSION = re.compile(r"\d{8}T\d{6}-[0-9a-f]{6}")
_TIME = "%Y%m%dT%H%M%S"


class Store:
    """Where artifacts are kept: a folder, or the URL of any file system that fsspec knows, like `s3://bucket/models`.

    What is in a bucket is loaded from a copy in `cache`, by default a folder of ours among the temporary files. An
    address that cannot be understood raises ArtifactError.
    """

    def __init__(self, url: str | Path, cache: Path | None = None) -> None:
        self.url = str(url)
        try:
            self._fs, self._root = url_to_fs(self.url)
        except (ValueError, ImportError) as error:  # no such protocol, or its library is not installed
            raise ArtifactError(f"{self.url} is no artifact store: {error}") from error
        self._local = isinstance(self._fs, LocalFileSystem)
        self._cache = cache

    # -- versions -------------------------------------------------------------------------------------------------

    def publish(self, engine: Engine, *, revision: int, metrics: dict[str, Any] | None = None) -> str:
        """Write an engine as a new version, and return its name. Nobody sees it before it is whole.

        Args:
            revision: the catalogue's, when its books were read.

        Raises:
            ArtifactError: it could not be written, as on a full disk; nothing of it is left.
        """
        now = datetime.now(UTC)
        # The microsecond and a random digit, so that the names of one second are in order as well.
        version = f"{now.strftime(_TIME)}-{now.microsecond:05x}{secrets.randbelow(16):x}"
        facts = {
            "format": manifests.FORMAT,
            "version": version,
            "created_at": now.isoformat(timespec="seconds"),
            **engine.manifest,
            "revision": revision,
            "libraries": manifests.libraries(),
            "metrics": metrics or {},
        }
        try:
            with self._workshop(version) as folder:
                engine.save(folder)
                Engine.load(folder, facts)  # NumPy is silent about last bytes that did not fit; such an array is no map
                manifest = facts | {"files": manifests.sums(folder)}
                (folder / MANIFEST).write_bytes(orjson.dumps(manifest, option=orjson.OPT_INDENT_2))
                self._show(folder, version, list(manifest["files"]))
        except (OSError, ValueError) as error:  # a full disk, as the system and NumPy tell it
            raise ArtifactError(f"{self.url}/{version} could not be written: {error}") from error
        return version

    def load(self, version: str) -> Engine:
        """The engine of a version, mapped into memory after every file was verified.

        Raises:
            DamagedArtifact: a file is missing, cut short or changed, or one is there that should not be.
            ForeignArtifact: it is not of ours, or this program is too old, or its libraries are others.
            ArtifactError: there is no such version, or the store does not answer.
        """
        if not _VERSION.fullmatch(version):
            raise ForeignArtifact(f"{version!r} is not the name of a version.")
        try:
            folder = Path(self._root) / version if self._local else self._copied(version)
            if not folder.is_dir():
                raise DamagedArtifact(f"{self.url}/{version} is missing.")
            manifest = manifests.read(folder)
            if manifest["version"] != version:
                raise ForeignArtifact(f"{folder / MANIFEST} is of version {manifest['version']}.")
            manifests.verify(folder, manifest)
        except OSError as error:
            raise ArtifactError(f"{self.url}/{version} cannot be read: {error}") from error
        try:
            return Engine.load(folder, manifest)
        except Exception as error:  # whatever a library makes of a file that has the right sum but is none of ours
            raise ForeignArtifact(f"{folder} cannot be understood: {type(error).__name__}: {error}") from error

    def versions(self) -> list[str]:
        """Published versions, oldest first."""
        return [name for name in self._names() if self._fs.exists(f"{self._root}/{name}/{MANIFEST}")]

    def prune(self, keep: int, max_age_days: float, protect: Collection[str] = ()) -> list[str]:
        """Remove all but the newest `keep` versions, and what is older than `max_age_days`. Returns what was removed.

        The champion and the protected ones stay. What uploads left behind that were cut off a day ago goes as well.
        """
        protected = {*protect, self.champion()}
        versions, now = self.versions(), datetime.now(UTC)
        newest = versions[max(0, len(versions) - keep) :]
        old = [v for v in versions if v not in newest or now - _time_of(v) > timedelta(days=max_age_days)]
        removed = [version for version in old if version not in protected]
        torn = [n for n in self._names() if n not in versions and now - _time_of(n) > timedelta(days=1)]
        for name in removed + torn:
            with suppress(FileNotFoundError):  # the manifest first: half removed is not a version
                self._fs.rm_file(f"{self._root}/{name}/{MANIFEST}")
            self._fs.rm(f"{self._root}/{name}", recursive=True)
        return removed

    # -- the champion ---------------------------------------------------------------------------------------------

    def champion(self) -> str | None:
        """The version to be served; None when none was chosen yet. Raises DamagedArtifact for a spoilt pointer."""
        path = f"{self._root}/{POINTER}"
        try:
            pointer = orjson.loads(self._fs.cat_file(path))
            version = pointer["version"]
            if not _VERSION.fullmatch(version):
                raise ValueError(version)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError):
            raise DamagedArtifact(f"{self.url}/{POINTER} names no version.") from None
        return str(version)

    def set_champion(self, version: str) -> None:
        """Serve this version from now on. Raises ArtifactError when there is no such version, or on a full disk."""
        if version not in self.versions():
            raise ArtifactError(f"{self.url} has no version {version!r}.")
        pointer = orjson.dumps({"version": version, "since": datetime.now(UTC).isoformat(timespec="seconds")})
        if not self._local:
            self._fs.pipe_file(f"{self._root}/{POINTER}", pointer)  # an object is replaced as a whole
            return
        aside = Path(self._root) / f".{POINTER}-{secrets.token_hex(3)}"
        try:
            aside.write_bytes(pointer)
            _sync(aside)
            aside.replace(aside.with_name(POINTER))
            _sync(aside.parent)
        except OSError as error:
            aside.unlink(missing_ok=True)
            raise ArtifactError(f"{self.url}/{POINTER} could not be written: {error}") from error

    # -- how a version comes and goes -----------------------------------------------------------------------------

    def _names(self) -> list[str]:
        """Folders that are called as a version is, published or not, oldest first."""
        if not self._fs.isdir(self._root):
            return []
        self._fs.invalidate_cache(self._root)
        names = (str(path).rstrip("/").rpartition("/")[2] for path in self._fs.ls(self._root, detail=False))
        return sorted(name for name in names if _VERSION.fullmatch(name))

    @contextmanager
    def _workshop(self, version: str) -> Iterator[Path]:
        """A folder to write a version in, gone afterwards. Beside the others where a rename is to show it."""
        if not self._local:
            with tempfile.TemporaryDirectory() as temporary:
                yield Path(temporary)
            return
        root = Path(self._root)
        root.mkdir(parents=True, exist_ok=True)
        for leftover in root.glob(f"{UNFINISHED}*"):
            with _held(leftover) as ours:
                if ours:  # whoever wrote it is dead: it would hold it
                    shutil.rmtree(leftover)
        folder = root / f"{UNFINISHED}{version}"
        folder.mkdir()
        with _held(folder):
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)  # not there any more when all went well

    def _show(self, folder: Path, version: str, names: list[str]) -> None:
        """Make a finished folder a version, at one stroke."""
        if self._local:
            for path in [*folder.rglob("*"), folder]:
                _sync(path)
            folder.rename(Path(self._root) / version)
            _sync(Path(self._root))
            return
        target = f"{self._root}/{version}"
        try:
            for name in [*names, MANIFEST]:
                self._fs.makedirs(f"{target}/{name}".rpartition("/")[0], exist_ok=True)
                self._fs.put_file(str(folder / name), f"{target}/{name}")
        except BaseException:
            with suppress(OSError):
                self._fs.rm(target, recursive=True)
            raise

    def _copied(self, version: str) -> Path:
        """A folder here with the files of a version in a bucket. Those that are here already are not copied again."""
        cache = self._cache or _ours(Path(tempfile.gettempdir()) / f"recommender-{os.getuid()}") / _digest(self.url)
        cache.mkdir(parents=True, exist_ok=True)
        for folder in cache.iterdir():
            if folder.name not in {version, *self.versions()}:
                shutil.rmtree(folder, ignore_errors=True)  # an engine that maps it keeps what it maps
        folder = cache / version
        self._copy(f"{version}/{MANIFEST}", folder / MANIFEST)
        for name, expected in manifests.read(folder)["files"].items():
            if not manifests.is_whole(folder / name, expected):
                self._copy(f"{version}/{name}", folder / name)
        return folder

    def _copy(self, name: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(f".{target.name}-{secrets.token_hex(3)}")
        try:
            self._fs.get_file(f"{self._root}/{name}", str(aside))
            aside.replace(target)
        except FileNotFoundError:
            raise DamagedArtifact(f"{self.url}/{name} is missing.") from None
        finally:
            aside.unlink(missing_ok=True)


def _ours(folder: Path) -> Path:
    """A folder among everybody's temporary files that nobody else can write to. Raises ArtifactError if one can."""
    folder.mkdir(mode=0o700, exist_ok=True)
    facts = folder.lstat()
    if facts.st_uid != os.getuid() or not stat.S_ISDIR(facts.st_mode) or facts.st_mode & 0o022:
        raise ArtifactError(f"{folder} is not ours alone: artifacts are not copied there.")
    return folder


@contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """Hold a folder; False when a living process does. When a process ends, however it ends, it holds nothing."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(descriptor)


def _sync(path: Path) -> None:
    """Have the disk keep it, through a power cut. Some file systems cannot for folders, and do not need to."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)


def _time_of(version: str) -> datetime:
    return datetime.strptime(version.partition("-")[0], _TIME).replace(tzinfo=UTC)


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=8).hexdigest()
