"""The machine API, `/v1/`: JSON in and out, a key for a credential, problem documents for everything else.

`urls` assembles it; one module a group of calls (`keys`, `usage`, `leaks`); `callers` asks who calls,
`schemas` says what goes in and out, `answers` turns every error into a problem, `document` is the OpenAPI.
It decides nothing about keys or usage itself, and opens no session.
"""

PREFIX = "/v1/"
