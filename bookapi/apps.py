from django.apps import AppConfig


class BookApiConfig(AppConfig):
    name = "bookapi"
    verbose_name = "Accounts and tokens"
