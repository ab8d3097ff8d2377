"""Which lead every merged lead has become part of, after all mergers have been followed.

Source: contract, section 3, "Merged".
"""

from collections.abc import Iterator

LeadIds = set[str]


class Pointers:
    """Into which lead each merged lead was merged, and where that ends.

    Chains are followed; a circle is cut at its smallest lead_id, which is the root of all that lead
    into it. All leads that are connected have one root, so it is kept for each and looked up at once.
    """

    def __init__(self) -> None:
        self._into: dict[str, str] = {}
        self._merged: dict[str, set[str]] = {}
        self._roots: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._into)

    def items(self) -> Iterator[tuple[str, str]]:
        """Yield (lead_id, the lead it was merged into); setting them again in any order is enough."""
        yield from self._into.items()

    def root(self, lead_id: str) -> str:
        """Return the lead that counts for `lead_id`, itself if it was not merged."""
        return self._roots.get(lead_id, lead_id)

    def followers(self, lead_id: str) -> LeadIds:
        """Return the leads whose way comes to `lead_id`, itself among them: only their root can change with it."""
        found = {lead_id}
        ahead = [lead_id]
        while ahead:
            for follower in self._merged.get(ahead.pop(), ()):
                if follower not in found:
                    found.add(follower)
                    ahead.append(follower)
        return found

    def set(self, lead_id: str, into_lead_id: str | None) -> LeadIds:
        """Point a lead into another one, or into none; return the leads that have another root now."""
        if self._into.get(lead_id) == into_lead_id:
            return set()
        before = self.root(lead_id)
        self._point(lead_id, into_lead_id)
        # Who leads here does not depend on where it goes on from here; and all of them had one root.
        followers = self.followers(lead_id)
        if into_lead_id is None:
            root = lead_id
        elif into_lead_id in followers:
            root = min(self._circle(lead_id))
        else:
            root = self.root(into_lead_id)
        if root == before:
            return set()
        for follower in followers:
            self._roots[follower] = root
        self._roots.pop(root, None)
        return followers

    def _point(self, lead_id: str, into_lead_id: str | None) -> None:
        previous = self._into.pop(lead_id, None)
        if previous is not None:
            merged = self._merged[previous]
            merged.discard(lead_id)
            if not merged:
                del self._merged[previous]
        if into_lead_id is not None:
            self._into[lead_id] = into_lead_id
            self._merged.setdefault(into_lead_id, set()).add(lead_id)

    def _circle(self, lead_id: str) -> Iterator[str]:
        yield lead_id
        member = self._into[lead_id]
        while member != lead_id:
            yield member
            member = self._into[member]
