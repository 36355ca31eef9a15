"""The organization's settings: parse, call lifecycle, answer."""

from django import forms
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods

from keys import lifecycle
from keys.access import MemberRequest, member
from keys.forms import RefusableForm
from keys.lifecycle import Invalid
from keys.permissions import Act


class NameForm(RefusableForm):
    """What an organization is called."""

    name = forms.CharField(
        max_length=100,
        label="Name",
        help_text="As pages and mails show it.",
        widget=forms.TextInput(attrs={"autocomplete": "organization"}),
        error_messages={"required": "Give your organization a name."},
    )


@member(Act.EDIT_ORGANIZATION)
@require_http_methods(["GET", "HEAD", "POST"])
def organization_settings(request: MemberRequest) -> HttpResponse:
    """Rename the organization; what else it is known by."""
    organization = request.organization
    form = NameForm(request.POST if request.method == "POST" else None, initial={"name": organization.name})
    if request.method == "POST" and form.is_valid():
        try:
            lifecycle.edit_organization(
                request.actor, organization, name=form.cleaned_data["name"], now=timezone.now()
            )
        except Invalid as refusal:
            form.refuse(refusal)
        else:
            messages.success(request, "The settings are saved.")
            return redirect("organization_settings", organization.slug)
    return render(request, "portal/organization_settings.html", {"form": form})
