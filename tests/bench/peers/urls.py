"""A protected view for each peer, as its documentation protects one, and one that does our whole job."""

from datetime import UTC, datetime
from typing import Any

from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.urls import path
from knox.auth import TokenAuthentication
from oauth2_provider.views.generic import ProtectedResourceView
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import SimpleRateThrottle
from rest_framework.views import APIView
from rest_framework_api_key.models import APIKey
from rest_framework_api_key.permissions import HasAPIKey, KeyParser

COUNT = """
INSERT INTO peers_usage (key, hour, calls) VALUES (%s, %s, 1)
ON CONFLICT (key, hour) DO UPDATE SET calls = peers_usage.calls + 1
"""


class ApiKey(APIView):
    """djangorestframework-api-key: verification only."""

    permission_classes = [HasAPIKey]

    def get(self, request: Request) -> Response:
        return Response({})


class KeyThrottle(SimpleRateThrottle):
    """The framework's own throttle, by key; its cache is Redis."""

    rate = "1000000/second"
    scope = "key"

    def get_cache_key(self, request: Request, view: Any) -> str:  # any view
        key: str = KeyParser().get(request) or ""
        return f"throttle_{key.partition('.')[0]}"


class ApiKeyThrottledAndCounted(APIView):
    """The same with a throttle and an hourly counter: what one call of the gateway does."""

    permission_classes = [HasAPIKey]
    throttle_classes = [KeyThrottle]

    def get(self, request: Request) -> Response:
        key = KeyParser().get(request) or ""
        hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
        with connection.cursor() as cursor:
            cursor.execute(COUNT, [key.partition(".")[0], hour])
        return Response({})


class Knox(APIView):
    """django-rest-knox."""

    authentication_classes = [TokenAuthentication]
    permission_classes = [IsAuthenticated]

    def get(self, request: Request) -> Response:
        return Response({})


class OAuth(ProtectedResourceView):
    """django-oauth-toolkit."""

    def get(self, request: HttpRequest, *args: object, **kwargs: object) -> HttpResponse:
        return HttpResponse("{}", content_type="application/json")


urlpatterns = [
    path("api-key", ApiKey.as_view()),
    path("api-key-job", ApiKeyThrottledAndCounted.as_view()),
    path("knox", Knox.as_view()),
    path("oauth", OAuth.as_view()),
]

__all__ = ["APIKey", "urlpatterns"]
