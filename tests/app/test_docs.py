"""What the documents say is generated from, or checked against, the code."""

import re
from pathlib import Path

import pytest
from fusioncharger.actors.connector_table import diagram, outward
from fusioncharger.app.cli import COMMANDS
from fusioncharger.app.run_command import load_config
from fusioncharger.messages.config import Config, ConnectorConfig, JournalConfig, MqttConfig
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
