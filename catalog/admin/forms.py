"""The form on which a curator corrects a book."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from django import forms
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.widgets import UnfoldAdminTextareaWidget

from catalog import curation
from catalog.admin.common import shown
from catalog.ingest.applying import as_json
from catalog.models import Book, Category

#: The name of the buttons that give a field back; their value is the field.
GIVE_BACK = "_give_back"

if TYPE_CHECKING:
    BookModelForm = forms.ModelForm[Book]
    CategoryModelForm = forms.ModelForm[Category]
else:
    BookModelForm = CategoryModelForm = forms.ModelForm


class BookForm(BookModelForm):
    """A book's curated fields. `edits` is what the curator changed of what she saw, and nothing else.

    The form carries what she saw: a crawl may write between the moment when she opens the page and the moment when
    she saves it, and what it wrote is not hers.
    """

    authors = forms.CharField(
        required=False,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}),
        help_text="One name a line, in the order of the title page.",
    )
    seen = forms.CharField(required=False, widget=forms.HiddenInput)

    class Meta:
        model = Book
        fields = Book.CURATED_FIELDS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.edits: dict[str, Any] = {}
        self.before: dict[str, Any] = {name: as_json(getattr(self.instance, name)) for name in Book.CURATED_FIELDS}
        self.initial["authors"] = "\n".join(self.instance.authors)
        self.initial["seen"] = json.dumps(self.before)
        asked = self.data.get(GIVE_BACK, "")
        self.giving_back = asked if asked in self.instance.locked_fields and asked in self.fields else ""
        if self.giving_back:  # what was typed into it does not matter any more, even if it is not valid
            self.fields[self.giving_back].disabled = True
        for name in self.instance.locked_fields:
            if name in self.fields:
                self.fields[name].help_text = self._what_the_shop_says(name)

    def _what_the_shop_says(self, name: str) -> SafeString:
        return format_html(
            '<span class="material-symbols-outlined text-sm align-[-3px]" title="No crawl changes it">lock</span>'
            ' The shop says: <span class="font-semibold">{}</span>'
            ' <button type="submit" name="{}" value="{}" class="cursor-pointer text-link ml-2">give it back</button>',
            shown(self.instance.shop_values.get(name) or "nothing"),
            GIVE_BACK,
            name,
        )

    def clean_authors(self) -> list[str]:
        return [line.strip() for line in str(self.cleaned_data["authors"]).splitlines() if line.strip()]

    def clean_seen(self) -> dict[str, Any]:
        text = self.cleaned_data["seen"]
        if not text:
            return self.before
        try:
            seen = json.loads(text)
        except ValueError:
            seen = None
        if not isinstance(seen, dict):
            raise forms.ValidationError("This page was not sent as it was shown. Please load it again.")
        return seen

    def clean(self) -> dict[str, Any]:
        values = self.cleaned_data
        seen = values.get("seen", self.before)
        for name in Book.CURATED_FIELDS:
            if name not in values or name == self.giving_back:
                continue
            known = seen.get(name, self.before[name])
            if curation.same_value(as_json(values[name]), known):
                continue
            try:
                value = curation.curated_value(name, values[name])
            except curation.InvalidValue as error:
                self.add_error(name, str(error))
                continue
            if not curation.same_value(as_json(value), known):
                self.edits[name] = value
        return values


class CategoryForm(CategoryModelForm):
    """The name of a shelf."""

    class Meta:
        model = Category
        fields = ("name",)

    def clean_name(self) -> str:
        try:
            return curation.shelf_name(self.instance.pk, self.cleaned_data["name"])
        except curation.InvalidValue as error:
            raise forms.ValidationError(str(error)) from None
