"""How many different visitors there were: HyperLogLog sketches, which merge but never subtract.

The library (datasketches) is the extra `visitors`. Without it `AVAILABLE` is False, no sketch can be
made, and visits are accepted but not counted; sketches that were stored before stay as they are.

Source: contract, section 4, "visitors": lg k = 14, within 2 %.
"""

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

AVAILABLE: Final = find_spec("datasketches") is not None
"""Whether visitors can be counted here."""

_LG_K: Final = 14
_REGISTERS: Final = 1 << _LG_K
"""A large sketch has a byte for each of these; a small one is a list of its visitors' hashes."""


class MissingLibraryError(RuntimeError):
    """Visitors cannot be counted: the library is not installed."""


class Sketch:
    """A set of visitors of which only its size can be told, roughly; equal sets have equal sizes.

    A few visitors take a few bytes, any number of them at most about 16 KiB here and 8 KiB as bytes.
    """

    __slots__ = ("_count", "_is_unordered", "_union")

    def __init__(self, stored: bytes | None = None) -> None:
        """Make an empty sketch, or the one that `to_bytes` returned.

        Raises:
            MissingLibraryError: if `AVAILABLE` is False.
        """
        self._union = _library().hll_union(_LG_K)
        self._count: int | None = 0
        self._is_unordered = False
        if stored is not None:
            self.merge(stored)

    def update(self, visitor_id: str) -> None:
        """Add a visitor."""
        self._union.update(visitor_id)
        self._count = None

    def merge(self, visitors: "bytes | Sketch") -> bool:
        """Add the visitors of a sketch, or what its `to_bytes` returned; tell whether any was new.

        A large sketch may say so once although all were known, never the other way round.
        """
        # Not the estimate: up to about ten thousand visitors it does not see every register.
        before = self._registers()
        self._union.update(
            _library().hll_sketch.deserialize(visitors)
            if isinstance(visitors, bytes)
            else visitors._result()  # noqa: SLF001 - one of us
        )
        # A union puts off work until it is asked, and would do it again for each copy.
        self._union.get_estimate()
        if self._registers() == before:
            return False
        self._count = None
        return True

    def to_bytes(self) -> bytes:
        """Return what `merge` takes."""
        library = _library()
        stored: bytes = self._union.get_result(library.tgt_hll_type.HLL_4).serialize_compact()
        return stored

    def estimate(self) -> int:
        """Return about how many different visitors there are; it does not depend on their order."""
        if self._count is None:
            if not self._is_unordered:
                # The usual estimate knows in which order visitors came. Merged with itself a large
                # sketch is the same set, but forgets the order from then on.
                self._union.update(self._result())
                self._is_unordered = len(self._registers()) > _REGISTERS
            self._count = round(self._union.get_estimate())
        return self._count

    def _result(self) -> Any:
        return self._union.get_result(_library().tgt_hll_type.HLL_8)

    def _registers(self) -> bytes:
        registers: bytes = self._result().serialize_compact()
        return registers


@cache
def _library() -> Any:
    # Imported when first needed: it brings numpy, which those who count no visits need not load.
    if not AVAILABLE:
        msg = "visitors: expected the extra `visitors` (datasketches) to be installed, got none"
        raise MissingLibraryError(msg)
    return import_module("datasketches")
