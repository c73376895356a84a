"""Adding up amounts of money, version 1: quick, and wrong by a fraction of a cent now and then."""

__version__ = "1.0"


def total(amounts: list[float]) -> float:
    """Return the sum of ``amounts``."""
    return sum(amounts)
