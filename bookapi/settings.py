"""Settings of every process, read from the environment. `.env.example` lists the variables."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured

from bookapi import environment as env
from bookapi.logs import logging_config

BASE_DIR = Path(__file__).resolve().parent.parent
environ.Env.read_env(BASE_DIR / ".env", overwrite=False)

# --- Where we run -----------------------------------------------------------------------------------------------------
# A git checkout is somebody's desk; an image or an unpacked release is not.
ENVIRONMENT = env.choice(
    "ENVIRONMENT", "development" if (BASE_DIR / ".git").exists() else "production", ["development", "production"]
)
DEVELOPMENT = ENVIRONMENT == "development"
DEBUG = env.boolean("DEBUG", False)
if DEBUG and not DEVELOPMENT:
    raise ImproperlyConfigured("DEBUG is true in production: its error pages show settings and data to everybody.")
VAR_DIR = BASE_DIR / env.text("VAR_DIR", "var")  # a relative one is meant from here, whoever starts us
VERSION = "0.1.0"

SECRET_KEY = env.text("SECRET_KEY") or (env.kept_secret(VAR_DIR / "secret_key") if DEVELOPMENT else "")
if len(SECRET_KEY) < 32:
    raise ImproperlyConfigured("SECRET_KEY needs 32 characters or more, and must be set in production.")

ALLOWED_HOSTS = env.words("ALLOWED_HOSTS", ["localhost", "127.0.0.1", "[::1]"] if DEVELOPMENT else [])
if not ALLOWED_HOSTS:
    raise ImproperlyConfigured("ALLOWED_HOSTS must be set in production: the host names we answer to.")
PUBLIC_URL = env.web_address("PUBLIC_URL")
TRUSTED_PROXIES = env.integer("TRUSTED_PROXIES", 0, maximum=10)

# --- Applications -----------------------------------------------------------------------------------------------------
INSTALLED_APPS = [
    "unfold",
    "unfold.contrib.filters",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_filters",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_celery_beat",
    "catalog",
    "recommender",
    "bookapi",
]
MIDDLEWARE = [
    "bookapi.logs.RequestLog",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "bookapi.middleware.Sessions",
    "django.middleware.csrf.CsrfViewMiddleware",
    "bookapi.middleware.Accounts",
    "bookapi.middleware.Messages",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "bookapi.urls"
WSGI_APPLICATION = "bookapi.wsgi.application"
APPEND_SLASH = False
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
LANGUAGE_CODE = "en"
USE_TZ = True
TIME_ZONE = "UTC"
STATIC_URL = "/static/"
STATIC_ROOT = BASE_DIR / "static"
# On a desk the files come from the packages as they are; an image collects them once, with `collectstatic`.
WHITENOISE_USE_FINDERS = DEVELOPMENT
if DEVELOPMENT:
    STATIC_ROOT.mkdir(exist_ok=True)  # WhiteNoise warns where there is none
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# --- Database ---------------------------------------------------------------------------------------------------------
SQLITE_OPTIONS: dict[str, Any] = {
    # An atomic block is a writer here: it takes the write lock at once, instead of failing half-way with "database is
    # locked". Reads run outside of transactions and never wait. ATOMIC_REQUESTS would make every reader a writer.
    "transaction_mode": "IMMEDIATE",
    "timeout": 30,
    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA cache_size=-65536;",
}
NO_SUCH_DATABASE = "DATABASE_URL must begin with sqlite:/// or postgres://"


def _database() -> dict[str, Any]:
    config = _database_address()
    engine = config.get("ENGINE", "")
    if engine.endswith("sqlite3"):
        VAR_DIR.mkdir(parents=True, exist_ok=True)
        # Tests use a file as well: several connections to one database in memory do not behave like the real thing.
        return {
            **config,
            "NAME": str(BASE_DIR / config["NAME"]),
            # Kept for good: opening a connection, with its pragmas, costs more than a page of books.
            "CONN_MAX_AGE": None,
            "OPTIONS": SQLITE_OPTIONS,
            "TEST": {"NAME": str(VAR_DIR / "test.sqlite3")},
        }
    if engine.endswith(("postgresql", "psycopg2")):
        # A new connection costs more than most requests; a dead one is noticed before it is used.
        return {
            **config,
            "ENGINE": "django.db.backends.postgresql",
            "CONN_MAX_AGE": 600,
            "CONN_HEALTH_CHECKS": True,
        }
    raise ImproperlyConfigured(NO_SUCH_DATABASE)


def _database_address() -> dict[str, Any]:
    """Engine, name, host and the rest from DATABASE_URL, or a file in VAR_DIR."""
    url = env.text("DATABASE_URL")
    if not url:
        # Not written as an address: a folder's name may hold a "#" or a "%".
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": str(VAR_DIR / "catalogue.sqlite3")}
    # The words of others quote the address, which holds a password: a warning where they do not know its scheme, an
    # error where a "/" ends the password, which makes its first half the port.
    if url.partition(":")[0] not in environ.Env.DB_SCHEMES:
        raise ImproperlyConfigured(NO_SUCH_DATABASE)
    try:
        config = dict(environ.Env.db_url_config(url))
    except ValueError:
        raise ImproperlyConfigured(f"DATABASE_URL is no address. {env.ESCAPES}") from None
    if config.get("NAME") in {"", ":memory:"}:
        raise ImproperlyConfigured("DATABASE_URL names no database: postgres://user:password@host:5432/NAME")
    return config


DATABASES = {"default": _database()}

# --- Scale-out --------------------------------------------------------------------------------------------------------
# All of it is off by default: without a broker a crawl calls ingest itself. See docs/adr/0013.
BROKER_URL = env.address("BROKER_URL", {"amqp", "amqps"})  # of RabbitMQ
# The client checks who signed a certificate, but not for whom, unless it is told a name. None: the address's own.
BROKER_TLS = {"server_hostname": None} if BROKER_URL.startswith("amqps:") else False
CACHE_URL = env.address("CACHE_URL", {"redis", "rediss"})  # of Redis: rate limits that count over all replicas
SPOOL_DIR = Path(env.text("SPOOL_DIR") or VAR_DIR / "spool")  # of batches that the broker has not confirmed yet
# What was published and has not arrived for so long is not waited for: its run ends, and is not complete.
SETTLE_TIMEOUT_S = env.integer("SETTLE_TIMEOUT_S", 3600, minimum=1)
# A job of the queue that takes longer is ended as by a person: the crawl can be resumed, the training has failed.
CRAWL_TIMEOUT_S = env.integer("CRAWL_TIMEOUT_S", 24 * 3600, minimum=1)
TRAINING_TIMEOUT_S = env.integer("TRAINING_TIMEOUT_S", 6 * 3600, minimum=1)
# One scheduler at a time: another one takes over when the first has said nothing for so long.
SCHEDULE_LEASE_S = env.integer("SCHEDULE_LEASE_S", 20, minimum=2)
DJANGO_CELERY_BEAT_TZ_AWARE = True

# --- Accounts and tokens ----------------------------------------------------------------------------------------------
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
]
AUTHENTICATION_BACKENDS = ["bookapi.guard.GuardedBackend"]
PUBLIC_READ = env.boolean("PUBLIC_READ", False)
ACCOUNT_CHECK_S = env.integer("ACCOUNT_CHECK_S", 30, maximum=3600)
ACCESS_TOKEN_S = env.integer("ACCESS_TOKEN_S", 15 * 60, minimum=1, maximum=24 * 3600)
REFRESH_TOKEN_S = env.integer("REFRESH_TOKEN_S", 14 * 24 * 3600, minimum=60)
LOGIN_ATTEMPTS = env.integer("LOGIN_ATTEMPTS", 5, minimum=1)
LOGIN_LOCKOUT_S = env.integer("LOGIN_LOCKOUT_S", 15 * 60, minimum=1)
# Folders of RSA keys: tokens are signed with RS256. Without them, SECRET_KEY signs (HS256). See bookapi/keys.py.
JWT_PUBLIC_KEYS = env.text("JWT_PUBLIC_KEYS")
JWT_PRIVATE_KEYS = env.text("JWT_PRIVATE_KEYS")  # of the authentication service alone
if JWT_PRIVATE_KEYS and not JWT_PUBLIC_KEYS:
    raise ImproperlyConfigured("JWT_PRIVATE_KEYS is set without JWT_PUBLIC_KEYS: who signs must also verify.")
SIMPLE_JWT = {
    "ACCESS_TOKEN_LIFETIME": timedelta(seconds=ACCESS_TOKEN_S),
    "REFRESH_TOKEN_LIFETIME": timedelta(seconds=REFRESH_TOKEN_S),
    "ISSUER": "bookapi",
    "AUDIENCE": "bookapi",
    "UPDATE_LAST_LOGIN": False,
}

# --- API --------------------------------------------------------------------------------------------------------------
RATE_LIMIT_ACCOUNT = env.text("RATE_LIMIT_ACCOUNT", "6000/min")
RATE_LIMIT_ADDRESS = env.text("RATE_LIMIT_ADDRESS", "600/min")
METRICS_TOKEN = env.text("METRICS_TOKEN")
DATA_UPLOAD_MAX_MEMORY_SIZE = 10 * 1024 * 1024
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["bookapi.auth.TokenAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["bookapi.auth.MayRead"],
    "DEFAULT_RENDERER_CLASSES": ["bookapi.api.formats.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["bookapi.api.formats.JSONParser"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "bookapi.api.formats.Negotiation",
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "DEFAULT_THROTTLE_CLASSES": ["bookapi.rates.AccountRate", "bookapi.rates.AddressRate"],
    "EXCEPTION_HANDLER": "bookapi.errors.problem",
    "UNAUTHENTICATED_USER": None,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Book catalogue",
    "DESCRIPTION": "Books as the shops show them, what changed, and what is known about them.",
    "VERSION": VERSION,
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SERVE_AUTHENTICATION": [],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "COMPONENT_SPLIT_REQUEST": True,
}

# --- Crawling ---------------------------------------------------------------------------------------------------------
SHOP_NAME = env.text("SHOP_NAME", "books-toscrape")
SHOP_URL = env.web_address("SHOP_URL", "https://books.toscrape.com")
CRAWL_CONTACT = env.text("CRAWL_CONTACT")  # an address or mail box for the shop's operator, in the user agent
CRAWL_USER_AGENT = f"BookCatalogue/{VERSION} ({CRAWL_CONTACT or 'obeys robots.txt'})"
# A complete run that saw less than this share of the books of the one before is suspect and delists nothing.
DELIST_MIN_SHARE = env.number("DELIST_MIN_SHARE", 0.8, minimum=0.0, maximum=1.0)

# --- Retention --------------------------------------------------------------------------------------------------------
# Days, 0: for ever. `manage.py prune` deletes what is older and no longer needed; see catalog/retention.py.
KEEP_SIGHTINGS_DAYS = env.integer("KEEP_SIGHTINGS_DAYS", 90, maximum=36_500)
KEEP_HISTORY_DAYS = env.integer("KEEP_HISTORY_DAYS", 0, maximum=36_500)
KEEP_REJECTED_DAYS = env.integer("KEEP_REJECTED_DAYS", 90, maximum=36_500)
KEEP_DEAD_LETTERS_DAYS = env.integer("KEEP_DEAD_LETTERS_DAYS", 90, maximum=36_500)
KEEP_INTERACTIONS_DAYS = env.integer("KEEP_INTERACTIONS_DAYS", 0, maximum=36_500)

# --- Recommending -----------------------------------------------------------------------------------------------------
ARTIFACT_STORE = env.text("ARTIFACT_STORE") or str(VAR_DIR / "models")  # a folder, or the address of a bucket
# Older versions and ones beyond that number are removed after a training; never the champion and the one before it.
ARTIFACT_KEEP = env.integer("ARTIFACT_KEEP", 5, minimum=1)
ARTIFACT_KEEP_DAYS = env.integer("ARTIFACT_KEEP_DAYS", 90)
# Of the environment, which `recommender.engine` reads itself: it knows no settings.
EMBEDDING_MODEL = env.text("EMBEDDING_MODEL")
ARTIFACT_POLL_S = env.number("ARTIFACT_POLL_S", 2.0, minimum=0.01, maximum=3600)  # between looks for a new champion
RECOMMENDER_URL = env.web_address("RECOMMENDER_URL")  # of a prediction service; by default the model is in process
# For all that one answer asks of the service. Then it recommends without it.
RECOMMENDER_DEADLINE_S = env.number("RECOMMENDER_DEADLINE_S", 0.5, minimum=0.01, maximum=60)
# After so many failures in a row the service is left alone for a while.
RECOMMENDER_FAILURES = env.integer("RECOMMENDER_FAILURES", 5, minimum=1)
RECOMMENDER_PAUSE_S = env.number("RECOMMENDER_PAUSE_S", 5.0, minimum=0.01, maximum=3600)

# --- Safety -----------------------------------------------------------------------------------------------------------
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
HTTPS = PUBLIC_URL.startswith("https://")
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS
CSRF_TRUSTED_ORIGINS = ["{0.scheme}://{0.netloc}".format(urlsplit(PUBLIC_URL))] if PUBLIC_URL else []
SECURE_HSTS_SECONDS = 31_536_000 if HTTPS else 0
if TRUSTED_PROXIES:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SILENCED_SYSTEM_CHECKS = [
    "security.W005",  # HSTS for subdomains: they are not ours to decide about
    "security.W008",  # redirect to HTTPS: whoever ends TLS does it; health checks from inside come in plain HTTP
    "security.W021",  # HSTS preload: a promise of the domain's owner
]

# --- Logs -------------------------------------------------------------------------------------------------------------
LOG_LEVEL = env.choice("LOG_LEVEL", "INFO", ["DEBUG", "INFO", "WARNING", "ERROR"])
LOG_FORMAT = env.choice("LOG_FORMAT", "json", ["json", "console"])
LOGGING = logging_config(level=LOG_LEVEL, console=LOG_FORMAT == "console")

UNFOLD = {"SITE_TITLE": "Book catalogue", "SITE_HEADER": "Book catalogue", "SITE_SYMBOL": "menu_book"}
