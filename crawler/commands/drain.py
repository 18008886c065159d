"""`scrapy drain`: what earlier crawls left in the spool goes to the broker, without a crawl."""

import argparse
import asyncio

from django.conf import settings as django_settings
from scrapy.commands import ScrapyCommand
from scrapy.exceptions import UsageError

from crawler.catalogue import Catalogue
from crawler.spool import Outbox

#: Seconds after which it ends, with what is left in the spool.
LONGEST_S = 600.0


class Command(ScrapyCommand):
    """Exit code 0: the spool is empty. 2: the broker did not take all of it, or there is none."""

    requires_project = True
    requires_crawler_process = False

    def short_desc(self) -> str:
        return "Publish the batches that earlier crawls left in the spool"

    def run(self, args: list[str], opts: argparse.Namespace) -> None:
        if args:
            raise UsageError()
        if not django_settings.BROKER_URL:
            raise UsageError("BROKER_URL is not set: there is no queue.", print_help=False)
        left = asyncio.run(drain())
        if left:
            print(f"The broker did not take {left} batches.")
            self.exitcode = 2


async def drain() -> int:
    """How many batches are left."""
    outbox = Outbox(django_settings.SPOOL_DIR, Catalogue([]))
    await outbox.open()
    try:
        await outbox.flush(LONGEST_S)
    finally:
        outbox.close()
    return len(outbox.waiting)
