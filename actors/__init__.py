"""The deterministic core: actors on a turn-based runtime. No clock, no socket, no thread, no randomness."""
