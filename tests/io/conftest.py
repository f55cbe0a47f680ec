"""The EVerest API documents are not part of this repository; what needs them is collected where they are."""

from pathlib import Path

EVEREST_API = Path(__file__).resolve().parents[3] / "shared" / "everest_api"

collect_ignore = [] if EVEREST_API.is_dir() else ["test_everest_schemas.py"]
