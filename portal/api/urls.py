"""The machine API put together, and its routes.

django-ninja's own documentation pages are off: they would be scripts from elsewhere. `/docs/` is for people.
"""

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from ninja import NinjaAPI

from portal.api import keys, leaks, manage, usage
from portal.api.answers import StrictParser, finish, handle_errors
from portal.api.document import document

api = NinjaAPI(
    title=f"{settings.PORTAL_NAME} API",
    version="1",
    description=(
        "For gateways, services and customers' own programs. Every error is a problem document (RFC 9457) "
        "whose `code` says why; 404 and 405 are so too. Fields may be added to answers at any time."
    ),
    openapi_url=None,
    docs_url=None,
    parser=StrictParser(),
)
handle_errors(api)
for router in (keys.router, manage.router, usage.router, leaks.router):
    router.add_decorator(finish)
    api.add_router("", router)


@api.get("/openapi.json", include_in_schema=False, url_name="v1_openapi")
def openapi(request: HttpRequest) -> HttpResponse:
    """The OpenAPI document, for everybody."""
    return HttpResponse(document(api), content_type="application/json")


# django-ninja repeats a path for each of its methods.
_paths = {str(pattern.pattern): pattern for pattern in api.urls[0]}
urlpatterns = [pattern for pattern in _paths.values() if getattr(pattern, "name", "") != "api-root"]
