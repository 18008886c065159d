"""Accounts and the schedule on the administration site."""

from bookapi.admin import accounts, schedule

__all__ = ["accounts", "schedule"]
