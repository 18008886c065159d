"""What every reading view of the API shares."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from rest_framework.renderers import BaseRenderer
from rest_framework.viewsets import ViewSet

from bookapi.api.formats import JSONRenderer


class ReadingViewSet(ViewSet):
    """A viewset whose handlers answer with bytes that are ready to send."""

    metadata_class = None
    renderer_classes: list[type[BaseRenderer]] = [JSONRenderer]  # others in bookapi.urls, where a whole set can be had

    def options(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        """Which methods there are; DRF writes them into `Allow`."""
        return HttpResponse(status=204)
