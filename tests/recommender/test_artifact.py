"""Each way of spoiling an artifact, and each way of being interrupted while making one."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import time_machine
from fsspec.implementations.memory import MemoryFileSystem

from recommender.engine import artifact, features
from recommender.engine.artifact import Store
from recommender.engine.engine import Engine
from recommender.engine.errors import ArtifactError, DamagedArtifact, ForeignArtifact
from recommender.engine.manifest import LIBRARIES, MANIFEST
from recommender.engine.recipes import recipe
from tests.recommender.books import practice, readings_of

BOOKS = 60


@pytest.fixture(scope="module")
def engine() -> Engine:
    """With every kind of file that an artifact can have: an index, and co-reads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "LARGE", BOOKS - 1)
        return Engine.train(practice(BOOKS), recipe("content"), readings_of(practice(BOOKS)))


def empty_bucket() -> MemoryFileSystem:
    """There is one in a process."""
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    return MemoryFileSystem()


@pytest.fixture(params=["folder", "file://", "memory://"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "memory://":
        empty_bucket()
        return Store("memory://bucket/models", cache=tmp_path / "cache")
    return Store(tmp_path / "models" if request.param == "folder" else f"file://{tmp_path}/models")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "models"


def answers(engine: Engine) -> list[Any]:
    return [engine.similar(book, 5) for book in engine.ids.tolist()]


# -- publishing and loading -------------------------------------------------------------------------------------------


def test_what_is_loaded_answers_as_what_was_published(store: Store, engine: Engine) -> None:
    version = store.publish(engine, revision=42, metrics={"ndcg@10": 0.25})
    loaded = store.load(version)
    assert answers(loaded) == answers(engine)
    assert loaded.version == version
    assert store.load(version).manifest == loaded.manifest  # a second time, from what was copied


def test_the_manifest_tells_what_made_the_engine(store: Store, engine: Engine) -> None:
    manifest = store.load(store.publish(engine, revision=42, metrics={"ndcg@10": 0.25})).manifest
    assert manifest["format"] == 2
    assert (manifest["recipe"], manifest["weights"]) == ("content", recipe("content").as_json())
    assert manifest["fingerprint"] == practice(BOOKS).fingerprint()
    assert (manifest["n_books"], manifest["n_readers"], manifest["revision"]) == (BOOKS, 60, 42)
    assert manifest["metrics"] == {"ndcg@10": 0.25}
    assert set(manifest["libraries"]) == set(LIBRARIES)
    assert {"neighbors.npy", "nearby.codes.npy", "featurizer/featurizer.json"} <= set(manifest["files"])


def test_nothing_in_an_artifact_is_pickled(folder: Path, engine: Engine) -> None:
    version = Store(folder).publish(engine, revision=1)
    paths = [path for path in (folder / version).rglob("*") if path.is_file()]
    assert {path.suffix for path in paths} == {".npy", ".json"}
    for path in paths:
        if path.suffix == ".npy":
            np.load(path, allow_pickle=False)


def test_versions_are_in_the_order_of_their_making(store: Store, engine: Engine) -> None:
    with time_machine.travel("2026-11-24T10:15:00Z", tick=True):
        made = [store.publish(engine, revision=1) for _ in range(4)]
    assert store.versions() == made == sorted(made)
    assert made[0].startswith("20261124T1015")


def test_a_store_without_anything_has_no_versions_and_no_champion(store: Store) -> None:
    assert store.versions() == []
    assert store.champion() is None
    assert store.prune(1, 1) == []
    with pytest.raises(DamagedArtifact, match=r"20260101T000000-000000.* is missing"):
        store.load("20260101T000000-000000")


@pytest.mark.parametrize("name", ["", "..", "../etc", "20260101T000000-000000/..", "champion.json"])
def test_only_names_of_versions_are_loaded(folder: Path, name: str) -> None:
    with pytest.raises(ForeignArtifact, match="not the name of a version"):
        Store(folder).load(name)


# -- damage -----------------------------------------------------------------------------------------------------------


def remove(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def change_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


FILES = ["neighbors.npy", "dense.npy", "nearby.codes.npy", "upcs.text.npy", "featurizer/featurizer.json"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("damage", "said"),
    [(remove, "is missing"), (cut, "bytes instead of"), (change_a_byte, "not what the manifest's sha256 says")],
)
def test_a_damaged_file_is_named(
    folder: Path, engine: Engine, name: str, damage: Callable[[Path], None], said: str
) -> None:
    version = Store(folder).publish(engine, revision=1)
    damage(folder / version / name)
    with pytest.raises(DamagedArtifact, match=f"{name} .*{said}"):
        Store(folder).load(version)


def test_every_file_is_verified(folder: Path, engine: Engine) -> None:
    version = Store(folder).publish(engine, revision=1)
    for name in Store(folder).load(version).manifest["files"]:
        whole = (folder / version / name).read_bytes()
        change_a_byte(folder / version / name)
        with pytest.raises(DamagedArtifact, match=name):
            Store(folder).load(version)
        (folder / version / name).write_bytes(whole)


def test_a_file_that_the_manifest_does_not_know_is_named(folder: Path, engine: Engine) -> None:
    version = Store(folder).publish(engine, revision=1)
    (folder / version / "coread_scores.more.npy").write_bytes(b"")
    with pytest.raises(DamagedArtifact, match=r"coread_scores.more.npy is not in the manifest"):
        Store(folder).load(version)


@pytest.mark.parametrize("name", FILES)
def test_a_file_missing_in_a_bucket_is_named(tmp_path: Path, engine: Engine, name: str) -> None:
    bucket = empty_bucket()
    store = Store("memory://bucket/models", cache=tmp_path / "cache")
    version = store.publish(engine, revision=1)
    bucket.rm_file(f"/bucket/models/{version}/{name}")
    with pytest.raises(DamagedArtifact, match=f"{name} is missing"):
        store.load(version)
    assert not list((tmp_path / "cache").rglob(".*"))


def test_a_spoilt_copy_of_a_bucket_is_copied_again(tmp_path: Path, engine: Engine) -> None:
    empty_bucket()
    store = Store("memory://bucket/models", cache=tmp_path / "cache")
    version = store.publish(engine, revision=1)
    store.load(version)
    change_a_byte(tmp_path / "cache" / version / "neighbors.npy")
    assert answers(store.load(version)) == answers(engine)


def test_copies_of_versions_that_are_gone_from_the_bucket_go_too(tmp_path: Path, engine: Engine) -> None:
    empty_bucket()
    store = Store("memory://bucket/models", cache=tmp_path / "cache")
    first, second = store.publish(engine, revision=1), store.publish(engine, revision=2)
    served = store.load(first)
    store.prune(1, 100)
    store.load(second)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [second]
    assert answers(served) == answers(engine)  # what is mapped stays


def test_a_bucket_is_copied_to_a_folder_that_nobody_else_can_write_to(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifact.tempfile, "gettempdir", lambda: str(tmp_path))
    empty_bucket()
    store = Store("memory://bucket/models")
    version = store.publish(engine, revision=1)
    assert answers(store.load(version)) == answers(engine)
    (ours,) = tmp_path.iterdir()
    assert ours.stat().st_mode & 0o777 == 0o700
    ours.chmod(0o777)
    with pytest.raises(ArtifactError, match="not ours alone"):
        store.load(version)


# -- manifests of others ----------------------------------------------------------------------------------------------


def rewritten(path: Path, **fields: Any) -> None:
    path.write_bytes(orjson.dumps(orjson.loads(path.read_bytes()) | fields))


@pytest.mark.parametrize(
    ("content", "error", "said"),
    [
        (None, DamagedArtifact, "is missing"),
        (b"", DamagedArtifact, "is not JSON"),
        (b"\xff{", DamagedArtifact, "is not JSON"),
        (b"[1, 2]", ForeignArtifact, "is not the manifest of a recommender"),
        (b'{"format": 1, "model": "bert"}', ForeignArtifact, "is not the manifest of a recommender"),
    ],
)
def test_a_manifest_that_is_none_is_refused(
    folder: Path, engine: Engine, content: bytes | None, error: type[ArtifactError], said: str
) -> None:
    version = Store(folder).publish(engine, revision=1)
    path = folder / version / MANIFEST
    path.write_bytes(content) if content is not None else path.unlink()
    with pytest.raises(error, match=f"manifest.json {said}"):
        Store(folder).load(version)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"format": 1}, "is of format 1; this program reads format 2"),
        ({"libraries": {}}, "was made with numpy None; here is"),
        ({"libraries": dict.fromkeys(LIBRARIES, "999.1")}, r"was made with numpy 999\.1; here is"),
        ({"version": "20260101T000000-000000"}, "is of version 20260101T000000-000000"),
        ({"weights": {"name": "content", "taste": 1}}, "cannot be understood: TypeError"),
        ({"files": [], "weights": {}}, "is not the manifest of a recommender"),
        ({"files": {"../../x.npy": {"sha256": "", "bytes": 1}}}, "is not the manifest of a recommender"),
    ],
)
def test_an_artifact_of_another_program_is_refused(
    folder: Path, engine: Engine, fields: dict[str, Any], said: str
) -> None:
    version = Store(folder).publish(engine, revision=1)
    rewritten(folder / version / MANIFEST, **fields)
    with pytest.raises(ForeignArtifact, match=said):
        Store(folder).load(version)


