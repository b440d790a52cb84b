"""Real processes for the demonstration, the benchmarks and the tests; not distributed."""
