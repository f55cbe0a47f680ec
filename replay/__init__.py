"""The journal and what is built on it: record every turn, read a log, replay it (architecture.md §4)."""
