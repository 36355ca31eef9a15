"""What every admin page of these tables shares: acts instead of saves, confirmation, no deleting.

`LifecycleAdmin` turns a refusal into a form error and keeps Django's own save, delete and log out of the
way: the audit feed is the one record of what staff did.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.options import ActionLocation
from django.contrib.admin.utils import quote
from django.contrib.auth.models import AbstractBaseUser
from django.core.exceptions import BadRequest, PermissionDenied, ValidationError
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.shortcuts import redirect
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.functional import cached_property
from django.utils.html import format_html
from django.utils.safestring import SafeString

from keys.admin.fields import Autocomplete, may_be_id
from keys.admin.lists import LongLists
from keys.audit import Actor
from keys.lifecycle import Conflict, Refused, staff_actor
from keys.once import Claim, Once, Spent

MAX_SELECTED = 500  # objects that one confirmed action may change
SHOWN_REFUSALS = 5
AS_SHOWN = "as_shown"  # the hidden field's name
EVERYWHERE = [ActionLocation.CHANGE_LIST, ActionLocation.CHANGE_FORM]  # of an action

if TYPE_CHECKING:

    class _ModelAdmin[M: Model](admin.ModelAdmin[M]):
        pass

    class TabularInline[C: Model, P: Model](admin.TabularInline[C, P]):
        pass

    _ModelForm = forms.ModelForm

else:

    class _ModelAdmin(admin.ModelAdmin):
        """Django's, which cannot be subscripted at run time as its type stubs are."""

        def __class_getitem__(cls, _: object) -> type:
            return cls

    class TabularInline(admin.TabularInline):
        """As above."""

        def __class_getitem__(cls, _: object) -> type:
            return cls

    class _ModelForm(forms.ModelForm):
        """As above."""

        def __class_getitem__(cls, _: object) -> type:
            return cls


def actor(request: HttpRequest) -> Actor:
    """The person signed in, as staff."""
    if not isinstance(request.user, AbstractBaseUser):
        raise PermissionDenied
    return staff_actor(request.user)


@contextmanager
def acting_once(request: HttpRequest, purpose: str, done: str) -> Iterator[Claim]:
    """The transaction in which a form with a token of this purpose (`keys.once`) acts. Raises Conflict where
    it was open for too long, or has acted: `done` then begins the sentence, what the claim noted ends it."""
    once = Once(request, purpose)
    if not once.posted:
        raise Conflict("This page was open for too long. Check what it says and send it again.")
    try:
        with once.claim() as claim:
            yield claim
    except Spent as spent:
        raise Conflict(f"{done}: {spent.result}.") from None


def change_url(obj: Model) -> str:
    """The address of an object's page in the admin."""
    return reverse(f"admin:{obj._meta.app_label}_{obj._meta.model_name}_change", args=[quote(obj.pk)])


def link(obj: Model | None, text: object = None) -> str:
    """A link to an object's page, or a dash."""
    if obj is None:
        return "—"
    return format_html('<a href="{}">{}</a>', change_url(obj), obj if text is None else text)


class Cell(NamedTuple):
    """What stands in a table of `rows_of`: a text, perhaps a link."""

    text: object
    url: str = ""


def rows_of(heads: Iterable[str], rows: Iterable[Iterable[Cell]], *more: Cell) -> SafeString:
    """A small table for a read-only field, and links below it."""
    context = {"heads": list(heads), "rows": [list(row) for row in rows], "more": more}
    return render_to_string("admin/rows.html", context)


class LifecycleForm[M: Model](_ModelForm[M]):
    """A form that shows why lifecycle refused what it asked for."""

    refused: ClassVar[Refused | None] = None
    _is_told = False  # that somebody changed the object since the page was made

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean()
        if self.data.get(AS_SHOWN, self._as_it_is) != self._as_it_is:
            self._is_told = True
            self.add_error(None, "Somebody changed this meanwhile. Saving again overwrites it.")
        if self.refused is not None:
            field = self.refused.field if self.refused.field in self.fields else None
            self.add_error(field, self.refused.sentence)
        return cleaned

    @property
    def as_shown(self) -> str:
        """What the page was made from, to come back with it. A page with an error was made from the same."""
        return self._as_it_is if self._is_told else self.data.get(AS_SHOWN, self._as_it_is)

    @cached_property
    def _as_it_is(self) -> str:
        """The object's values, in a word; empty: there is none yet."""
        if self.instance.pk is None:
            return ""
        values = [str(self.get_initial_for_field(field, name)) for name, field in self.fields.items()]
        return hashlib.sha256(repr(values).encode()).hexdigest()

    def changes(self) -> dict[str, Any]:
        """What the person changed."""
        return {name: self.cleaned_data[name] for name in self.changed_data if name in self.cleaned_data}


