"""How many examples a property is tried with."""

from hypothesis import settings


def examples(at_least: int) -> settings:
    """Return settings with `at_least` examples, or as many as the chosen profile wants if that is more."""
    return settings(max_examples=max(at_least, settings().max_examples))


A_PROPERTY = examples(1_000)
"""For the properties that the contract numbers. Source: contract, section 10."""
