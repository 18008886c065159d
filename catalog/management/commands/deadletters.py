"""`manage.py deadletters`: what the queue gave up, to be read, replayed or dropped."""

from __future__ import annotations

import json
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from catalog import deadletters
from catalog.deadletters import NoBroker
from catalog.models import DeadLetter

NOT_ALL, UNUSABLE = 1, 2


class Command(BaseCommand):
    help = (
        "List what the queue gave up, after collecting what is new. "
        "Exit code 0: done; 1: some of the letters were not open, or there are none of these numbers; "
        "2: the broker is needed and was not reached."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="one JSON object a letter and line")
        parser.add_argument("--every", action="store_true", help="list the replayed and dropped ones as well")
        what = parser.add_subparsers(dest="what", metavar="list|show|replay|drop")
        what.add_parser("list", help="the open letters: what is done when nothing is said")
        show = what.add_parser("show", help="one letter, with its message as far as it can be read")
        show.add_argument("ids", metavar="ID", type=int, nargs=1)
        for name, help_text in (("replay", "publish the message again"), ("drop", "give the message up for good")):
            decide = what.add_parser(name, help=help_text)
            decide.add_argument("ids", metavar="ID", type=int, nargs="*")
            decide.add_argument("--all", action="store_true", help="every open letter")

    def handle(self, *, what: str | None, ids: list[int] = [], all: bool = False, **options: Any) -> None:  # noqa: A002, B006
        if what in {"replay", "drop"} and bool(ids) == all:
            raise CommandError("Name the letters, or say --all.", returncode=UNUSABLE)
        try:
            if settings.BROKER_URL:
                deadletters.collect()
            match what:
                case "show":
                    self._show(ids[0])
                case "replay" | "drop":
                    self._decide(what, ids)
                case _:
                    self._list(options["json"], options["every"])
        except (NoBroker, *deadletters.BROKER_ERRORS) as error:
            raise CommandError(str(error) or type(error).__name__, returncode=UNUSABLE) from error

    def _list(self, as_json: bool, every: bool) -> None:
        letters = DeadLetter.objects.defer("body", "properties")
        if not every:
            letters = letters.filter(state=DeadLetter.State.OPEN)
        for letter in letters.iterator():
            self.stdout.write(json.dumps(as_facts(letter)) if as_json else as_line(letter))
        if not as_json and not letters.exists():
            self.stdout.write("There are no dead letters.")

    def _show(self, pk: int) -> None:
        letter = DeadLetter.objects.filter(pk=pk).first()
        if letter is None:
            raise CommandError(f"There is no letter {pk}.", returncode=NOT_ALL)
        facts = as_facts(letter) | {"properties": letter.properties}
        self.stdout.write(json.dumps(facts, indent=2))
        self.stdout.write(deadletters.readable(letter))

    def _decide(self, what: str, ids: list[int]) -> None:
        chosen = ids or list(
            DeadLetter.objects.filter(state=DeadLetter.State.OPEN).order_by("pk").values_list("pk", flat=True)
        )
        done = deadletters.replay(chosen) if what == "replay" else deadletters.drop(chosen)
        self.stdout.write(f"{done} {'replayed' if what == 'replay' else 'dropped'}.")
        if done < len(set(chosen)):
            raise CommandError(f"{len(set(chosen)) - done} of them are not open.", returncode=NOT_ALL)


def as_facts(letter: DeadLetter) -> dict[str, Any]:
    return {
        "id": letter.pk,
        "reason": letter.reason,
        "detail": letter.detail,
        "task": letter.task,
        "queue": letter.queue,
        "run": letter.run_id,
        "batch": str(letter.batch_id) if letter.batch_id else None,
        "records": letter.records,
        "received_at": letter.received_at.isoformat(),
        "state": letter.state,
        "settled_by": letter.settled_by,
    }


def as_line(letter: DeadLetter) -> str:
    age = timezone.now() - letter.received_at
    run = f"run {letter.run_id}" if letter.run_id else "no run"
    return (
        f"{letter.pk:>6}  {letter.state:<8}  {letter.get_reason_display():<20}  {letter.task or '-':<28}  {run:<9}  "
        f"{letter.records:>5} records  {age.days}d {age.seconds // 3600:02}h  {letter.detail}"
    ).rstrip()
