"""What the documents say is generated from, or checked against, the code."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from fusioncharger.actors.connector_table import diagram, outward
from fusioncharger.app.cli import COMMANDS
from fusioncharger.app.run_command import load_config
from fusioncharger.messages.config import Config, ConnectorConfig, JournalConfig, MqttConfig, parse
from fusioncharger.messages.types import ConnectorPhase, ModePhase

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"


def test_the_connectors_diagram_and_table() -> None:
    text = (DOCS / "connector.md").read_text()
    assert diagram() in text
    for phase in ConnectorPhase:
        for mode_phase in ModePhase:
            shown = outward(phase, mode_phase)
            name = mode_phase.value if phase is ConnectorPhase.RUNNING else "any"
            message = shown.requirement_type.name if shown.requirement_type else "stop request"
            assert f"| {phase.value} | {name} | {shown.working_status.name} | {message} |" in text


def test_the_example_is_a_configuration() -> None:
    assert len(load_config(DOCS / "example.toml").connectors) == 2


@pytest.mark.parametrize("table", [Config, MqttConfig, JournalConfig, ConnectorConfig])
def test_every_key_is_documented(table: type) -> None:
    text = (DOCS / "configuration.md").read_text()
    for key in table.__struct_fields__:  # type: ignore[attr-defined]
        assert f"`{key}`" in text or f"[{key}]" in text, key


@pytest.mark.parametrize("page", sorted([ROOT / "README.md", *DOCS.glob("*.md")]), ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_readme_names_every_command() -> None:
    text = (ROOT / "README.md").read_text()
    assert all(f"`{command}`" in text for command in COMMANDS)


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)


EVEREST_EXAMPLES = list(
    zip(blocks("everest.md", "yaml"), blocks("everest.md", "toml"), ("over MQTT", "built in"), strict=True)
)


@pytest.mark.parametrize(
    ("everest", "driver"),
    [example[:2] for example in EVEREST_EXAMPLES],
    ids=[example[2] for example in EVEREST_EXAMPLES],
)
def test_the_examples_with_everest_fit_together(everest: str, driver: str) -> None:
    modules = yaml.safe_load(everest)["active_modules"]
    config = parse(driver, "everest.md")
    apis = {
        key: f"{key}_API"
        for key in ("power_supply_DC", "isolation_monitor", "over_voltage_monitor", "powermeter")
    }
    apis |= {"evse_manager": "evse_manager_consumer_API"}
    for connector in config.connectors:
        assert connector.evse_board_support in modules
        for key, api in apis.items():
            module_id = getattr(connector, key)
            assert not module_id or modules[module_id]["module"] == api, key
    if config.error_history:
        assert modules[config.error_history]["module"] == "error_history_consumer_API"
    for module_id, module in modules.items():
        for targets in module.get("connections", {}).values():
            for target in targets:
                assert target["module_id"] in modules, (module_id, target)
                assert target["implementation_id"]


def test_the_first_example_is_complete() -> None:
    """Every device of the connector is EvseManager's, too; and a consumer's check is off."""
    everest, driver = EVEREST_EXAMPLES[0][:2]
    (connector,) = parse(driver, "everest.md").connectors
    wanted = yaml.safe_load(everest)["active_modules"]["evse_manager_1"]["connections"]
    for requirement, module_id in (
        ("powersupply_DC", connector.power_supply_DC),
        ("bsp", connector.evse_board_support),
        ("imd", connector.isolation_monitor),
        ("over_voltage_monitor", connector.over_voltage_monitor),
        ("powermeter_car_side", connector.powermeter),
    ):
        assert wanted[requirement][0]["module_id"] == module_id
    for module in yaml.safe_load(EVEREST_EXAMPLES[1][0])["active_modules"].values():
        if module["module"].endswith("consumer_API"):
            assert module["config_module"]["cfg_communication_check_to_s"] == 0


def test_the_migration_names_every_setting() -> None:
    """The table of everest.md, against what the migration takes."""
    from fusioncharger.app.everest_config import _CONNECTOR_SETTINGS, _SETTINGS  # noqa: PLC0415

    text = (DOCS / "everest.md").read_text()
    assert all(f"`{key}`" in text for key in (*_SETTINGS, *_CONNECTOR_SETTINGS))


def test_the_toml_of_the_documents_is_toml() -> None:
    for page in DOCS.glob("*.md"):
        for block in blocks(page.name, "toml"):
            tomllib.loads(block)


def test_the_units_of_the_documents_have_no_comment_behind_a_value() -> None:
    """systemd would take it for a part of the value."""
    units = [(DOCS / "fusioncharger.service").read_text()]
    units += [
        text
        for page in DOCS.glob("*.md")
        for text in re.findall(r"^ *\[Service\]\n.*?```", page.read_text(), re.DOTALL | re.MULTILINE)
    ]
    assert len(units) > 1
    for line in "\n".join(units).splitlines():
        assert line.lstrip().startswith("#") or "#" not in line, line
