"""What settings say beyond their defaults: what a result was made of."""

from __future__ import annotations

import dataclasses
from typing import Any


def said(settings: Any) -> Any:
    """The fields that differ from the defaults of their dataclass, nested, as JSON can hold them.

    A setting that is added later, with a default that changes nothing, leaves this as it is.
    """
    if dataclasses.is_dataclass(settings):
        return {
            field.name: said(getattr(settings, field.name))
            for field in dataclasses.fields(settings)
            if getattr(settings, field.name) != _default(field)
        }
    if isinstance(settings, (tuple, list)):
        return [said(one) for one in settings]
    return settings


def _default(field: dataclasses.Field) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default
