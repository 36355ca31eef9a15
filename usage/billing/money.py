"""Money as whole minor units of an ISO 4217 currency, and as text.

This module alone knows how many decimals a currency has, and rounds: half to even, once, from exact
fractions of integers. It makes no float and knows nothing of who pays.
"""

from collections.abc import Sequence
from decimal import Context, Decimal, Inexact, InvalidOperation, Overflow
from typing import Final

MAX_DECIMALS: Final = 12  # of a price
# Wide enough for any quantity at any price: what would have to be rounded raises.
EXACT: Final = Context(prec=200, traps=[Inexact, InvalidOperation, Overflow])

# ISO 4217, list one: what is in use as money, by the digits of its minor unit; all others have two.
_DIGITS: Final = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
    2: "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CNY "
    "COP CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR "
    "ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK "
    "MXN MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP "
    "SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD UYU UZS VED VES WST XCD XCG YER "
    "ZAR ZMW ZWG",
}
DIGITS: Final = {code: digits for digits, codes in _DIGITS.items() for code in codes.split()}


def half_even(numerator: int, denominator: int) -> int:
    """The whole number nearest to a fraction, of two the even one; `denominator` is above 0."""
    whole, rest = divmod(numerator, denominator)
    twice = 2 * rest - denominator
    return whole + (twice > 0 or (twice == 0 and whole % 2 == 1))


def minor(amount: Decimal, currency: str) -> int:
    """An exact amount in whole minor units, rounded half to even."""
    numerator, denominator = amount.scaleb(DIGITS[currency], EXACT).as_integer_ratio()
    return half_even(numerator, denominator)


def as_text(amount: int, currency: str) -> str:
    """Minor units as a plain decimal: 1250 is `12.50` in USD, `1250` in JPY, `1.250` in KWD."""
    digits = DIGITS[currency]
    if not digits:
        return str(amount)
    whole, rest = divmod(abs(amount), 10**digits)
    return f"{'-' if amount < 0 else ''}{whole}.{rest:0{digits}}"


def in_minor(text: str, currency: str) -> int:
    """What `as_text` made text of."""
    return minor(Decimal(text), currency)


def plain(value: Decimal) -> str:
    """A decimal without exponent and without zeros at its end."""
    text = f"{value:f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) or "0"


def apportion(total: int, weights: Sequence[int]) -> list[int]:
    """Share a whole number by weight, so that the parts add up to it exactly: by largest remainder, ties to
    the earlier. Weights whose sum is 0 share equally; weights below 0 take the other sign.

    Hamilton's method; `weights` must be in the order that decides ties.
    """
    if not weights:
        return []
    whole = sum(weights)
    if whole == 0:
        weights, whole = [1] * len(weights), len(weights)
    if whole < 0:
        weights, whole = [-weight for weight in weights], -whole
    parts, rests = [], []
    for weight in weights:
        part, rest = divmod(total * weight, whole)
        parts.append(part)
        rests.append(rest)
    missing = total - sum(parts)
    if missing:
        for place in sorted(range(len(rests)), key=lambda place: -rests[place])[:missing]:
            parts[place] += 1
    return parts
