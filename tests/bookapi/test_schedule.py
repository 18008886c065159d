"""The schedule: what is due when, done once by one of several schedulers, and told to people."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
import time_machine
from django.conf import settings as django_settings
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
from django.urls import reverse
from django_celery_beat.models import CrontabSchedule, IntervalSchedule, PeriodicTask
from pytest_django import DjangoAssertNumQueries, Settings

from bookapi import tasks, ticking, upkeep
from bookapi.accounts import create_account
from bookapi.models import Lease, ScheduledRun
from bookapi.schedule import KNOWN, START_CRAWL, Misconfigured, Outcome, in_words, next_at
from bookapi.ticking import Scheduler
from catalog.ingest import finish_run, start_run
from catalog.models import CrawlRun
from tests.bookapi.jobs import FINISHES, Jobs

pytestmark = pytest.mark.django_db

PRUNE, RESUME = "bookapi.tasks.prune", "bookapi.tasks.resume_interrupted"
NOON = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)  # a Friday
CHANGELIST = reverse("admin:django_celery_beat_periodictask_changelist")


@pytest.fixture(autouse=True)
def _empty_schedule(db: None) -> None:
    PeriodicTask.objects.all().delete()


def every(number: int, period: str, task: str = PRUNE, **fields: Any) -> PeriodicTask:
    """A row whose interval began at the present moment."""
    interval, _made = IntervalSchedule.objects.get_or_create(every=number, period=period)
    name = fields.pop("name", f"{task} every {number} {period}")
    row: PeriodicTask = PeriodicTask.objects.create(name=name, task=task, interval=interval, **fields)
    return row


def at(hour: str, day_of_week: str = "*", **fields: Any) -> PeriodicTask:
    crontab = CrontabSchedule.objects.create(minute="0", hour=hour, day_of_week=day_of_week)
    row: PeriodicTask = PeriodicTask.objects.create(name=f"at {hour}", task=PRUNE, crontab=crontab, **fields)
    return row


def outcomes(row: PeriodicTask) -> list[str]:
    return list(ScheduledRun.objects.filter(schedule=row).order_by("id").values_list("outcome", flat=True))


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tasks that were called, which do nothing here."""
    names: list[str] = []

    def call(name: str) -> Outcome:
        names.append(name)
        return Outcome("done")

    monkeypatch.setattr(ticking, "_call", call)
    return names


# --- When -------------------------------------------------------------------------------------------------------------
def test_a_new_catalogue_has_a_schedule_of_known_tasks(transactional_db: None) -> None:
    call_command("migrate", "bookapi", "0001", verbosity=0)
    call_command("migrate", "bookapi", verbosity=0)
    assert set(PeriodicTask.objects.values_list("task", flat=True)) == set(KNOWN)
    for row in PeriodicTask.objects.all():
        next_at(row)  # none is misconfigured
    PeriodicTask.objects.filter(task=PRUNE).delete()
    PeriodicTask.objects.filter(task=START_CRAWL).update(enabled=False)
    call_command("migrate", verbosity=0)
    assert not PeriodicTask.objects.filter(task=PRUNE).exists()
    assert not PeriodicTask.objects.get(task=START_CRAWL).enabled


@time_machine.travel(NOON, tick=False)
@pytest.mark.parametrize(
    ("hour", "day_of_week", "due"),
    [
        ("3", "*", datetime(2026, 5, 2, 3, tzinfo=UTC)),
        ("13", "*", datetime(2026, 5, 1, 13, tzinfo=UTC)),
        ("5", "0", datetime(2026, 5, 3, 5, tzinfo=UTC)),
    ],
)
def test_a_crontab_is_due_at_its_next_time_in_utc(hour: str, day_of_week: str, due: datetime) -> None:
    assert next_at(at(hour, day_of_week)) == due


def test_an_interval_counts_from_the_last_run_and_before_it_from_the_last_edit() -> None:
    with time_machine.travel(NOON, tick=False):
        row = every(2, "hours")
    assert next_at(row) == NOON + timedelta(hours=2)
    row.last_run_at = NOON + timedelta(hours=5)
    assert next_at(row) == NOON + timedelta(hours=7)


