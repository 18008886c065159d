from __future__ import annotations

from django.apps import AppConfig
from django.conf import settings
from django.db.models.signals import m2m_changed, post_delete, post_migrate, post_save


class BookApiConfig(AppConfig):
    name = "bookapi"
    verbose_name = "Accounts and schedule"

    def ready(self) -> None:
        from django.contrib.auth.models import Group, User  # noqa: PLC0415 - not before the apps are ready

        from bookapi import accounts, rates  # noqa: PLC0415

        for rate in (settings.RATE_LIMIT_ACCOUNT, settings.RATE_LIMIT_ADDRESS):
            rates.parse_rate(rate)  # a bad one stops the start, not the first request
        if settings.BROKER_URL:
            from bookapi import celery  # noqa: F401, PLC0415 - tasks are sent through it; it takes a while to import
        post_migrate.connect(accounts.roles_after_migrate, sender=self, dispatch_uid="bookapi.roles")
        for signal in (post_save, post_delete):
            signal.connect(accounts.forget_changed, sender=User, dispatch_uid="bookapi.user")
            signal.connect(accounts.forget_changed, sender=Group, dispatch_uid="bookapi.group")
        for through in (User.groups.through, User.user_permissions.through, Group.permissions.through):
            m2m_changed.connect(accounts.forget_changed, sender=through, dispatch_uid=f"bookapi.{through.__name__}")
