"""The deterministic simulation: the real core in a made-up world on virtual time (docs/simulation.md)."""
