"""Scrapy's settings. Where and how fast to crawl is the spider's to decide; this is how it behaves anywhere."""

import os

import django

# Scrapy imports this file first in every process, so this is the one place that starts Django: the pipeline writes
# through its models, and a second call elsewhere would configure logging twice.
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "bookapi.settings")
django.setup()

from django.conf import settings as django_settings  # noqa: E402 - only after setup

BOT_NAME = "bookapi"
SPIDER_MODULES = ["crawler.spiders"]
COMMANDS_MODULE = "crawler.commands"

# --- A good guest -----------------------------------------------------------------------------------------------------
USER_AGENT = django_settings.CRAWL_USER_AGENT
ROBOTSTXT_OBEY = True
COOKIES_ENABLED = False
CONCURRENT_REQUESTS = 16
CONCURRENT_REQUESTS_PER_DOMAIN = 8
AUTOTHROTTLE_TARGET_CONCURRENCY = 4.0
AUTOTHROTTLE_START_DELAY = 0.5
AUTOTHROTTLE_MAX_DELAY = 30.0
DOWNLOAD_TIMEOUT = 30

# --- Nothing may hurt us ----------------------------------------------------------------------------------------------
# 1.4 MB of gzip can become 300 MB; no page of a book shop is larger than this.
DOWNLOAD_MAXSIZE = 10 * 1024 * 1024
DOWNLOAD_WARNSIZE = 2 * 1024 * 1024
REDIRECT_MAX_TIMES = 5
RETRY_TIMES = 3
RETRY_GIVE_UP_LOG_LEVEL = "INFO"  # the page is kept as failed, with its reason
TELNETCONSOLE_ENABLED = False
REMOTE_CONTROL_ENABLED = False  # a server that would let others steer the crawl
# Scrapy drops longer links without a word. Cleaning refuses an address that is too long, and says so.
URLLENGTH_LIMIT = 0
# A catalogue that cannot be reached is tried again after these; then the crawl ends as failed, and can be resumed.
CATALOGUE_RETRY_PAUSES_S = [1.0, 5.0, 20.0]

# --- Parts ------------------------------------------------------------------------------------------------------------
DOWNLOADER_MIDDLEWARES = {
    "crawler.middlewares.StayInTheShop": 50,  # before robots.txt of a foreign host is asked for
    "scrapy.downloadermiddlewares.offsite.OffsiteMiddleware": None,
    "scrapy.downloadermiddlewares.retry.RetryMiddleware": None,
    "crawler.middlewares.RetryWithBackOff": 550,
    "crawler.middlewares.ConditionalRequests": 560,
}
ITEM_PIPELINES = {"crawler.pipelines.CataloguePipeline": 900}
EXTENSIONS = {"crawler.extensions.RunKeeper": 100, "crawler.extensions.Progress": 200}
# Scrapy starts this many tasks for each response; its default of 100 costs a quarter of the rate.
CONCURRENT_ITEMS = 2

# --- Logs -------------------------------------------------------------------------------------------------------------
# Django's configuration, made above, writes the lines of all libraries; Scrapy's own handler would repeat them.
LOG_ENABLED = False
LOGSTATS_INTERVAL = 60.0
