"""Ids in fewer bytes: most are UUIDs, which text makes twice as long as they are."""

from typing import Final

_UUID_LENGTH: Final = 36


def packed_id(text: str) -> str | bytes:
    """Return a UUID as it is usually written as its 16 bytes, any other id as it is."""
    if len(text) == _UUID_LENGTH:
        try:
            packed = bytes.fromhex(text.replace("-", ""))
        except ValueError:
            return text
        if unpacked_id(packed) == text:
            return packed
    return text


def unpacked_id(packed: str | bytes) -> str:
    """Return the id that `packed_id` was given."""
    if isinstance(packed, str):
        return packed
    text = packed.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
