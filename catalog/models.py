"""What we know about books, where we know it from, and what became of it."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import F, Q
from django.utils import timezone
from django.utils.text import slugify

from catalog import cleaning, lookups  # noqa: F401 - registers `among`
from catalog.fields import BytewiseCharField
from catalog.querysets import BookQuerySet, CrawlRunQuerySet
from catalog.text import fold


class CatalogueRevision(models.Model):
    """The number that every visible change of the catalogue moves: one row, which every writer locks first."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    number = models.BigIntegerField(default=0)

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(id=1), name="one_revision_row")]

    def __str__(self) -> str:
        return str(self.number)


class Category(models.Model):
    """A shelf, as the shops call it and as a curator may have renamed it."""

    shop_name = models.CharField(max_length=cleaning.CATEGORY_MAX, unique=True, editable=False)
    name = models.CharField(max_length=cleaning.CATEGORY_MAX)
    slug = models.SlugField(max_length=cleaning.CATEGORY_MAX + 20, unique=True, allow_unicode=True)
    name_key = models.CharField(max_length=cleaning.CATEGORY_MAX, editable=False, db_index=True)

    class Meta:
        ordering = ["name", "id"]
        verbose_name_plural = "categories"

    def __str__(self) -> str:
        return self.name

    def save(self, *args: Any, **kwargs: Any) -> None:
        self.name_key = fold(self.name)[: cleaning.CATEGORY_MAX]
        if not self.slug:
            self.slug = self.free_slug(self.name)
        super().save(*args, **kwargs)

    @classmethod
    def free_slug(cls, name: str) -> str:
        """A slug for `name` that no category has: "food-and-drink", or with a number behind it. Queries once a try."""
        base = slugify(name, allow_unicode=True) or "category"
        slug, n = base, 1
        while cls.objects.filter(slug=slug).exists():
            n += 1
            slug = f"{base}-{n}"
        return slug


