"""A first call with a key, written out in the languages that people begin in.

What it calls is API_URL, an address of the provider's API; without one the portal itself, at a place that
answers the reader. It makes text and calls nothing.
"""

from collections.abc import Iterable
from typing import NamedTuple

from django.conf import settings
from django.views.decorators.debug import sensitive_variables

_PYTHON = """\
{imports}import urllib.request

request = urllib.request.Request(
    "{url}",
    headers={{"Authorization": {bearer}}},
)
with urllib.request.urlopen(request) as answer:
    print(answer.status, answer.read().decode())"""

_JAVASCRIPT = """\
const answer = await fetch("{url}", {{
  headers: {{ Authorization: {bearer} }},
}});
console.log(answer.status, await answer.text());"""

_GO = """\
package main

import (
	"fmt"
	"io"
	"net/http"{imports}
)

func main() {{
	request, err := http.NewRequest("GET", "{url}", nil)
	if err != nil {{
		panic(err)
	}}
	request.Header.Set("Authorization", {bearer})
	answer, err := http.DefaultClient.Do(request)
	if err != nil {{
		panic(err)
	}}
	defer answer.Body.Close()
	body, _ := io.ReadAll(answer.Body)
	fmt.Println(answer.Status, string(body))
}}"""


class Snippet(NamedTuple):
    """The call in one language."""

    language: str
    title: str
    text: str


class Example(NamedTuple):
    """The call in every language, and what it does in a sentence or two."""

    says: str
    snippets: list[Snippet]


@sensitive_variables()
def first_call(credential: str = "", scopes: Iterable[str] = ()) -> Example:
    """The call with this key in it, or with one that the environment has as API_KEY."""
    scope = next(iter(scopes), "")
    url = _url(scope)
    if credential:
        python = javascript = go = f'"Bearer {credential}"'
        imports = "", ""
    else:
        python = "f\"Bearer {os.environ['API_KEY']}\""
        javascript = "`Bearer ${process.env.API_KEY}`"
        go = '"Bearer " + os.Getenv("API_KEY")'
        imports = "import os\n", '\n\t"os"'
    shell = f'curl -i -H "Authorization: Bearer {credential or "$API_KEY"}" \\\n  "{url}"'
    return Example(
        _sentences(scope),
        [
            Snippet("curl", "Shell", shell),
            Snippet("python", "Python", _PYTHON.format(url=url, bearer=python, imports=imports[0])),
            Snippet("javascript", "JavaScript", _JAVASCRIPT.format(url=url, bearer=javascript)),
            Snippet("go", "Go", _GO.format(url=url, bearer=go, imports=imports[1])),
        ],
    )


def _url(scope: str) -> str:
    if settings.API_URL:
        return str(settings.API_URL)
    if settings.PORTAL_IS_HTTPS:  # its readers are elsewhere, where the gateway answers nobody
        return f"{settings.PORTAL_URL}/v1/me"
    return f"{settings.PORTAL_URL}/gateway/authorize" + (f"?scope={scope}" if scope else "")


def _sentences(scope: str) -> str:
    if settings.API_URL:
        return "This calls the API. Its answer is 200 if the key may."
    if settings.PORTAL_IS_HTTPS:
        return "This asks what the key is and may do, and costs nothing. Answer 200 means that it works."
    which = f", with the scope {scope}" if scope else ""
    return f"This asks the gateway whether the key may call{which}. Answer 200 means yes."
