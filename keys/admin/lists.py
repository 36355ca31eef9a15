"""Lists of the admin that cost the same at ten rows and at a hundred thousand.

Rows are found, sorted and counted by their primary keys alone, no further than anybody turns pages; whole
rows are read of one page. It decides nothing about what a list shows.
"""

from typing import TYPE_CHECKING, Any, cast

from django.contrib import admin
from django.contrib.admin.views.main import SEARCH_VAR, ChangeList
from django.core.paginator import Paginator
from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest
from django.utils.functional import cached_property
from django.utils.text import smart_split, unescape_string_literal

MAX_WORDS = 8  # of a search
_LOOKUPS = ("exact", "startswith")

if TYPE_CHECKING:
    _Paginator = Paginator[Any]
else:
    _Paginator = Paginator


class BoundedPaginator(_Paginator):
    """Counts no further than anybody turns pages, so that a list of millions costs no more than one of ten
    thousand. What is behind is found by a search or a filter."""

    most = 10_000
    is_searched = False  # then one look at the table counts and finds; else to sort so many would cost more

    def keys(self, first: int, last: int) -> list[Any]:
        """The primary keys of the rows `first` to `last`, which is not one of them, in order."""
        return self._found[first:last] if self.is_searched else list(self._narrow[first:last])

    @property
    def count(self) -> int:
        return min(self._counted, self.most)

    @property
    def is_cut(self) -> bool:
        return self._counted > self.most

    @cached_property
    def _counted(self) -> int:
        return len(self._found) if self.is_searched else self._narrow.order_by()[: self.most + 1].count()

    @cached_property
    def _found(self) -> list[Any]:
        return list(self._narrow[: self.most + 1])

    @property
    def _narrow(self) -> QuerySet[Any, Any]:
        return cast("QuerySet[Any]", self.object_list).values_list("pk", flat=True)


class NarrowList(ChangeList):
    """A list that looks twice: for keys under its filters, search and order, and for the rows of one page.
    To sort wide rows, joined with others, would cost ten times as much, and the count the search again."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if self.query:
            self.date_hierarchy = None  # its months would be searched for once more

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        if not self.filter_params:
            self.full_result_count = self.result_count  # "Show all" is offered where something is left out
        first, last = 0, self.result_count
        if self.multi_page and not (self.show_all and self.can_show_all):
            first = (self.page_num - 1) * self.list_per_page
            last = min(first + self.list_per_page, last)
        chosen = cast("BoundedPaginator", self.paginator).keys(first, last)
        rows = self.root_queryset
        if not rows.query.select_related:
            rows = self.apply_select_related(rows)
        found = rows.in_bulk(chosen)
        self.result_list = [found[key] for key in chosen if key in found]


class LongLists:
    """For a `ModelAdmin` whose table may have any number of rows."""

    show_full_result_count = False  # it would count the whole table on each page
    show_facets = admin.ShowFacets.NEVER  # as above, once for each choice of each filter
    list_per_page = 50
    list_max_show_all = 200

    def get_paginator(self, request: HttpRequest, *arguments: Any, **options: Any) -> BoundedPaginator:
        paginator = BoundedPaginator(*arguments, **options)
        paginator.is_searched = bool(request.GET.get(SEARCH_VAR))
        return paginator

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return NarrowList

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Rows in which each word is found in one of `search_fields`."""
        fields = self.get_search_fields(request)  # type: ignore[attr-defined]  # an admin's mixin
        for word in list(smart_split(search_term))[:MAX_WORDS]:
            if word.startswith(('"', "'")) and word[0] == word[-1]:
                word = unescape_string_literal(word)
            found = Q()
            for field in fields:
                found |= finding(queryset.model, field, word)
            queryset = queryset.filter(found)
        return queryset, False


def finding(model: type[Model], field: str, word: str) -> Q:
    """The rows of which a field, perhaps of another table, contains the word; `field__exact` is the word;
    `field__startswith` begins with it in lower case, where all that is in the field is.

    Another table is searched for itself: joined, each row would be looked at with all its others."""
    first, _, rest = field.partition("__")
    if not rest or rest in _LOOKUPS:
        return Q(**{f"{first}__{rest or 'icontains'}": word.lower() if rest == "startswith" else word})
    relation: Any = model._meta.get_field(first)
    there = relation.related_model._default_manager.filter(finding(relation.related_model, rest, word))
    if relation.concrete:
        return Q(**{f"{first}__in": there.order_by().values("pk")})
    return Q(pk__in=there.order_by().values(relation.field.attname))
