"""Champions that change, are spoilt, or are not there, while threads go on asking."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from recommender.engine import serving as serving_module
from recommender.engine.artifact import POINTER, Store
from recommender.engine.engine import Engine
from recommender.engine.recipes import recipe
from recommender.engine.serving import Serving
from tests.recommender.books import practice

PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def engines() -> list[Engine]:
    """Two that answer differently about the same books."""
    return [Engine.train(practice(60), recipe(name)) for name in ("content", "title_tfidf")]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


@pytest.fixture
def serving(store: Store) -> Iterator[Serving]:
    """Looks when it is told to: its thread would look once in an hour."""
    serving = Serving(store, 3600)
    yield serving
    serving.close()


def promoted(store: Store, engine: Engine) -> str:
    store.set_champion(version := store.publish(engine, revision=1))
    return version


def version_of(serving: Serving) -> str | None:
    engine = serving.engine()
    return engine.version if engine else None


def wait_until(condition: Callable[[], bool]) -> None:
    deadline, pause = time.monotonic() + PATIENCE_S, threading.Event()
    while not condition():
        assert time.monotonic() < deadline
        pause.wait(0.005)


def test_there_is_no_engine_before_there_is_a_champion(store: Store, serving: Serving, engines: list[Engine]) -> None:
    serving.refresh()
    assert serving.engine() is None
    store.publish(engines[0], revision=1)
    serving.refresh()
    assert serving.engine() is None


def test_the_champion_is_served_and_the_next_one_takes_its_place(
    store: Store, serving: Serving, engines: list[Engine]
) -> None:
    for engine in engines:
        version = promoted(store, engine)
        serving.refresh()
        assert version_of(serving) == version
    store.set_champion(first := store.versions()[0])
    serving.refresh()
    assert version_of(serving) == first


def test_a_thread_finds_the_champion_by_itself(store: Store, engines: list[Engine]) -> None:
    serving = Serving(store, 0.01)
    assert serving.engine() is None
    for engine in engines:
        version = promoted(store, engine)
        wait_until(lambda expected=version: version_of(serving) == expected)  # type: ignore[misc]
    serving.close()
    assert serving._thread is not None
    serving._thread.join(PATIENCE_S)
    assert not serving._thread.is_alive()
    assert version_of(serving) == version


def test_one_thread_watches_however_many_ask_at_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    serving, started = Serving(store, 3600), []
    monkeypatch.setattr(serving, "_watch", lambda: started.append(1))
    askers = [threading.Thread(target=serving.engine) for _ in range(20)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    serving.start()
    assert serving._thread is not None
    serving._thread.join(PATIENCE_S)
    assert started == [1]
    serving.close()


def test_a_loading_champion_keeps_nobody_waiting(
    store: Store, engines: list[Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = promoted(store, engines[0])
    serving = Serving(store, 3600)
    serving.refresh()
    loading, go_on, load = threading.Event(), threading.Event(), store.load

    def slow(version: str) -> Engine:
        loading.set()
        assert go_on.wait(PATIENCE_S)
        return load(version)

    monkeypatch.setattr(store, "load", slow)
    second = promoted(store, engines[1])
    refreshing = threading.Thread(target=serving.refresh)
    refreshing.start()
    assert loading.wait(PATIENCE_S)
    assert version_of(serving) == first
    go_on.set()
    refreshing.join()
    assert version_of(serving) == second
    serving.close()


def test_twenty_swaps_under_load_fail_nobody_and_mix_nothing(store: Store, engines: list[Engine]) -> None:
    books = engines[0].ids[:20].tolist()
    versions = [store.publish(engines[n % 2], revision=n) for n in range(20)]
    expected = {version: [engines[n % 2].similar(book, 5) for book in books] for n, version in enumerate(versions)}
    store.set_champion(versions[0])
    serving, wrong, seen, done = Serving(store, 3600), [], set(), threading.Event()
    serving.refresh()

    def hammer() -> None:
        while not done.is_set():
            for place, book in enumerate(books):
                engine = serving.engine()
                assert engine is not None
                if engine.similar(book, 5) != expected[engine.version][place]:
                    wrong.append((engine.version, book))
                seen.add(engine.version)

    failures: list[threading.ExceptHookArgs] = []
    hook, threading.excepthook = threading.excepthook, failures.append
    try:
        hammering = [threading.Thread(target=hammer) for _ in range(4)]
        for thread in hammering:
            thread.start()
        for version in versions:
            store.set_champion(version)
            serving.refresh()
            wait_until(lambda expected=version: expected in seen)  # type: ignore[misc]
        done.set()
        for thread in hammering:
            thread.join()
    finally:
        threading.excepthook = hook
        serving.close()
    assert (failures, wrong, seen) == ([], [], set(versions))


# -- what cannot be served --------------------------------------------------------------------------------------------


def test_a_damaged_champion_is_refused_once_and_the_old_engine_stays(
    store: Store, serving: Serving, engines: list[Engine], caplog: pytest.LogCaptureFixture
) -> None:
    first = promoted(store, engines[0])
    serving.refresh()
    second = promoted(store, engines[1])
    path = Path(store.url) / second / "neighbors.npy"
    path.write_bytes(path.read_bytes()[:-1])
    for _ in range(3):
        serving.refresh()
    assert version_of(serving) == first
    (line,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert (line.message, line.__dict__["version"], line.__dict__["serving"]) == ("champion refused", second, first)
    assert "neighbors.npy" in line.__dict__["reason"]


def test_a_champion_that_was_refused_is_tried_again_after_a_while_and_another_one_at_once(
    store: Store, serving: Serving, engines: list[Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    version = promoted(store, engines[0])
    path = Path(store.url) / version / "neighbors.npy"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    serving.refresh()
    path.write_bytes(whole)
    serving.refresh()
    assert version_of(serving) is None
    another = promoted(store, engines[1])
    serving.refresh()
    assert version_of(serving) == another
    store.set_champion(version)
    monkeypatch.setattr(serving, "_refused", (version, time.monotonic() - 1))
    serving.refresh()
    assert version_of(serving) == version


@pytest.mark.parametrize("content", [b"{", b'{"version": "20260101T000000-000000"}'])
def test_a_pointer_that_leads_nowhere_changes_nothing_and_is_told_of_once(
    store: Store, serving: Serving, engines: list[Engine], content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    version = promoted(store, engines[0])
    serving.refresh()
    (Path(store.url) / POINTER).write_bytes(content)
    for _ in range(3):
        serving.refresh()
    assert version_of(serving) == version
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1


def test_a_pointer_that_is_gone_changes_nothing(store: Store, serving: Serving, engines: list[Engine]) -> None:
    version = promoted(store, engines[0])
    serving.refresh()
    (Path(store.url) / POINTER).unlink()
    serving.refresh()
    assert version_of(serving) == version


def test_a_store_that_does_not_answer_is_told_of_once_each_time_it_fails(
    store: Store,
    serving: Serving,
    engines: list[Engine],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    version = promoted(store, engines[0])
    serving.refresh()

    def away() -> str:
        raise ConnectionError("no route to the bucket")

    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(store, "champion", away)
            serving.refresh()
            serving.refresh()
        serving.refresh()
        assert version_of(serving) == version
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.message for record in errors] == ["artifact store unreadable"] * 2


# -- processes --------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_watches_for_itself_though_the_parent_was_just_looking(
    store: Store, engines: list[Engine]
) -> None:
    first = promoted(store, engines[0])
    serving = Serving(store, 0.01)
    wait_until(lambda: version_of(serving) == first)
    with serving._looking, serving._starting:  # as if the parent's thread were in the midst of it
        child = os.fork()
    if child == 0:
        status = 1
        try:
            second = promoted(store, engines[1])
            wait_until(lambda: version_of(serving) == second)
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    serving.close()


def test_what_is_not_used_any_more_is_forgotten(store: Store) -> None:
    before = len(serving_module._everyone)
    serving = Serving(store, 3600)
    assert len(serving_module._everyone) == before + 1
    del serving
    assert len(serving_module._everyone) == before
