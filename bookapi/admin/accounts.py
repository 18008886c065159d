"""Accounts and their logins on the administration site."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group, User
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from unfold.contrib.filters.admin import AutocompleteSelectFilter, ChoicesDropdownFilter
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from bookapi.models import LoginCounter, RefreshFamily
from bookapi.tokens import end_family

if TYPE_CHECKING:

    class Themed:
        """The look of the site."""

    FactAdmin = admin.ModelAdmin[Any]
else:
    from unfold.admin import ModelAdmin as Themed

    FactAdmin = Themed

admin.site.unregister(User)
admin.site.unregister(Group)


@admin.register(User)
class UserAdmin(DjangoUserAdmin, Themed):  # type: ignore[type-arg, unused-ignore]
    """Accounts. Only a superuser decides who may do what; others may at most correct names."""

    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    list_display = ("username", "email", "is_active", "is_staff", "is_superuser", "last_login")
    show_full_result_count = False
    filter_horizontal = ()  # two lists side by side are wider than the page
    autocomplete_fields = ("groups",)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[User], search_term: str
    ) -> tuple[QuerySet[User], bool]:
        return super().get_search_results(request, queryset, search_term.replace("\0", ""))  # PostgreSQL takes none

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> Any:
        rights = () if request.user.is_superuser else ("is_staff", "is_superuser", "groups", "user_permissions")
        return (*super().get_readonly_fields(request, obj), "last_login", "date_joined", *rights)

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        """Whether this person may change the account. To change a superuser's password is to become one."""
        if isinstance(obj, User) and (obj.is_superuser or obj.is_staff) and not request.user.is_superuser:
            return False
        return super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return bool(request.user.is_superuser) and super().has_delete_permission(request, obj)


@admin.register(Group)
class GroupAdmin(DjangoGroupAdmin, Themed):  # type: ignore[type-arg, unused-ignore]
    """What the roles may do: for superusers alone, since whoever changes a group changes her own rights."""

    filter_horizontal = ()

    def has_add_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.is_superuser)

    def has_change_permission(self, request: HttpRequest, obj: Group | None = None) -> bool:
        return bool(request.user.is_superuser)

    def has_delete_permission(self, request: HttpRequest, obj: Group | None = None) -> bool:
        return bool(request.user.is_superuser)


class LoginFactAdmin(FactAdmin):
    """Facts about logins: nobody writes them by hand."""

    show_full_result_count = False
    list_filter_submit = True

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(RefreshFamily)
class RefreshFamilyAdmin(LoginFactAdmin):
    list_display = ("user", "created_at", "rotated_at", "expires_at", "revoked_at", "reason")
    list_select_related = ("user",)
    list_filter = (("user", AutocompleteSelectFilter), ("reason", ChoicesDropdownFilter))
    search_fields = ("=user__username",)
    fields = ("user", "created_at", "rotated_at", "expires_at", "revoked_at", "reason")  # the token's id is a secret
    ordering = ("-id",)
    actions = ("end",)

    def has_end_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm("bookapi.change_refreshfamily"))

    @admin.action(description="End these logins", permissions=["end"])
    def end(self, request: HttpRequest, families: QuerySet[RefreshFamily]) -> None:
        open_ones = list(families.filter(revoked_at=None).values_list("pk", flat=True))
        for pk in open_ones:
            end_family(pk, RefreshFamily.Reason.LOGOUT)
        self.message_user(request, f"{len(open_ones)} logins ended.", messages.SUCCESS)


@admin.register(LoginCounter)
class LoginCounterAdmin(LoginFactAdmin):
    """Counts of failed logins. Names and addresses are not kept, so there is nothing else to see."""

    list_display = ("key", "count", "expires_at", "counts")
    search_fields = ("=key",)
    fields = ("key", "count", "expires_at")
    ordering = ("-expires_at", "key")

    @admin.display(boolean=True, description="still counts")
    def counts(self, counter: LoginCounter) -> bool:
        return counter.expires_at > timezone.now()
