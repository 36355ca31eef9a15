"""The provider's logo and accent colour as files, for everybody and for every cache."""

from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from portal import brand
from portal.brand import Asset


@require_safe
def brand_css(request: HttpRequest) -> HttpResponse:
    """The accent's values of the names in static/css/tokens.css."""
    return _served(request, brand.styles())


@require_safe
def brand_logo(request: HttpRequest) -> HttpResponse:
    """The logo, whatever kind of picture it is."""
    return _served(request, brand.logo())


def _served(request: HttpRequest, asset: Asset | None) -> HttpResponse:
    if asset is None:
        raise Http404
    # Under its version it never changes; under none, or an old one, it may.
    kept = "max-age=31536000, immutable" if request.GET.get("v") == asset.version else "max-age=60"
    headers = {"Cache-Control": f"public, {kept}"}
    return HttpResponse(asset.body, content_type=asset.content_type, headers=headers)
