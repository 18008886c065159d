"""The WSGI application: `granian --interface wsgi bookapi.wsgi:application`."""

import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application

from bookapi.bodies import Bodies

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "bookapi.settings")
application = Bodies(get_wsgi_application(), limit=settings.DATA_UPLOAD_MAX_MEMORY_SIZE)
