"""`scrapy crawl`, whose exit code tells how the run ended."""

import argparse
import sys

from rich.console import Console
from scrapy import Spider
from scrapy.commands import crawl
from scrapy.crawler import Crawler
from scrapy.exceptions import UsageError

from crawler.spiders.books import BooksSpider

COMPLETE, FAILED, INCOMPLETE = 0, 1, 2


class Command(crawl.Command):
    """Exit code 0: the run finished, and was complete if it was meant to be. 1: it failed, was stopped, or could not
    start. 2: it finished, but its sums do not hold for what the shop announced.

    Scrapy's own command ends with 0 even if every single item failed.
    """

    def _create_crawler(self, spidercls: type[Spider] | str) -> Crawler:
        # The process forgets a crawler once it has ended, and with it the spider that knows the outcome.
        self.crawler: Crawler = super()._create_crawler(spidercls)
        return self.crawler

    def run(self, args: list[str], opts: argparse.Namespace) -> None:
        try:
            BooksSpider(**opts.spargs)
        except ValueError as error:  # said here, or it ends as a traceback in the log
            raise UsageError(str(error), print_help=False) from error
        super().run(args, opts)
        if isinstance(self.crawler.spider, BooksSpider):
            self.exitcode = max(self.exitcode, outcome(self.crawler.spider))


def outcome(spider: BooksSpider) -> int:
    """The exit code of a spider that has ended; on a terminal the sums of its run are printed too."""
    run = spider.ended
    if run is None or run.state != "finished":
        Console(stderr=True).print(f"[red]The crawl did not finish:[/] {spider.trouble or 'it was stopped'}")
        if run is not None:
            Console(stderr=True).print(f"Go on with: scrapy crawl books -a resume={run.pk}")
        return FAILED
    if sys.stderr.isatty():
        Console(stderr=True).print(
            f"Run {run.pk}: {run.announced} announced, {run.seen} seen ({run.created} created, {run.updated} updated, "
            f"{run.unchanged} unchanged, {run.stale} stale, {run.rejected} rejected), {run.failed_pages} failed pages, "
            f"{run.delisted} delisted, {'complete' if run.complete else 'not complete'}."
        )
        for warning in run.warnings:
            Console(stderr=True).print(f"[yellow]Warning:[/] {warning['detail']}")
    return COMPLETE if run.complete or run.filters else INCOMPLETE
