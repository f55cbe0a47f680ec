"""Command line, configuration file, process log, and the composition root of the live driver."""
