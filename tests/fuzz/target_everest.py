"""EVerest's configuration (YAML) for `check --everest`: what comes out is always TOML.

input   the file
"""

import tomllib

from fusioncharger.app.check_everest import _decoded
from fusioncharger.app.check_everest_yaml import EverestFileError, read_everest
from fusioncharger.app.everest_config import migrate
from fusioncharger.messages.config import parse


def check(data: bytes) -> None:
    try:
        root = read_everest(_decoded(data))
    except EverestFileError:
        return
    modules = root.mapping("active_modules")
    for module_id in list(modules.entries)[:3]:
        migration = migrate(root, module_id, "config.yaml")
        tomllib.loads(migration.toml)
        if not migration.problems:
            parse(migration.toml, "result")
