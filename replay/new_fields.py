"""What a recorded message or state lacks because the version that wrote it did not have that yet.

A field counts as new if the present type has it and the recorded object does not, at any depth: in a Struct in
a Struct, in a list of them, in the values of a mapping. The keys of a mapping are data, no fields: one more of
them is a difference.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

_encoder = msgspec.json.Encoder()


def lacking(recorded: Any, actual: object) -> int | None:
    """How many fields a recorded JSON value lacks of a present one; None if anything else differs."""
    if isinstance(actual, Struct):
        return _of_struct(recorded, actual)
    if isinstance(actual, Mapping):
        if not isinstance(recorded, dict) or set(recorded) != {str(key) for key in actual}:
            return None
        return _sum(lacking(recorded[str(key)], value) for key, value in actual.items())
    if isinstance(actual, list | tuple):
        if not isinstance(recorded, list | tuple) or len(recorded) != len(actual):
            return None
        return _sum(lacking(one, other) for one, other in zip(recorded, actual, strict=True))
    # As texts: 1, 1.0 and true are three.
    return 0 if _encoder.encode(recorded) == _encoder.encode(actual) else None


def _of_struct(recorded: Any, actual: Struct) -> int | None:
    if not isinstance(recorded, dict):
        return None
    fields = msgspec.structs.fields(actual)
    tag = type(actual).__struct_config__.tag_field
    if set(recorded) - {field.encode_name for field in fields} - {tag}:
        return None
    known = [field for field in fields if field.encode_name in recorded]
    found = _sum(lacking(recorded[field.encode_name], getattr(actual, field.name)) for field in known)
    return None if found is None else found + len(fields) - len(known)


def _sum(found: Any) -> int | None:
    total = 0
    for count in found:
        if count is None:
            return None
        total += count
    return total