class Autocompletes:
    """Gives `autocomplete_fields` a widget that shows any choice again, also one that cannot be."""

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest | None, **kwargs: Any) -> Any:
        if db_field.name in self.autocomplete_fields:  # type: ignore[attr-defined]  # an admin's mixin
            kwargs["widget"] = Autocomplete(db_field, self.admin_site)  # type: ignore[attr-defined]  # as above
        return super().formfield_for_foreignkey(db_field, request, **kwargs)  # type: ignore[misc]  # as above


class ReadOnly:
    """For histories: to be seen, never added to, changed or deleted here."""

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class LifecycleAdmin[M: Model](LongLists, Autocompletes, _ModelAdmin[M]):
    """Subclasses say in `perform` which act a form stands for."""

    change_form_template = "admin/as_shown_form.html"

    def perform(self, request: HttpRequest, form: Any, obj: M, change: bool) -> Model:
        """Carry out what the form asks for and return the row. May raise Refused."""
        raise PermissionDenied

    def perform_inline(self, request: HttpRequest, obj: M, formset: Any) -> None:
        """The same for the rows of an inline form."""

    # --- saving is acting ---

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:  # as Django declares it
        try:
            return super().changeform_view(request, object_id, form_url, extra_context)
        except Refused as refused:
            # Rolled back. The same page once more, with the refusal as an error of its form.
            request.META["latchkey.refused"] = refused
            return super().changeform_view(request, object_id, form_url, extra_context)

    def get_form(
        self, request: HttpRequest, obj: M | None = None, change: bool = False, **kwargs: Any
    ) -> Any:
        form = super().get_form(request, obj, change, **kwargs)
        refused = request.META.get("latchkey.refused")
        return type(form.__name__, (form,), {"refused": refused}) if refused else form

    def save_model(self, request: HttpRequest, obj: M, form: Any, change: bool) -> None:
        obj.pk = self.perform(request, form, obj, change).pk

    def save_related(self, request: HttpRequest, form: Any, formsets: Iterable[Any], change: bool) -> None:
        for formset in formsets:
            self.save_formset(request, form, formset, change)

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        self.perform_inline(request, form.instance, formset)

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, str | list[str]]:
        """Nothing but ids from the address: widgets do not expect anybody's text."""
        return {name: str(value) for name, value in request.GET.items() if may_be_id(str(value))}

    # --- the feed is the log; nothing is deleted ---

    def construct_change_message(
        self, request: HttpRequest, form: Any, formsets: Any, add: bool = False
    ) -> Any:
        return []

    def log_addition(self, request: HttpRequest, obj: M, message: Any) -> Any:
        return None

    def log_change(self, request: HttpRequest, obj: M, message: Any) -> Any:
        return None

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The audit events of this object, where events name it."""
        query = f"?{self.opts.model_name}__id__exact={object_id}" if object_id.isdigit() else ""
        return redirect(reverse("admin:keys_auditevent_changelist") + query)

    def has_delete_permission(self, request: HttpRequest, obj: M | None = None) -> bool:
        return False

    # --- actions ---

    def response_action(self, request: HttpRequest, queryset: QuerySet[M], *args: Any, **kwargs: Any) -> Any:
        for value in request.POST.getlist(ACTION_CHECKBOX_NAME):
            try:
                self.opts.pk.to_python(value)
            except ValidationError:
                raise BadRequest("Not an object that can be selected.") from None
        return super().response_action(request, queryset, *args, **kwargs)

    def confirmed(
        self,
        request: HttpRequest,
        queryset: QuerySet[M],
        *,
        action: str,
        title: str,
        text: str,
        button: str,
        done: str,
        act: Callable[[M, dict[str, Any]], object] | None = None,
        form_class: type[forms.Form] = forms.Form,
        told: Callable[[list[M]], list[Any]] | None = None,
        act_on_all: Callable[[list[M], dict[str, Any]], list[M]] | None = None,
        template: str = "admin/confirm_action.html",
        harmless: bool = False,
    ) -> HttpResponseBase | None:
        """Show what is selected and ask; once confirmed, `act` on each, one transaction each.

        `done` ends the sentence "2 keys …". Refusals are shown and do not stop the others. `template` may
        show more about them: what `told` gives. With `act_on_all` it is asked for all of them at once, and
        returns those of which `done` is true; the others were so before. What is `harmless` has
        no red button.
        """
        count = queryset.count()
        if count > MAX_SELECTED:
            sentence = f"That is {count:,} at once; select at most {MAX_SELECTED}."
            self.message_user(request, sentence, messages.ERROR)
            return None
        listing = reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_changelist")
        posted = "confirmed" in request.POST
        form = form_class(request.POST if posted else None)
        chosen = list(queryset)
        if posted and form.is_valid() and chosen:
            if act_on_all is not None:
                self._act_on_all(request, chosen, lambda objs: act_on_all(objs, form.cleaned_data), done)
            elif act is not None:
                self._act_on_each(request, chosen, lambda obj: act(obj, form.cleaned_data), done)
            if len(chosen) == 1:
                return HttpResponseRedirect(change_url(chosen[0]))
            return HttpResponseRedirect(listing)
        return TemplateResponse(
            request,
            template,
            {
                **self.admin_site.each_context(request),
                "opts": self.opts,
                "title": title,
                "text": text,
                "button": button,
                "harmless": harmless,
                "action": action,
                "form": form,
                "told": told(chosen) if told else [],
                "chosen": [(obj.pk, change_url(obj), self.describe(obj)) for obj in chosen],
                "action_checkbox_name": ACTION_CHECKBOX_NAME,
                "cancel_url": change_url(chosen[0]) if len(chosen) == 1 else listing,
            },
            status=400 if posted else 200,
        )

    def describe(self, obj: M) -> str:
        """How an object is named on the page that asks for confirmation."""
        return str(obj)

    def _act_on_all(
        self, request: HttpRequest, chosen: list[M], act: Callable[[list[M]], list[M]], done: str
    ) -> None:
        try:
            acted = act(chosen)
        except Refused as refused:
            self.message_user(request, refused.sentence, messages.ERROR)
            return
        self._say(request, len(acted), done)
        if rest := len(chosen) - len(acted):
            verb = "was" if rest == 1 else "were"
            self.message_user(request, f"{rest} {self._noun(rest)} {verb} before.", messages.WARNING)

    def _noun(self, count: int) -> str:
        return str(self.opts.verbose_name if count == 1 else self.opts.verbose_name_plural)

    def _say(self, request: HttpRequest, count: int, done: str) -> None:
        if count:
            self.message_user(request, f"{count} {self._noun(count)} {done}", messages.SUCCESS)

    def _act_on_each(
        self, request: HttpRequest, chosen: list[M], act: Callable[[M], object], done: str
    ) -> None:
        refusals = []
        for obj in chosen:
            try:
                act(obj)
            except Refused as refused:
                refusals.append(f"{self.describe(obj)}: {refused.sentence}")
        self._say(request, len(chosen) - len(refusals), done)
        for sentence in refusals[:SHOWN_REFUSALS]:
            self.message_user(request, sentence, messages.ERROR)
        if len(refusals) > SHOWN_REFUSALS:
            rest = len(refusals) - SHOWN_REFUSALS
            self.message_user(request, f"And {rest} more were refused.", messages.ERROR)


class ReasonForm(forms.Form):
    """Why: shown to the customer, kept in the audit."""

    reason = forms.CharField(
        max_length=200,
        help_text="The customer sees it, and the audit keeps it. At most 200 characters.",
        widget=forms.TextInput({"class": "vTextField", "autocomplete": "off"}),
    )
