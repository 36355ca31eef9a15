"""What may be asked of a call: the values that the gateway's rule, the machine API and `@require_key` share.

Each function returns the value as it goes to `authorize`, or raises ValueError with a sentence that can be
shown: it never quotes the value, which may hold a key. Nothing here reads a request.
"""

import ipaddress

from keys import scopes as scope_names
from keys import tokens
from usage import client, meters
from usage.records import RESOURCE_LENGTH

MAX_COST = 2**31


def scope(text: str) -> str:
    if not scope_names.is_name(text):
        raise ValueError("A scope is named that cannot be one.")
    return text


def environment(text: str) -> str:
    if text not in tokens.ENVIRONMENTS:
        raise ValueError("The environment is neither live nor test.")
    return text


def cost(number: int) -> int:
    """In the meter's smallest unit; 0 for a call that costs nothing."""
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= MAX_COST:
        raise ValueError(f"The cost is not a whole number from 0 to {MAX_COST}.")
    return number


def hold(text: str) -> bool:
    """Is the call counted on hold, to be settled by an event?"""
    if text not in ("0", "1"):
        raise ValueError("The hold is neither 1 nor 0.")
    return text == "1"


def meter(name: str) -> str:
    """One that may be counted now: ask for each call, or remember the answer with `meters.generation`."""
    if meters.get(name) is None:
        raise ValueError("A meter is named that does not exist or is archived.")
    return name


def meter_name(text: str) -> str:
    """What may name a meter, whether there is one or not."""
    if not meters.is_name(text):
        raise ValueError("A meter is named that cannot be one.")
    return text


def resource(label: str) -> str:
    """Not what looks like a key either: it would stand in journals and on pages."""
    if len(label) > RESOURCE_LENGTH or not label.isprintable() or tokens.redact(label) != label:
        raise ValueError(f"The resource is not a label of at most {RESOURCE_LENGTH} characters.")
    return label


def address(text: str) -> str:
    """A client's address, without a port, in its one form."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        found = ""
    else:
        found = client.canonical(text)
    if not found:
        raise ValueError("This is not an IP address.")
    return found