def test_a_minor_version_of_a_library_does_not_matter(folder: Path, engine: Engine) -> None:
    version = Store(folder).publish(engine, revision=1)
    path = folder / version / MANIFEST
    libraries = orjson.loads(path.read_bytes())["libraries"]
    rewritten(path, libraries={name: f"{ours.partition('.')[0]}.999.0" for name, ours in libraries.items()})
    assert answers(Store(folder).load(version)) == answers(engine)


def test_a_folder_that_somebody_put_there_is_no_version(folder: Path, engine: Engine) -> None:
    version = Store(folder).publish(engine, revision=1)
    shutil.copytree(folder / version, folder / "20260101T000000-000000")
    (folder / "notes").mkdir()
    (folder / "20260102T000000-000000").mkdir()
    assert Store(folder).versions() == ["20260101T000000-000000", version]
    with pytest.raises(ForeignArtifact, match=f"is of version {version}"):
        Store(folder).load("20260101T000000-000000")


# -- interruptions ----------------------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from recommender.engine import artifact, engine
from recommender.engine.artifact import Store
store = Store(sys.argv[1])
loaded = store.load(store.versions()[0])
if sys.argv[2] == "writing":
    engine.save_csr = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
else:
    artifact._sync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
store.publish(loaded, revision=2)
"""


@pytest.mark.parametrize("moment", ["writing", "syncing"])
def test_a_killed_publisher_leaves_nothing_to_be_seen_and_the_next_one_sweeps_up(
    folder: Path, engine: Engine, moment: str
) -> None:
    store = Store(folder)
    version = store.publish(engine, revision=1)
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder), moment], check=False)
    assert done.returncode == -signal.SIGKILL
    assert store.versions() == [version]
    assert len(list(folder.glob(".publishing-*"))) == 1
    second = store.publish(engine, revision=2)
    assert store.versions() == [version, second]
    assert sorted(path.name for path in folder.iterdir()) == [version, second]


def test_what_a_living_publisher_writes_is_not_swept_up(folder: Path, engine: Engine) -> None:
    store = Store(folder)
    with store._workshop("20260101T000000-000000") as other:
        (other / "half").write_bytes(b"half")
        store.publish(engine, revision=1)
        assert (other / "half").exists()
    assert not other.exists()


@pytest.mark.parametrize("written", [0, 1, 5, 12])
def test_a_full_disk_leaves_nothing(
    store: Store, engine: Engine, written: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = store.publish(engine, revision=1)
    save, left = np.save, iter(range(written))

    def full(*arguments: Any) -> None:
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(*arguments)

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(ArtifactError, match="No space left on device"):
        store.publish(engine, revision=2)
    assert store.versions() == store._names() == [version]
    monkeypatch.undo()
    assert answers(store.load(version)) == answers(engine)


LIMITED = """
import resource, sys
from pathlib import Path
import numpy as np
from recommender.engine.artifact import Store
from recommender.engine.errors import ArtifactError
store, name, limit = Store(sys.argv[1]), sys.argv[2], int(sys.argv[3])
loaded = store.load(store.versions()[0])
def limited(save):
    def saved(*arguments):
        room = limit if any(isinstance(a, Path) and a.name == name for a in arguments) else resource.RLIM_INFINITY
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
        save(*arguments)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return saved
