"""Fair shares of a total: no owner can fill it up for the others.

Half of a total is shared out in equal parts, which their owners can always have; the other half is
for whoever comes first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple


class Tenant(NamedTuple):
    """The programs of an owner, or the games of an owner: each has a share of its own."""

    owner: str
    games: bool


class Quota:
    """Amounts held of one total.

    Args:
        total: Amount to be shared.
        tenants: Those with a share of their own; others use what is not shared out.
    """

    def __init__(self, total: int, tenants: Sequence[Tenant]) -> None:
        self.total = total
        self.held: Counter[Tenant] = Counter()
        self._share = {tenant: total // (2 * len(tenants)) for tenant in tenants}

    @property
    def used(self) -> int:
        """Amount held by all tenants."""
        return self.held.total()

    def room(self, tenant: Tenant) -> int:
        """Return how much more a tenant may hold now; may be negative."""
        kept = sum(
            max(share - self.held[other], 0)
            for other, share in self._share.items()
            if other != tenant
        )
        return self.total - self.used - kept

    def add(self, tenant: Tenant, amount: int) -> None:
        """Change the amount that a tenant holds; negative amounts give back."""
        self.held[tenant] += amount