def test_start_and_end_of_a_schedule_are_kept() -> None:
    with time_machine.travel(NOON, tick=False):
        assert next_at(every(1, "hours", start_time=NOON + timedelta(days=1))) == NOON + timedelta(days=1)
        assert next_at(every(2, "hours", expires=NOON + timedelta(hours=1))) is None
        assert next_at(every(3, "hours", enabled=False)) is None


def test_tasks_of_the_queue_are_not_due_without_a_broker(settings: Settings) -> None:
    row = every(1, "seconds", "catalog.tasks.settle_runs")
    assert next_at(row) is None
    settings.BROKER_URL = "amqp://nowhere"
    assert next_at(row) is not None


@pytest.mark.parametrize(
    "wrong",
    [
        {"task": "os.system"},
        {"task": "catalog.tasks.ingest_batch"},
        {"task": "bookapi.tasks.crawl"},
        {"args": '["rm"]'},
        {"kwargs": '{"limit": 1}'},
        {"kwargs": "{"},
        {"interval": None},
    ],
)
def test_rows_that_name_anything_else_are_misconfigured(wrong: dict[str, Any]) -> None:
    row = every(1, "hours")
    for name, value in wrong.items():
        setattr(row, name, value)
    with pytest.raises(Misconfigured):
        next_at(row)


def test_schedules_read_as_words() -> None:
    assert in_words(every(1, "minutes")) == "every minute"
    assert in_words(every(30, "seconds")) == "every 30 seconds"
    assert in_words(at("3")) == "at 03:00 (UTC)"
    assert in_words(at("5", "0")) == "at 05:00, only on Sunday (UTC)"


# --- Ticking ----------------------------------------------------------------------------------------------------------
def test_what_was_missed_for_days_is_done_once(called: list[str]) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        row = every(1, "hours")
        scheduler = Scheduler()
        scheduler.tick()
        assert called == []
        clock.shift(timedelta(days=3))
        scheduler.tick()
        scheduler.tick()
        assert called == [PRUNE]
        run = ScheduledRun.objects.get()
        assert run.due_at == NOON + timedelta(hours=1)
        assert (run.outcome, run.detail) == ("ok", "done")
        clock.shift(timedelta(hours=1))
        scheduler.tick()
        assert called == [PRUNE, PRUNE]
        row.refresh_from_db()
        assert row.last_run_at == NOON + timedelta(days=3, hours=1)


def test_an_edited_interval_counts_without_a_restart(called: list[str]) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        row = every(1, "days")
        scheduler = Scheduler()
        clock.shift(timedelta(minutes=1))
        assert scheduler.tick() == ticking.POLL_S
        IntervalSchedule.objects.filter(pk=row.interval_id).update(period="seconds")
        scheduler.tick()
        assert called == [PRUNE]


def test_the_next_look_is_when_the_next_task_is_due(called: list[str]) -> None:
    with time_machine.travel(NOON, tick=False):
        every(1, "days")
        every(2, "seconds")
        assert Scheduler().tick() == pytest.approx(2)


def test_a_second_scheduler_waits_and_takes_over_when_the_first_falls_silent(
    called: list[str], settings: Settings
) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        every(1, "minutes")
        first, second = Scheduler(), Scheduler()
        first.tick()
        clock.shift(timedelta(seconds=settings.SCHEDULE_LEASE_S - 1))
        second.tick()
        assert (first.leads, second.leads) == (True, False)
        clock.shift(timedelta(seconds=2))
        second.tick()
        first.tick()
        assert (first.leads, second.leads) == (False, True)
        second.close()
        first.tick()
        assert first.leads
        assert Lease.objects.get().holder == first.holder