np.save = limited(np.save)
try:
    store.publish(loaded, revision=2)
except ArtifactError as error:
    sys.exit(f"refused: {error}" if len(list(Path(sys.argv[1]).iterdir())) == 1 else "something is left")
"""


@pytest.mark.parametrize("name", ["dense.npy", "nearby.codes.npy"])
@pytest.mark.parametrize("missing", [1, 5_000])
def test_a_file_that_the_disk_does_not_take_is_an_error(folder: Path, engine: Engine, name: str, missing: int) -> None:
    version = Store(folder).publish(engine, revision=1)
    limit = (folder / version / name).stat().st_size - missing
    command = [sys.executable, "-c", LIMITED, str(folder), name, str(limit)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "refused" in done.stderr
    assert Store(folder).versions() == [version]


def test_an_upload_that_is_cut_off_leaves_nothing(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = empty_bucket()
    store = Store("memory://bucket/models", cache=tmp_path)
    put, uploaded = type(bucket).put_file, 0

    def cut_off(self: Any, source: str, target: str, **options: Any) -> None:
        nonlocal uploaded
        if target.endswith(MANIFEST):
            raise OSError("connection reset")
        put(self, source, target, **options)
        uploaded += 1

    monkeypatch.setattr(type(bucket), "put_file", cut_off)
    with pytest.raises(ArtifactError, match="connection reset"):
        store.publish(engine, revision=1)
    assert uploaded > 30  # the manifest is the last one
    assert store.versions() == store._names() == []


# -- the champion and pruning -----------------------------------------------------------------------------------------


def test_the_champion_is_the_version_that_was_set_last(store: Store, engine: Engine) -> None:
    first, second = store.publish(engine, revision=1), store.publish(engine, revision=2)
    store.set_champion(first)
    assert store.champion() == first
    store.set_champion(second)
    assert Store(store.url).champion() == second


def test_a_version_that_is_not_there_cannot_be_champion(store: Store, engine: Engine) -> None:
    store.set_champion(version := store.publish(engine, revision=1))
    with pytest.raises(ArtifactError, match="no version '20260101T000000-000000'"):
        store.set_champion("20260101T000000-000000")
    assert store.champion() == version


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"version": 7}', b'{"version": "../../etc"}'])
def test_a_spoilt_pointer_is_named(folder: Path, content: bytes) -> None:
    folder.mkdir()
    (folder / "champion.json").write_bytes(content)
    with pytest.raises(DamagedArtifact, match=r"champion\.json names no version"):
        Store(folder).champion()


def test_a_pointer_that_cannot_be_written_stays_what_it_was(
    folder: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(folder)
    first, second = store.publish(engine, revision=1), store.publish(engine, revision=2)
    store.set_champion(first)

    def full(_: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(artifact, "_sync", full)
    with pytest.raises(ArtifactError, match="No space left"):
        store.set_champion(second)
    assert store.champion() == first
    assert not list(folder.glob(".champion*"))


def test_old_versions_go_by_number_but_never_the_champion_or_a_protected_one(store: Store, engine: Engine) -> None:
    made = [store.publish(engine, revision=n) for n in range(5)]
    store.set_champion(made[0])
    assert store.prune(2, 100, {made[1]}) == [made[2]]
    assert store.versions() == [made[0], made[1], made[3], made[4]]
    assert store.champion() == made[0]


def test_old_versions_go_by_age(store: Store, engine: Engine) -> None:
    with time_machine.travel("2026-11-24T10:15:00Z", tick=True) as clock:
        old = store.publish(engine, revision=1)
        clock.shift(timedelta(days=31))
        new = store.publish(engine, revision=2)
        assert store.prune(10, 30) == [old]
        assert store.versions() == [new]


def test_what_a_cut_off_upload_left_goes_after_a_day(tmp_path: Path, engine: Engine) -> None:
    bucket = empty_bucket()
    store = Store("memory://bucket/models", cache=tmp_path)
    with time_machine.travel("2026-11-24T10:15:00Z", tick=True) as clock:
        version = store.publish(engine, revision=1)
        bucket.pipe_file("/bucket/models/20261124T101400-000000/ids.npy", b"half")
        store.prune(10, 30)
        assert len(store._names()) == 2
        clock.shift(timedelta(days=2))
        store.prune(10, 30)
        assert store._names() == store.versions() == [version]
