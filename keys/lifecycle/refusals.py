"""Why an act was refused: a sentence for people, and the form field it is about."""


class Refused(Exception):
    """An act that did not happen; nothing was written. `str()` is one clear, public sentence."""

    def __init__(self, sentence: str, field: str = "") -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.field = field


class Invalid(Refused):
    """The input is wrong. Commands exit 2; forms show it at the field."""


class Conflict(Refused):
    """The input is right but the state forbids it. Commands exit 1."""


class Forbidden(Refused):
    """The actor's role, or its organization, does not allow the act: 403."""