def test_two_schedulers_that_both_believe_to_lead_start_a_task_once(
    called: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        row = every(1, "minutes")
        clock.shift(timedelta(minutes=2))
        stale = PeriodicTask.objects.get()
        Scheduler().tick()
        assert ticking._claim(stale, due_at=NOON) is None
        assert outcomes(row) == ["ok"]


def test_what_a_dying_scheduler_has_claimed_is_done_by_the_next_one(called: list[str]) -> None:
    row = every(1, "days")
    assert ticking._claim(row, due_at=NOON) is not None
    scheduler = Scheduler()
    scheduler.tick()
    scheduler.tick()
    assert called == [PRUNE]
    assert outcomes(row) == ["ok"]


def test_a_task_does_not_begin_while_its_last_run_is_not_over(called: list[str]) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        row = every(1, "minutes")
        scheduler = Scheduler()
        scheduler.tick()
        assert ticking._claim(row, due_at=NOON) is not None
        ScheduledRun.objects.update(taken_at=NOON)
        clock.shift(timedelta(minutes=5))
        scheduler.tick()
        assert called == []
        clock.shift(ticking.PERFORMING)
        scheduler.tick()
        assert called == [PRUNE]
        assert outcomes(row) == ["failed", "ok"]


def test_what_a_scheduler_performed_when_it_was_killed_has_failed_when_the_next_one_takes_over(
    called: list[str], settings: Settings
) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        row = every(1, "minutes")
        scheduler = Scheduler()
        scheduler.tick()
        assert ticking._claim(row, due_at=NOON) is not None
        ScheduledRun.objects.update(taken_at=NOON)
        clock.shift(timedelta(minutes=2))
        scheduler.tick()  # it is at it, as far as it knows
        assert outcomes(row) == ["waiting"]
        scheduler.close()
        Scheduler().tick()
        assert outcomes(row) == ["failed", "ok"]


def test_a_row_that_makes_no_sense_stops_no_other_and_is_told_once(called: list[str]) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        evil = every(1, "seconds", "os.system", name="A")
        broken = at("3")
        CrontabSchedule.objects.filter(pk=broken.crontab_id).update(hour="77")
        sound = every(1, "minutes", name="Z")
        clock.shift(timedelta(hours=1))
        scheduler = Scheduler()
        scheduler.tick()
        scheduler.tick()
        assert called == [PRUNE]
        assert [outcomes(row) for row in (evil, broken, sound)] == [["failed"], ["failed"], ["ok"]]
        assert "os.system is no task" in ScheduledRun.objects.get(schedule=evil).detail


def test_a_run_whose_task_was_renamed_meanwhile_calls_nothing() -> None:
    row = every(1, "days")
    entry = ticking._claim(row, due_at=NOON)
    assert entry is not None
    ScheduledRun.objects.update(task="os.getcwd")
    ticking.perform(entry.pk)
    entry.refresh_from_db()
    assert entry.outcome == "failed"


def test_a_task_that_fails_leaves_its_reason_and_the_next_one_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise RuntimeError("no room")

    monkeypatch.setattr(tasks, "prune", fails)
    with time_machine.travel(NOON, tick=False) as clock:
        failing, sound = every(1, "minutes"), every(1, "minutes", RESUME)
        clock.shift(timedelta(minutes=2))
        Scheduler().tick()
    assert (outcomes(failing), outcomes(sound)) == (["failed"], ["ok"])
    assert ScheduledRun.objects.get(schedule=failing).detail == "no room"


def test_a_broker_that_is_away_is_asked_again_until_it_takes_the_task(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    published: list[int] = []

    def refuse(_name: str, _pk: int) -> None:
        raise ticking.NotPublished("The broker did not take it: refused")

    settings.BROKER_URL = "amqp://nowhere"
    scheduler = Scheduler()
    row = every(1, "days")
    monkeypatch.setattr(ticking, "publish", refuse)
    assert ticking.run_now(row, "oskar") is not None
    scheduler.tick()
    assert outcomes(row) == ["waiting"]
    assert "did not take it" in ScheduledRun.objects.get().detail
    monkeypatch.setattr(ticking, "publish", lambda _name, pk: published.append(pk))
    scheduler.tick()
    scheduler.tick()
    entry = ScheduledRun.objects.get()
    assert published == [entry.pk]
    assert entry.sent_at is not None
    assert entry.detail == ""


def test_what_was_sent_and_never_taken_is_sent_again(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    published: list[int] = []
    settings.BROKER_URL = "amqp://nowhere"
    monkeypatch.setattr(ticking, "publish", lambda _name, pk: published.append(pk))
    entry = ticking.run_now(every(1, "days"), "oskar")
    assert entry is not None
    for minutes, times in ((10, 1), (16, 2), (20, 2), (32, 3)):  # its message died, while the database was away
        with time_machine.travel(entry.started_at + timedelta(minutes=minutes)):
            Scheduler().tick()
        assert published == [entry.pk] * times
        Lease.objects.all().delete()
    ScheduledRun.objects.update(taken_at=entry.started_at + timedelta(minutes=32))
    with time_machine.travel(entry.started_at + timedelta(minutes=46)):
        Scheduler().tick()
    assert len(published) == 3


def test_a_message_that_comes_twice_is_performed_once_and_again_only_after_a_workers_death(called: list[str]) -> None:
    entry = ticking._claim(every(1, "days"), due_at=NOON)
    assert entry is not None
    ScheduledRun.objects.update(taken_at=NOON)  # by a worker that is at it, or was killed
    ticking.perform(entry.pk)
    assert called == []
    ticking.perform(entry.pk, again=True)
    ticking.perform(entry.pk, again=True)
    assert called == [PRUNE]


def test_a_task_that_takes_too_long_is_not_delivered_again_and_one_whose_worker_died_is() -> None:
    assert tasks.perform.acks_on_timeout
    assert tasks.perform.acks_late
    assert tasks.perform.reject_on_worker_lost


# --- Crawls that the schedule starts ----------------------------------------------------------------------------------
def test_a_crawl_that_is_under_way_is_no_failure() -> None:
    run = start_run(django_settings.SHOP_NAME, "https://example.org")
    row = every(1, "days", START_CRAWL)
    entry = ticking.run_now(row, "oskar")
    assert entry is not None
    assert (entry.outcome, entry.crawl, entry.requested_by) == ("under_way", run, "oskar")
    assert CrawlRun.objects.count() == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("jobs_here")
def test_a_due_crawl_is_started_as_a_process_and_told_with_its_run(crawl_jobs: Jobs) -> None:
    crawl_jobs.use(FINISHES)
    with time_machine.travel(datetime.now(UTC) - timedelta(days=2), tick=False):
        every(1, "days", START_CRAWL)
    Scheduler().tick()
    entry = ScheduledRun.objects.get()
    assert entry.crawl is not None
    crawl_jobs.wait()
    run = CrawlRun.objects.get()
    assert (run.pk, run.requested_by, run.state) == (entry.crawl_id, "schedule", "finished")


def interrupted_crawl(entry_of: PeriodicTask) -> CrawlRun:
    """A crawl of the schedule that was interrupted."""
    run = finish_run(start_run(django_settings.SHOP_NAME, "https://example.org").pk, state="interrupted")
    now = datetime.now(UTC)
    ScheduledRun.objects.create(
        schedule=entry_of, task=START_CRAWL, due_at=now, finished_at=now, outcome="ok", crawl=run
    )
    return run


@pytest.fixture
def resumed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    runs: list[int] = []
    monkeypatch.setattr(upkeep, "resume_crawl", lambda run: runs.append(run.pk))
    return runs


def test_an_interrupted_scheduled_crawl_is_resumed_once(resumed: list[int]) -> None:
    run = interrupted_crawl(every(1, "days", START_CRAWL))
    assert upkeep.resume_interrupted() == [run]
    assert upkeep.resume_interrupted() == []
    assert resumed == [run.pk]


def test_a_scheduled_crawl_whose_process_died_is_found_and_resumed(resumed: list[int]) -> None:
    run = interrupted_crawl(every(1, "days", START_CRAWL))
    silent = datetime.now(UTC) - timedelta(minutes=10)
    CrawlRun.objects.filter(pk=run.pk).update(state="running", finished_at=None, heartbeat_at=silent, host="elsewhere")
    assert [one.pk for one in upkeep.resume_interrupted()] == [run.pk]
    run.refresh_from_db()
    assert run.state == "interrupted"


def test_neither_old_crawls_nor_superseded_ones_nor_those_of_people_are_resumed(resumed: list[int]) -> None:
    row = every(1, "days", START_CRAWL)
    interrupted_crawl(row)  # one came after it
    old = interrupted_crawl(row)
    CrawlRun.objects.filter(pk=old.pk).update(finished_at=datetime.now(UTC) - timedelta(days=2))
    finish_run(start_run("by-hand", "https://example.org").pk, state="interrupted")
    assert upkeep.resume_interrupted() == []


def test_a_crawl_that_cannot_be_resumed_now_is_resumed_later(
    resumed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = interrupted_crawl(every(1, "days", START_CRAWL))

    def cannot(_run: CrawlRun) -> None:
        raise upkeep.CannotStart("no broker")

    with monkeypatch.context() as patch:
        patch.setattr(upkeep, "resume_crawl", cannot)
        with pytest.raises(upkeep.CannotStart):
            upkeep.resume_interrupted()
    assert upkeep.resume_interrupted() == [run]


def test_only_the_newest_runs_of_each_task_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "KEPT", 3)
    often, seldom = every(1, "seconds"), every(1, "days")
    for row, number in ((often, 5), (seldom, 2)):
        for _ in range(number):
            ScheduledRun.objects.create(schedule=row, task=PRUNE, due_at=NOON, finished_at=NOON, outcome="ok")
    newest = list(ScheduledRun.objects.filter(schedule=often).values_list("pk", flat=True)[:3])
    upkeep.forgettable_runs().delete()
    assert list(ScheduledRun.objects.filter(schedule=often).values_list("pk", flat=True)) == newest
    assert len(outcomes(seldom)) == 2


# --- manage.py --------------------------------------------------------------------------------------------------------
@pytest.fixture
def command(settings: Settings, jobs_here: None) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `manage.py scheduler` in the test's database, with a short lease."""
    processes: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "manage.py", "scheduler", *arguments],
            cwd=settings.BASE_DIR,
            env=os.environ | {"SCHEDULE_LEASE_S": "2", "VAR_DIR": str(settings.VAR_DIR)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def wait_for(condition: Callable[[], Any], seconds: float = 30) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "It does not come."
        time.sleep(0.05)
    return value


@pytest.mark.system
@pytest.mark.django_db(transaction=True)
def test_a_scheduler_that_is_killed_is_followed_by_the_one_that_waits(
    command: Callable[..., subprocess.Popen[str]],
) -> None:
    row = every(1, "seconds", RESUME)

    def leader() -> int | None:
        lease = Lease.objects.first()
        return int(lease.holder.split(":")[1]) if lease else None

    processes = {process.pid: process for process in (command(), command())}
    first = wait_for(leader)
    wait_for(lambda: len(outcomes(row)) >= 2)
    processes.pop(first).kill()
    (second,) = processes
    wait_for(lambda: leader() == second)
    before = len(outcomes(row))
    wait_for(lambda: len(outcomes(row)) > before)
    processes[second].send_signal(signal.SIGTERM)
    assert processes[second].wait(10) == 0
    assert not Lease.objects.exists()  # given back: nobody has to wait for its end
    started = list(ScheduledRun.objects.order_by("started_at").values_list("started_at", flat=True))
    assert min(b - a for a, b in pairwise(started)) >= timedelta(seconds=1)
    assert outcomes(row).count("failed") <= 1  # what the first one was at when it was killed


@pytest.mark.system
@pytest.mark.django_db(transaction=True)
def test_the_cron_line_does_what_is_due_and_ends(command: Callable[..., subprocess.Popen[str]]) -> None:
    due, later = every(1, "seconds", RESUME), every(1, "days", RESUME)
    time.sleep(1)  # until it is due, by the clock of another process
    assert command("--once").wait(30) == 0
    assert (outcomes(due), outcomes(later)) == (["ok"], [])
    assert not Lease.objects.exists()


def test_the_table_tells_last_outcomes_and_next_times(
    capsys: pytest.CaptureFixture[str], django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    with time_machine.travel(NOON, tick=False):
        row = every(2, "hours", START_CRAWL, name="Crawl")
        every(1, "hours", "os.system", name="Evil")
        run = start_run(django_settings.SHOP_NAME, "https://example.org")
        ticking.run_now(row, "")
        call_command("schedule")
        table = capsys.readouterr().out
        with django_assert_num_queries(2):  # the rows, and the last run of each
            call_command("schedule", "--json")
    assert "already under way" in table
    crawl, evil = json.loads(capsys.readouterr().out)
    assert crawl["crawl"] == run.pk
    assert crawl["outcome"] == "under_way"
    assert crawl["next_run_at"] == "2026-05-01T14:00:00+00:00"
    assert "It is running." in crawl["detail"]
    assert evil["next_run_at"] is None


# --- The administration -----------------------------------------------------------------------------------------------
@pytest.fixture
def operator_site() -> Client:
    client = Client()
    client.force_login(create_account("oskar", "operator", "tresoldi-quattro-9"))
    return client


def test_an_operator_sees_edits_and_runs_the_schedule(operator_site: Client, called: list[str]) -> None:
    row = every(1, "days", name="Prune")
    response = operator_site.post(CHANGELIST, {"action": "run_now", "_selected_action": [row.pk]}, follow=True)
    assert called == [PRUNE]
    page = response.content.decode()
    assert "Prune: ok. done" in page
    assert "every day" in page
    weekly = IntervalSchedule.objects.create(every=7, period="days")
    form = {"name": "Prune", "task": PRUNE, "enabled": "on", "interval": weekly.pk}
    change = reverse("admin:django_celery_beat_periodictask_change", args=[row.pk])
    assert operator_site.post(change, form).status_code == 302
    row.refresh_from_db()
    assert row.interval == weekly
    (entry,) = ScheduledRun.objects.all()
    history = operator_site.get(reverse("admin:bookapi_scheduledrun_changelist"), {"schedule__id__exact": row.pk})
    assert history.status_code == 200
    assert operator_site.get(reverse("admin:bookapi_scheduledrun_change", args=[entry.pk])).status_code == 200


def test_other_tasks_and_two_schedules_at_once_are_refused(operator_site: Client) -> None:
    add = reverse("admin:django_celery_beat_periodictask_add")
    daily = IntervalSchedule.objects.create(every=1, period="days").pk
    crontab = CrontabSchedule.objects.create(hour="3").pk
    wrong = [
        {"task": "os.system", "interval": daily},
        {"task": PRUNE},
        {"task": PRUNE, "interval": daily, "crontab": crontab},
    ]
    for fields in wrong:
        assert operator_site.post(add, {"name": "X", **fields}).status_code == 200, fields
    assert not PeriodicTask.objects.exists()
    assert operator_site.post(add, {"name": "X", "task": PRUNE, "crontab": crontab}).status_code == 302
    assert PeriodicTask.objects.get().task == PRUNE


def test_curators_do_not_touch_the_schedule(called: list[str]) -> None:
    client = Client()
    client.force_login(create_account("cora", "curator", "tresoldi-quattro-9"))
    row = every(1, "days")
    assert client.get(CHANGELIST).status_code == 403
    assert client.post(CHANGELIST, {"action": "run_now", "_selected_action": [row.pk]}).status_code == 403
    assert called == []


def test_intervals_are_edited_and_never_deleted(operator_site: Client) -> None:
    row = every(1, "days", name="Prune")
    name = "admin:django_celery_beat_intervalschedule"
    assert "Prune" in operator_site.get(reverse(f"{name}_changelist")).content.decode()
    assert operator_site.post(reverse(f"{name}_delete", args=[row.interval_id]), {"post": "yes"}).status_code == 403
    change = reverse(f"{name}_change", args=[row.interval_id])
    assert operator_site.post(change, {"every": 2, "period": "microseconds"}).status_code == 200  # refused
    assert operator_site.post(change, {"every": 2, "period": "hours"}).status_code == 302
    assert in_words(PeriodicTask.objects.get()) == "every 2 hours"


def test_a_schedule_that_is_switched_on_again_has_missed_nothing(operator_site: Client, called: list[str]) -> None:
    row = every(1, "hours", name="Prune", enabled=False, last_run_at=NOON)
    form = {"name": "Prune", "task": PRUNE, "enabled": "on", "interval": row.interval_id}
    operator_site.post(reverse("admin:django_celery_beat_periodictask_change", args=[row.pk]), form)
    Scheduler().tick()
    assert called == []


def test_the_list_costs_as_many_queries_for_many_rows_as_for_one(
    called: list[str], django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    ticking.run_now(every(1, "days"), "")
    client.get(CHANGELIST)
    # Session, account; the count; the rows, their last runs.
    with django_assert_num_queries(5):
        client.get(CHANGELIST)
    for number in range(2, 8):
        ticking.run_now(every(number, "days"), "")
    with django_assert_num_queries(5):
        client.get(CHANGELIST)