class Book(models.Model):
    """One product of one shop. Identity is (shop, UPC); the primary key is the API's id."""

    #: Fields that a crawl writes, unless a person has locked them.
    SCRAPED_FIELDS = (
        "title",
        "authors",
        "description",
        "category",
        "price",
        "price_excl_tax",
        "tax",
        "currency",
        "rating",
        "stock",
        "availability",
        "in_stock",
        "review_count",
        "product_type",
        "image_url",
        "source_url",
    )
    #: Fields that a person may edit, and thereby lock. `in_stock` follows `stock`.
    CURATED_FIELDS = tuple(f for f in SCRAPED_FIELDS if f not in {"in_stock", "source_url"})

    shop = models.SlugField(max_length=50, db_index=False)
    upc = BytewiseCharField("UPC", max_length=cleaning.UPC_MAX)
    title = models.CharField(max_length=cleaning.TITLE_MAX)
    authors = models.JSONField(default=list, blank=True)
    category = models.ForeignKey(Category, on_delete=models.PROTECT, related_name="books", db_index=False)
    price = models.DecimalField(max_digits=10, decimal_places=2, validators=[MinValueValidator(0)])
    price_excl_tax = models.DecimalField(max_digits=10, decimal_places=2, validators=[MinValueValidator(0)])
    tax = models.DecimalField(max_digits=10, decimal_places=2, validators=[MinValueValidator(0)])
    currency = models.CharField(max_length=3)
    rating = models.PositiveSmallIntegerField(validators=[MinValueValidator(1), MaxValueValidator(5)])
    stock = models.PositiveIntegerField(validators=[MaxValueValidator(cleaning.STOCK_MAX)])
    availability = models.CharField(max_length=cleaning.AVAILABILITY_MAX, blank=True)
    in_stock = models.BooleanField(editable=False)
    review_count = models.PositiveIntegerField(default=0, validators=[MaxValueValidator(cleaning.REVIEWS_MAX)])
    product_type = models.CharField(max_length=cleaning.PRODUCT_TYPE_MAX, blank=True)
    image_url = models.CharField(max_length=cleaning.URL_MAX, blank=True)
    source_url = models.CharField(max_length=cleaning.URL_MAX, blank=True)

    listed = models.BooleanField(default=True, help_text="In the shop, as far as the last complete run knows.")
    hidden = models.BooleanField(default=False, help_text="Withheld by a person; a crawl never touches this.")
    merged_into = models.ForeignKey(
        "self",
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        editable=False,
        related_name="merged",
        db_index=False,  # see `merged_books` below
    )
    locked_fields = models.JSONField(default=list, blank=True, editable=False)
    shop_values = models.JSONField(default=dict, blank=True, editable=False)  # what the shop says of locked fields
    first_seen_at = models.DateTimeField(editable=False)
    updated_at = models.DateTimeField(editable=False)

    # Last, so that SQLite reads past them only when they are asked for: it walks long rows column by column.
    description = models.TextField(blank=True)
    title_key = BytewiseCharField(max_length=cleaning.TITLE_MAX, editable=False)
    search_key = models.TextField(editable=False)

    objects = BookQuerySet.as_manager()

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(fields=["shop", "upc"], name="one_book_per_shop_and_upc"),
            models.CheckConstraint(condition=Q(rating__range=(1, 5)), name="rating_is_1_to_5"),
            models.CheckConstraint(
                condition=Q(price__gte=0, price_excl_tax__gte=0, tax__gte=0), name="money_is_not_negative"
            ),
            models.CheckConstraint(condition=Q(in_stock=Q(stock__gt=0)), name="in_stock_follows_stock"),
            models.CheckConstraint(condition=~Q(merged_into=F("id")), name="book_is_not_merged_into_itself"),
        ]
        # Each is the order of a keyset page: the sort column, then the id that breaks ties.
        indexes = [
            models.Index(fields=["price", "id"]),
            models.Index(fields=["rating", "id"]),
            models.Index(fields=["-rating", "price", "id"], name="top_rated_books"),
            models.Index(fields=["stock", "id"]),
            models.Index(fields=["title_key", "id"]),
            models.Index(fields=["updated_at", "id"]),
            models.Index(fields=["category", "id"]),
            # Of the few that were merged. A full index tempted SQLite to find "not merged" with it, which is nearly
            # every book, and to sort them: half a second for a page of 200,000 books.
            models.Index(fields=["merged_into"], condition=Q(merged_into__isnull=False), name="merged_books"),
        ]

    def __str__(self) -> str:
        return self.title

    def save(self, *args: Any, **kwargs: Any) -> None:
        self.derive()
        super().save(*args, **kwargs)

    def derive(self) -> None:
        """Set what follows from other fields. Call it before every write that does not go through `save`."""
        self.in_stock = self.stock > 0
        self.title_key = fold(self.title)[: cleaning.TITLE_MAX]  # folding can lengthen, and an index entry has a limit
        self.search_key = fold("\n".join([self.title, *self.authors, self.description]))

    @property
    def visible(self) -> bool:
        return not self.hidden and self.merged_into_id is None


