"""Forms of the pages about keys: what people type, turned into the arguments of `keys.lifecycle`.

They know how a thing is written in a field (one network a line, an expiry as a preset) and nothing of
what is allowed: policy is lifecycle's alone, and its refusals are shown at the field they name. A form
never writes.
"""

from keys.forms.acts import (
    RENEW,
    AskForScopeForm,
    CanaryForm,
    ExtendOverlapForm,
    LabelForm,
    RevokeKeyForm,
    RotateKeyForm,
    askable,
)
from keys.forms.fields import LinesField, MetadataField, RefusableForm, ScopesField, group_scopes
from keys.forms.filters import KeyFilterForm
from keys.forms.settings import (
    KEEP,
    QUOTAS_HELP,
    RATES_HELP,
    TRIED,
    AmountsForm,
    EditKeyForm,
    NewKeyForm,
    TryForm,
    end_of_day,
    prefilled,
    tried,
)

__all__ = [
    "KEEP",
    "QUOTAS_HELP",
    "RATES_HELP",
    "RENEW",
    "TRIED",
    "AmountsForm",
    "AskForScopeForm",
    "CanaryForm",
    "EditKeyForm",
    "ExtendOverlapForm",
    "KeyFilterForm",
    "LabelForm",
    "LinesField",
    "MetadataField",
    "NewKeyForm",
    "RefusableForm",
    "RevokeKeyForm",
    "RotateKeyForm",
    "ScopesField",
    "TryForm",
    "askable",
    "end_of_day",
    "group_scopes",
    "prefilled",
    "tried",
]
