"""The site on which people correct the catalogue and read what its runs did.

People change three things here: fields of books, names of shelves, and what becomes of rejected items. All of it goes
through `catalog.curation`. Operators decide about dead letters. Everything else can only be read.
"""

from django.contrib import admin

from catalog.admin import books, categories, deadletters, history, predictions, rejections, runs

__all__ = ["books", "categories", "deadletters", "history", "predictions", "rejections", "runs"]

admin.site.index_template = "catalog/admin/index.html"
