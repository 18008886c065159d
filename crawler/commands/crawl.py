"""`scrapy crawl`, whose exit code tells how the run ended."""

import argparse
import sys

from django.db import DatabaseError, connection
from rich.console import Console
from scrapy import Spider
from scrapy.commands import crawl
from scrapy.crawler import Crawler
from scrapy.exceptions import UsageError

from catalog.ingest import CrawlRun
from crawler.extensions import quiet_terminal
from crawler.spiders.books import BooksSpider

COMPLETE, FAILED, INCOMPLETE = 0, 1, 2


class Command(crawl.Command):
    """Exit code 0: the run finished, and was complete if it was meant to be. 1: it failed, was stopped, or could not
    start. 2: it finished, but its sums do not hold for what the shop announced, or its books are still in the queue; or
    the command line is wrong.

    Scrapy's own command ends with 0 even if every single item failed.
    """

    def process_options(self, args: list[str], opts: argparse.Namespace) -> None:
        super().process_options(args, opts)
        if opts.logfile or opts.loglevel or opts.nolog:
            raise UsageError(
                "Log lines go to stderr in one form for all parts: set LOG_LEVEL and LOG_FORMAT in the environment.",
                print_help=False,
            )
        quiet_terminal()  # here, because Scrapy begins to talk right after

    def _create_crawler(self, spidercls: type[Spider] | str) -> Crawler:
        # The process forgets a crawler once it has ended, and with it the spider that knows the outcome.
        self.crawler: Crawler = super()._create_crawler(spidercls)
        return self.crawler

    def run(self, args: list[str], opts: argparse.Namespace) -> None:
        try:
            BooksSpider(**opts.spargs)
        except ValueError as error:  # said here, or it ends as a traceback in the log
            raise UsageError(str(error), print_help=False) from error
        opts.spargs = arguments_of_run(opts.spargs.get("resume") or opts.spargs.get("run")) | opts.spargs
        super().run(args, opts)
        if isinstance(self.crawler.spider, BooksSpider):
            self.exitcode = max(self.exitcode, outcome(self.crawler.spider))


def arguments_of_run(number: str | None) -> dict[str, str]:
    """The spider's arguments for a run that goes on, so that its number alone is enough; none for an unknown one."""
    if not number:
        return {}
    try:
        run = CrawlRun.objects.filter(pk=number).first()
    except DatabaseError:  # the spider will meet it too, and tells
        return {}
    finally:
        connection.close()  # the crawl has a thread for the catalogue, with a connection of its own
    if run is None:
        return {}
    return {"shop": run.shop, "start_url": run.source} | {name: str(value) for name, value in run.filters.items()}


def outcome(spider: BooksSpider) -> int:
    """The exit code of a spider that has ended; on a terminal the sums of its run are printed too."""
    run = spider.ended
    console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)
    spooled = len(spider.outbox.waiting) if spider.outbox is not None else 0
    if spooled:
        console.print(f"The broker did not take {spooled} batches: the next crawl publishes them, or scrapy drain.")
    if run is not None and run.state == "settling":
        console.print(
            f"Run {run.pk} has read the shop; {run.published - run.seen} of its {run.published} books are still in the "
            "queue. The workers complete it.",
            style="yellow",
        )
        return INCOMPLETE
    if run is None or run.state != "finished":
        console.print(f"The crawl did not finish: {spider.trouble or 'it was stopped'}", style="red")
        if spider.run_id and not isinstance(run, CrawlRun):
            console.print(f"Run {spider.run_id} could not be closed; the next crawl of {spider.shop} will do it.")
        if spider.run_id:
            console.print(f"Go on with: scrapy crawl books -a resume={spider.run_id}")
        return FAILED
    if sys.stderr.isatty():
        console.print(
            f"Run {run.pk}: {run.announced} announced, {run.seen} seen ({run.created} created, {run.updated} updated, "
            f"{run.unchanged} unchanged, {run.stale} stale, {run.rejected} rejected), {run.failed_pages} failed pages, "
            f"{run.delisted} delisted, {'complete' if run.complete else 'not complete'}."
        )
        for warning in run.warnings:
            console.print(f"Warning: {warning['detail']}", style="yellow")
    return COMPLETE if run.complete or run.filters else INCOMPLETE
