"""The WSGI application: `granian --interface wsgi bookapi.wsgi:application`."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "bookapi.settings")
application = get_wsgi_application()
