"""The WSGI application: `granian --interface wsgi bookapi.wsgi:application`."""

import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application

from bookapi import keys
from bookapi.bodies import Bodies
from bookapi.streams import Streams

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "bookapi.settings")
keys.check()  # keys that are missing or do not fit stop the start, not the first request
application = Bodies(Streams(get_wsgi_application()), limit=settings.DATA_UPLOAD_MAX_MEMORY_SIZE)
