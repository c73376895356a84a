"""Adding up amounts of money, version 2: exact. ``total`` of version 1 is gone."""

from decimal import Decimal

__version__ = "2.0"


class Till:
    """Takes amounts as decimal texts and knows their exact sum."""

    def __init__(self) -> None:
        self.total = Decimal(0)

    def add(self, amount: str) -> None:
        """Add one amount, as in ``add("1.10")``."""
        self.total += Decimal(amount)
