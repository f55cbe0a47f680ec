"""A command's arguments as a user writes them."""

import argparse
from pathlib import Path

from fusioncharger.app.replay_command import add_arguments


def replay_arguments(*words: str | Path) -> argparse.Namespace:
    """Of `fusioncharger replay …`."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args([str(word) for word in words])
