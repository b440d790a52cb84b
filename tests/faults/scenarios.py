"""The register of scenarios: what is done at a crash point, and what is so afterwards.

Imports: nothing of ours.
"""

#: Number of a crash point → list of scenarios, callable(ground).
SCENARIOS = {}


def dies_at(*numbers):
    """The function is the scenario of these crash points."""
    def register(scenario):
        for number in numbers:
            SCENARIOS.setdefault(number, []).append(scenario)
        return scenario
    return register
