"""Dead letters as operators meet them: on their pages and by `manage.py deadletters`. How messages die: tests/queue."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import Client
from parsel import Selector

from bookapi.accounts import create_account
from bookapi.serving import free_port
from catalog.deadletters import SHOWN_MAX, readable
from catalog.ingest import ingest_published, register, start_run
from catalog.models import DeadLetter, PublishedBatch
from tests.catalog.crawled import scraped

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("_no_broker")]

LETTERS = "/admin/catalog/deadletter/"
BODY = json.dumps([[], {"run": 1, "key": "k", "records": [{"title": "<script>alert(1)</script>"}]}, {}]).encode()


@pytest.fixture
def _no_broker(settings: Any) -> None:
    settings.BROKER_URL = ""


def letter(body: bytes = BODY, state: str = "open", content_type: str = "application/json", **facts: Any) -> DeadLetter:
    properties = {"content_type": content_type, "headers": {"x": "<img src=x>"}, "exchange": "", "routing_key": ""}
    facts = {"reason": "failed", "task": "catalog.tasks.ingest_batch", "detail": "<b>no such shelf</b>"} | facts
    return DeadLetter.objects.create(
        message=uuid4().hex, queue="q", body=body, properties=properties, state=state, **facts
    )


def client_of(role: Any) -> Client:
    create_account(role, role, "a long pass phrase")
    client = Client()
    client.force_login(User.objects.get(username=role))
    return client


@pytest.fixture
def operator() -> Client:
    return client_of("operator")


def rows_of(client: Client, **query: str) -> list[str]:
    answer = client.get(LETTERS, query)
    assert answer.status_code == 200
    rows = Selector(answer.content.decode()).css("#result_list tbody tr")
    return [
        " ".join(" ".join(row.css("*::text").getall()).split()) for row in rows if row.css("input.action-select, th")
    ]


def act(client: Client, action: str, *ids: Any) -> Any:
    return client.post(LETTERS, {"action": action, "_selected_action": [str(i) for i in ids], "index": 0}, follow=True)


# --- Pages ------------------------------------------------------------------------------------------------------------
def test_the_list_shows_open_letters_until_others_are_asked_for(operator: Client) -> None:
    run = start_run("shop", "https://shop.example")
    for state in DeadLetter.State.values:
        letter(state=state, detail=f"it is {state}", run=run, records=7)
    (row,) = rows_of(operator)
    assert "Failed" in row
    assert "catalog.tasks.ingest_batch" in row
    assert "it is open" in row
    assert f"shop #{run.pk}" in row
    assert "it is dropped" in rows_of(operator, state="dropped")[0]
    assert len(rows_of(operator, state="all")) == 3
    assert len(rows_of(operator, state="nonsense")) == 3
    assert rows_of(operator, reason__exact="unroutable") == []


def test_a_letter_is_shown_as_text_and_never_as_markup(operator: Client) -> None:
    page = operator.get(f"{LETTERS}{letter().pk}/change/").content.decode()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    for raw in ("<script>alert(1)", "<b>no such shelf", "<img src=x>"):
        assert raw not in page
    assert raw not in operator.get(LETTERS).content.decode()


BODIES = {
    "not text": b"\xff\xfe\x00",
    "nothing": b"",
    "large": b'["' + b"x" * 5_000_000 + b'"]',
    "deep": b"[" * 900 + b"]" * 900,
    "deep and wide": b"[" * 500 + b"1," * 500_000 + b"1" + b"]" * 500,
    "too deep": b"[" * 100_000 + b"]" * 100_000,
    "surrogates": b'["\\ud800 \\u0000"]',
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_whatever_a_message_says_its_page_opens_and_stays_small(operator: Client, body: bytes) -> None:
    dead = letter(body)
    answer = operator.get(f"{LETTERS}{dead.pk}/change/")
    assert answer.status_code == 200
    assert len(answer.content) < 6 * SHOWN_MAX
    assert len(readable(dead)) < SHOWN_MAX + 100
    assert operator.get(LETTERS).status_code == 200


def test_letters_are_dropped_once_and_by_somebody(operator: Client) -> None:
    dead, other, done = letter(), letter(), letter(state="replayed")
    page = act(operator, "drop", dead.pk, done.pk)
    assert "1 letter was dropped." in page.content.decode()
    dead.refresh_from_db()
    assert (dead.state, dead.settled_by) == ("dropped", "operator")
    assert {x.state for x in (DeadLetter.objects.get(pk=other.pk), DeadLetter.objects.get(pk=done.pk))} == {
        "open",
        "replayed",
    }
    assert LogEntry.objects.get().object_id == str(dead.pk)


@pytest.mark.parametrize("broker", ["", "amqp://guest:guest@127.0.0.1:{port}/"])
def test_a_broker_that_is_away_is_told_and_the_letter_stays_open(
    operator: Client, settings: Any, monkeypatch: pytest.MonkeyPatch, broker: str
) -> None:
    from bookapi.celery import app

    settings.BROKER_URL = broker.format(port=free_port())
    monkeypatch.setitem(app.conf, "broker_url", settings.BROKER_URL or "memory://")
    page = act(operator, "replay", letter().pk)
    assert page.status_code == 200
    assert "those stay open" in page.content.decode()
    assert DeadLetter.objects.get().state == "open"


def test_curators_read_letters_and_decide_nothing() -> None:
    curator, dead = client_of("curator"), letter()
    page = curator.get(f"{LETTERS}{dead.pk}/change/")
    assert page.status_code == 200
    assert 'value="drop"' not in page.content.decode()
    for action in ("drop", "replay"):
        assert act(curator, action, dead.pk).status_code < 500
    assert DeadLetter.objects.get().state == "open"


def test_an_open_letter_has_buttons_and_a_settled_one_has_none(operator: Client) -> None:
    for state, shown in (("open", True), ("dropped", False)):
        page = operator.get(f"{LETTERS}{letter(state=state).pk}/change/").content.decode()
        assert ('value="replay"' in page and 'value="drop"' in page) is shown


@pytest.mark.parametrize("chosen", ["x", "", "1.5", "-", "9" * 30, "9" * 19, "\0", "1 or 1"])
def test_forged_choices_are_refused(operator: Client, chosen: str) -> None:
    letter()
    for action in ("drop", "replay"):
        assert act(operator, action, chosen).status_code in {200, 400}
    assert DeadLetter.objects.get().state == "open"


def test_forged_posts_to_a_letter_change_nothing(operator: Client) -> None:
    dead = letter()
    assert operator.post(f"{LETTERS}{dead.pk}/change/", {"state": "dropped", "body": "x"}).status_code == 403
    assert operator.post(f"{LETTERS}{dead.pk}/delete/", {"post": "yes"}).status_code == 403
    assert act(operator, "delete_selected", dead.pk).status_code < 500
    assert act(operator, "nonsense", dead.pk).status_code < 500
    assert DeadLetter.objects.get().state == "open"


def test_batches_are_listed_with_their_state(operator: Client) -> None:
    run = start_run("shop", "https://shop.example")
    batch = PublishedBatch.objects.create(key=uuid4(), run=run, records=3, error="<i>oh</i>")
    page = operator.get("/admin/catalog/publishedbatch/").content.decode()
    assert str(batch.key)[:8] in page
    assert "&lt;i&gt;oh" in page
    assert operator.get(f"/admin/catalog/publishedbatch/{batch.key}/change/").status_code == 200
    assert operator.get("/admin/catalog/publishedbatch/x/change/").status_code < 500


def test_batches_that_will_never_come_are_given_up_by_operators(operator: Client) -> None:
    run = start_run("shop", "https://shop.example")
    pending, settled = uuid4(), uuid4()
    register(run.pk, pending, [scraped("a")])
    register(run.pk, settled, [scraped("b")])
    ingest_published(settled, run.pk, [scraped("b")])
    chosen = {"action": "give_up", "_selected_action": [str(pending), str(settled)], "index": 0}
    path = "/admin/catalog/publishedbatch/"
    client_of("curator").post(path, chosen)
    assert not PublishedBatch.objects.filter(state="dead").exists()
    assert "1 batch was given up" in operator.post(path, chosen, follow=True).content.decode()
    assert PublishedBatch.objects.get(state="dead").pk == pending
    run.refresh_from_db()
    assert (run.published, run.seen, run.dead) == (2, 2, 1)


# --- The command ------------------------------------------------------------------------------------------------------
def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    call_command("deadletters", *arguments)
    return capsys.readouterr().out


def refusal(*arguments: str) -> tuple[int, str]:
    with pytest.raises(CommandError) as error:
        call_command("deadletters", *arguments)
    return error.value.returncode, str(error.value)


def test_the_command_lists_open_letters(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no dead letters" in told(capsys)
    first, done = letter(records=12), letter(state="dropped")
    assert "12 records" in told(capsys)
    assert str(done.pk) not in [line.split()[0] for line in told(capsys, "list").splitlines()]
    (facts,) = map(json.loads, told(capsys, "--json").splitlines())
    assert (facts["id"], facts["reason"], facts["records"]) == (first.pk, "failed", 12)
    assert len(told(capsys, "--json", "--every").splitlines()) == 2


def test_the_command_shows_a_message(capsys: pytest.CaptureFixture[str]) -> None:
    assert "<script>alert(1)" in told(capsys, "show", str(letter().pk))
    assert refusal("show", "999999")[0] == 1


def test_the_command_drops_some_or_all(capsys: pytest.CaptureFixture[str]) -> None:
    first, *_ = letter(), letter(), letter()
    assert "1 dropped" in told(capsys, "drop", str(first.pk))
    assert "2 dropped" in told(capsys, "drop", "--all")
    assert "0 dropped" in told(capsys, "drop", "--all")
    assert refusal("drop", str(first.pk)) == (1, "1 of them are not open.")


def test_the_command_wants_to_know_which() -> None:
    for arguments in (("drop",), ("replay",), ("drop", "1", "--all")):
        assert refusal(*arguments) == (2, "Name the letters, or say --all.")


def test_replaying_without_a_broker_is_explained() -> None:
    letter()
    code, text = refusal("replay", "--all")
    assert (code, "BROKER_URL is not set" in text) == (2, True)
    assert DeadLetter.objects.get().state == "open"
