"""Who may have how much of what all share: nobody can fill it up for the others.

Half of a total is shared out in equal parts, which their owners can always have; the other half is
for whoever comes first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple


class Tenant(NamedTuple):
    """An owner's programs, or the games that an owner plays on the page."""

    owner: str
    games: bool


class Quota:
    """Amounts held of one total.

    Args:
        total: What there is.
        tenants: Who is known to come; others live on what is not shared out.
    """

    def __init__(self, total: int, tenants: Sequence[Tenant]) -> None:
        self.total = total
        self.held: Counter[Tenant] = Counter()
        self._share = {tenant: total // (2 * len(tenants)) for tenant in tenants}

    @property
    def used(self) -> int:
        """Held by all."""
        return self.held.total()

    def room(self, tenant: Tenant) -> int:
        """How much more a tenant may have now; may be negative."""
        kept = sum(
            max(share - self.held[other], 0)
            for other, share in self._share.items()
            if other != tenant
        )
        return self.total - self.used - kept

    def add(self, tenant: Tenant, amount: int) -> None:
        """Count what a tenant has more, or less, of."""
        self.held[tenant] += amount