class CrawlRun(models.Model):
    """One run over one shop: when, how it ended, and what became of every book that the shop announced."""

    class State(models.TextChoices):
        RUNNING = "running"
        SETTLING = "settling"  # read to its end; waits for what the queue still holds
        FINISHED = "finished"
        INTERRUPTED = "interrupted"  # killed, or stopped by a person; can be resumed
        FAILED = "failed"  # ended by an error of ours

    class Kind(models.TextChoices):
        CRAWL = "crawl"
        FILE = "file"

    shop = models.SlugField(max_length=50)
    kind = models.CharField(max_length=10, choices=Kind.choices, default=Kind.CRAWL)
    state = models.CharField(max_length=12, choices=State.choices, default=State.RUNNING)
    source = models.CharField(max_length=cleaning.URL_MAX)  # start address or file name
    filters = models.JSONField(default=dict, blank=True)  # limit, category: a filtered run is never complete
    started_at = models.DateTimeField(default=timezone.now)
    finished_at = models.DateTimeField(null=True, blank=True)
    heartbeat_at = models.DateTimeField(default=timezone.now)
    host = models.CharField(max_length=255, blank=True)
    pid = models.PositiveIntegerField(null=True, blank=True)
    requested_by = models.CharField(max_length=150, blank=True)  # user name; empty for the command line

    announced = models.PositiveIntegerField(null=True, blank=True)
    created = models.PositiveIntegerField(default=0)
    updated = models.PositiveIntegerField(default=0)
    unchanged = models.PositiveIntegerField(default=0)
    stale = models.PositiveIntegerField(default=0)
    rejected = models.PositiveIntegerField(default=0)
    dead = models.PositiveIntegerField(default=0)  # given up by the queue; replayed, they move to another count
    published = models.PositiveIntegerField(default=0)  # records handed to the queue; 0 where there is none
    seen = models.PositiveIntegerField(default=0)
    failed_pages = models.PositiveIntegerField(default=0)  # of books; a failed list page is a warning
    delisted = models.PositiveIntegerField(default=0)
    complete = models.BooleanField(default=False)
    coverage = models.JSONField(default=dict, blank=True)  # field -> share of the seen books that have it, 0-1
    price_mean = models.DecimalField(max_digits=12, decimal_places=4, null=True, blank=True)
    warnings = models.JSONField(default=list, blank=True)

    objects = CrawlRunQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        permissions = [("start_crawl", "May start crawls and trainings")]
        constraints = [
            # The lock of a crawl: a second one of the same shop cannot even be written down.
            models.UniqueConstraint(
                fields=["shop"],
                condition=Q(state__in=["running", "settling"], kind="crawl"),
                name="one_running_crawl_per_shop",
            ),
            models.CheckConstraint(
                condition=Q(seen=F("created") + F("updated") + F("unchanged") + F("stale") + F("rejected") + F("dead")),
                name="seen_is_the_sum_of_outcomes",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.shop} #{self.pk}"

    def log_context(self) -> dict[str, Any]:
        """The run as a log line tells it."""
        counts = (
            "announced",
            "seen",
            "created",
            "updated",
            "unchanged",
            "stale",
            "rejected",
            "dead",
            "published",
            "failed_pages",
            "delisted",
        )
        return {
            "run_id": self.pk,
            "shop": self.shop,
            "state": self.state,
            "complete": self.complete,
            "counts": {name: getattr(self, name) for name in counts},
            "warnings": [warning["code"] for warning in self.warnings],
        }


class BookSource(models.Model):
    """The record that a book was last written from, so that it can be compared, revisited and cleaned again."""

    book = models.OneToOneField(Book, on_delete=models.CASCADE, primary_key=True, related_name="source")
    fingerprint = models.BigIntegerField()  # of the raw fields, see `records.fingerprint`
    page = models.BigIntegerField(db_index=True)  # hash of the page's address, see `records.page_key`
    scraped_at = models.DateTimeField()  # of the record; a later sighting may have found the same
    cleaner_version = models.PositiveSmallIntegerField()
    parser_version = models.PositiveSmallIntegerField()
    etag = models.CharField(max_length=200, blank=True)
    raw = models.JSONField()  # ScrapedBook.raw_fields()

    def __str__(self) -> str:
        return f"source of book {self.book_id}"


# Sightings, changes and observations are logs, written in transactions that hold their books and runs. The database
# does not look each key up once more, which took a sixth of an unchanged batch: see docs/adr/0003.


class Sighting(models.Model):
    """A book seen in a run, whether or not it had changed. Narrow: there is one for every book and visit."""

    run = models.ForeignKey(
        CrawlRun, on_delete=models.CASCADE, related_name="sightings", db_index=False, db_constraint=False
    )
    book = models.ForeignKey(
        Book, on_delete=models.CASCADE, related_name="sightings", db_index=False, db_constraint=False
    )
    page = models.BigIntegerField()  # hash of the page's address: a resumed run asks which pages it has read
    scraped_at = models.DateTimeField()
    fingerprint = models.BigIntegerField()

    class Meta:
        constraints = [
            # A record that the queue delivers twice is a sighting that is there already, and is counted once.
            models.UniqueConstraint(fields=["run", "page", "scraped_at"], name="one_sighting_per_visit")
        ]
        indexes = [models.Index(fields=["book", "scraped_at"])]  # the latest visit decides what is stale

    def __str__(self) -> str:
        return f"book {self.book_id} in run {self.run_id}"


class Change(models.Model):
    """What changed in a book, in the order in which readers could see it: `(revision, id)`."""

    class Kind(models.TextChoices):
        CREATED = "created"
        UPDATED = "updated"
        DELISTED = "delisted"
        RELISTED = "relisted"
        MERGED = "merged"

    revision = models.BigIntegerField()
    book = models.ForeignKey(Book, on_delete=models.CASCADE, related_name="changes", db_constraint=False)
    kind = models.CharField(max_length=10, choices=Kind.choices)
    fields = models.JSONField(default=dict)  # field -> {"old": ..., "new": ...}; money as text
    at = models.DateTimeField()

    class Meta:
        ordering = ["revision", "id"]
        indexes = [models.Index(fields=["revision", "id"]), models.Index(fields=["at"])]

    def __str__(self) -> str:
        return f"{self.kind} book {self.book_id} at revision {self.revision}"


class PriceObservation(models.Model):
    """Price, stock and rating of a book from one moment until the next observation."""

    book = models.ForeignKey(
        Book, on_delete=models.CASCADE, related_name="observations", db_index=False, db_constraint=False
    )
    at = models.DateTimeField()
    price = models.DecimalField(max_digits=10, decimal_places=2)
    stock = models.PositiveIntegerField()
    rating = models.PositiveSmallIntegerField()

    class Meta:
        ordering = ["at", "id"]
        indexes = [models.Index(fields=["book", "at"])]

    def __str__(self) -> str:
        return f"book {self.book_id} at {self.at:%Y-%m-%d}: {self.price}"


class FailedPage(models.Model):
    """A page of a run that gave no record, and why."""

    class Kind(models.TextChoices):
        BOOK = "book"
        LISTING = "listing"

    run = models.ForeignKey(CrawlRun, on_delete=models.CASCADE, related_name="failed")
    url = models.CharField(max_length=cleaning.URL_MAX)
    kind = models.CharField(max_length=10, choices=Kind.choices)
    reason = models.CharField(max_length=50)  # "http_404", "timeout", "not_a_book_page"
    detail = models.CharField(max_length=500, blank=True)
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["-at"]
        constraints = [models.UniqueConstraint(fields=["run", "url"], name="one_failure_per_page_and_run")]

    def __str__(self) -> str:
        return f"{self.reason}: {self.url}"


class RejectedItem(models.Model):
    """A scraped record that could not become a book: its raw fields, one reason a field, and what became of it."""

    class State(models.TextChoices):
        OPEN = "open"
        RETRIED = "retried"  # cleaned again, and ingested
        DISMISSED = "dismissed"

    run = models.ForeignKey(CrawlRun, on_delete=models.CASCADE, related_name="rejections")
    reference = models.CharField(max_length=500)  # address of the page, or FILE:LINE
    page = models.BigIntegerField()  # hash of the address, as in Sighting
    upc = models.CharField(max_length=200, blank=True)
    raw = models.JSONField()  # ScrapedBook.to_json(), or {"line": "..."} of a file that is not even JSON
    errors = models.JSONField()  # [{"field", "code", "detail"}]
    scraped_at = models.DateTimeField()
    state = models.CharField(max_length=10, choices=State.choices, default=State.OPEN)

    class Meta:
        ordering = ["-id"]
        constraints = [models.UniqueConstraint(fields=["run", "page", "scraped_at"], name="one_rejection_per_visit")]

    def __str__(self) -> str:
        return f"rejected {self.reference}"


class PublishedBatch(models.Model):
    """A batch of records on its way through the queue: written down before it is published, settled once.

    What the queue itself cannot tell, since it delivers a message once, twice or never: whether all that a run has
    published has arrived. The row is settled in the transaction that writes the batch's books.
    """

    class State(models.TextChoices):
        PENDING = "pending"  # in a spool, in the queue, or with a worker
        SETTLED = "settled"  # its records are in the sums of the run
        DEAD = "dead"  # given up by the queue; see DeadLetter

    key = models.UUIDField(primary_key=True)
    run = models.ForeignKey(CrawlRun, on_delete=models.CASCADE, related_name="batches", db_index=False)
    records = models.PositiveIntegerField()
    #: Hashes of the pages, as in Sighting: while the batch is pending or dead, nobody reads them again for this run,
    #: and none of their books is taken to have left. Emptied when it is settled.
    pages = models.JSONField(default=list)
    state = models.CharField(max_length=8, choices=State.choices, default=State.PENDING)
    published_at = models.DateTimeField(default=timezone.now)
    settled_at = models.DateTimeField(null=True, blank=True)
    error = models.CharField(max_length=500, blank=True)  # what a worker last said of it

    class Meta:
        verbose_name_plural = "published batches"
        indexes = [
            models.Index(fields=["run", "state"]),
            # Of the few that are under way: how many there are, and how old the oldest is.
            models.Index(fields=["published_at"], condition=Q(state="pending"), name="pending_batches"),
        ]

    def __str__(self) -> str:
        return f"{self.records} records of run {self.run_id}"


class DeadLetter(models.Model):
    """A message that the queue gave up, whole, with the reason: to be replayed or dropped by a person."""

    class Reason(models.TextChoices):
        FAILED = "failed"  # the task raised an error
        UNDECODABLE = "undecodable"  # its body or headers could not be read
        UNKNOWN_TASK = "unknown_task", "unknown task"
        DELIVERIES = "deliveries", "delivered too often"  # it killed its worker each time, or the database was away
        EXPIRED = "expired"
        UNROUTABLE = "unroutable"  # no queue wanted it

    class State(models.TextChoices):
        OPEN = "open"
        REPLAYED = "replayed"
        DROPPED = "dropped"

    message = models.CharField(max_length=64, unique=True)  # digest of what was delivered: it is collected once
    queue = models.CharField(max_length=100)  # that it came from, before it died
    task = models.CharField(max_length=100, blank=True)
    reason = models.CharField(max_length=12, choices=Reason.choices)
    detail = models.CharField(max_length=500, blank=True)
    batch = models.ForeignKey(PublishedBatch, on_delete=models.SET_NULL, null=True, blank=True, related_name="letters")
    run = models.ForeignKey(CrawlRun, on_delete=models.SET_NULL, null=True, blank=True, related_name="letters")
    records = models.PositiveIntegerField(default=0)  # books in it, as far as it can be read
    body = models.BinaryField()
    properties = models.JSONField(default=dict)  # content type and encoding, headers, routing key: to publish it again
    received_at = models.DateTimeField(default=timezone.now)
    state = models.CharField(max_length=8, choices=State.choices, default=State.OPEN)
    settled_at = models.DateTimeField(null=True, blank=True)
    settled_by = models.CharField(max_length=150, blank=True)  # user name; empty for the command line

    class Meta:
        ordering = ["-id"]
        permissions = [("settle_deadletter", "May replay and drop dead letters")]

    def __str__(self) -> str:
        return f"{self.get_reason_display()}: {self.task or 'a message'}"


class Prediction(models.Model):
    """What an outside model predicted for a book: stored for its owner, never mixed with the shop's facts."""

    model = models.CharField(max_length=100)
    model_version = models.CharField(max_length=100)
    book = models.ForeignKey(Book, on_delete=models.CASCADE, related_name="predictions")
    score = models.FloatField()
    extra = models.JSONField(default=dict, blank=True)
    account = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+", db_index=False
    )
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["-id"]
        constraints = [
            # Sent again, a prediction replaces the one before: a retry stores nothing twice.
            models.UniqueConstraint(
                fields=["account", "model", "model_version", "book"], name="one_prediction_per_account_model_and_book"
            )
        ]
        indexes = [models.Index(fields=["account", "id"])]  # a page of one's own

    def __str__(self) -> str:
        return f"{self.model} {self.model_version}: book {self.book_id} {self.score}"
