"""How a log line is written: one line an event, and never a key in it.

A key gets into a line by way of somebody else's mistake: pasted into an address, quoted by an error. So the
formatter looks at the finished text, traceback included.
"""

import logging

from keys import tokens


class Formatter(logging.Formatter):
    """A formatter that cuts whatever looks like a secret."""

    def format(self, record: logging.LogRecord) -> str:
        return tokens.redact(super().format(record))
