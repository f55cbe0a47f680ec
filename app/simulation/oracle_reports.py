"""What the PSU reads and is reported: registers that follow from the shadow (protocol.md §2.1, §2.2)."""

from collections.abc import Mapping, Sequence

from ...messages.config import Config
from ...messages.inputs import RegistersRead
from ...messages.outputs import ReadAnswered, ReportSent, Segment
from ...messages.registers import Owner, encode, zeros
from ...messages.types import ConnectorType
from .oracle import fail
from .oracle_alarms import AlarmShadow
from .oracle_connector import ConnectorShadow
from .oracle_link import LinkShadow

Shown = tuple[int, int, int]
"""working_status, connection_status, contactor_status."""
TIME_SYNC = 0x1024
CHARGING_EVENT = 0x117E
_OFFSETS = (0x0000, 0x0C00, 0x0D00, 0x0E00)


class ReportShadow:
    """The dispenser's registers as the PSU has to see them."""

    def __init__(
        self, config: Config, link: LinkShadow, alarms: AlarmShadow, connectors: Sequence[ConnectorShadow]
    ) -> None:
        self._link, self._alarms, self._connectors = link, alarms, connectors
        self._static = self._static_words(config)
        self._cache: dict[object, tuple[Segment, ...]] = {}

    def started(self, goose_mac: bytes) -> None:
        """The dispenser's own MAC."""
        for connector in self._connectors:
            register = self._link.map.by_key[f"{connector.number}/mac_address"]
            self._static[register.key] = encode(register, goose_mac)

    # --- reports ---------------------------------------------------------------------------------------------

    def check(self, reports: Sequence[ReportSent], utc_ns: int) -> None:
        """The reports of a turn: at most one, with every register's value now."""
        if not reports:
            return
        if len(reports) > 1:
            fail("reported_twice", f"{len(reports)} reports in a turn")
        report = reports[0]
        link = self._link
        if not link.connected or report.connection != link.connection:
            fail("report_unconnected", f"connection {report.connection}")
        if report.transaction_id != link.next_transaction & 0xFFFF:
            fail("report_transaction", f"{report.transaction_id}, not {link.next_transaction}")
        link.next_transaction += 1
        self._settle_events(report)
        segments = report.segments
        seconds = utc_ns // 1_000_000_000
        if segments[0] != Segment(TIME_SYNC, (seconds >> 16 & 0xFFFF, seconds & 0xFFFF)):
            fail("report_time", f"{segments[0]} at {seconds}")
        wanted = self._segments()
        if segments[1:] != wanted:
            differing = [f"{got} / {due}" for got, due in zip(segments[1:], wanted, strict=False) if got != due]
            fail("report_content", f"reported / due: {differing[:4] or 'number of segments'}")
        for connector in self._connectors:
            connector.charging_event, connector.charging_event_free = None, False

    def _settle_events(self, report: ReportSent) -> None:
        """Where the specification leaves it open whether there is an event, the report says it."""
        for connector in self._connectors:
            if connector.charging_event_free:
                address = CHARGING_EVENT + _OFFSETS[connector.number - 1]
                words = [word for segment in report.segments for word in _word_at(segment, address)]
                connector.charging_event = words[0] if words else None

    def _segments(self) -> tuple[Segment, ...]:
        """All but time_sync."""
        alarms = self._alarms.registers
        key = (
            tuple(alarms.values()),
            tuple(
                (c.working_status, c.connection_status, c.contactor_on, c.charging_event)
                for c in self._connectors
            ),
        )
        found = self._cache.get(key)
        if found is None:
            dispenser = ("door_status_alarm", "water_alarm", "epo_alarm", "tilt_alarm")
            words = [(0x3001 + n, alarms[name][0]) for n, name in enumerate(dispenser)]
            for connector in self._connectors:
                words += self._connector_words(connector)
            found = self._cache[key] = _merged(words)
        return found

    def _connector_words(self, connector: ConnectorShadow) -> list[tuple[int, int]]:
        fault = self._alarms.registers[f"{connector.number}/dc_output_contactor_fault"][0]
        words = [
            (0x110B, connector.working_status),
            (0x110D, connector.connection_status),
            (0x1154, int(connector.contactor_on)),
            (0x1156, 1),
        ]
        if connector.charging_event is not None:
            words.append((CHARGING_EVENT, connector.charging_event))
        words += [(0x3105, fault), (0x3115, 0)]
        offset = _OFFSETS[connector.number - 1]
        return [(address + offset, word) for address, word in words]

    # --- reads -----------------------------------------------------------------------------------------------

    def check_answer(self, request: RegistersRead, answer: ReadAnswered) -> None:
        """Every word of an answer whose value the shadow knows."""
        if len(answer.words) != request.count:
            fail("read_length", f"{len(answer.words)} words for {request.count}")
        known = 0
        for register, word, position, count in self._link.parts(request.address, request.count):
            known += count
            wanted = self._words(register.key, register.owner, register.name, register.words)
            got = answer.words[position : position + count]
            if wanted is not None and got != wanted[word : word + count]:
                fail("read_content", f"{register.key} reads {got}, has to be {wanted}")
        if known == 0 and any(answer.words):
            fail("read_content", f"0x{request.address:04X} has no register, reads not 0")

    def check_image(self, registers: Mapping[str, tuple[int, ...]]) -> None:
        """Every register whose value the shadow knows, as the power unit would read it."""
        for register in self._link.map.registers:
            wanted = self._words(register.key, register.owner, register.name, register.words)
            got = registers.get(register.key) or zeros(register)
            if wanted is not None and got != wanted:
                fail("register", f"{register.key} would read {got}, has to be {wanted}")

    def _words(self, key: str, owner: Owner, name: str, size: int) -> tuple[int, ...] | None:
        if owner is Owner.PSU:
            return self._link.registers.get(key) or (0,) * size
        found = self._static.get(key) or self._alarms.registers.get(key)
        if found is not None:
            return found
        number, _, _ = key.partition("/")
        if not number.isdigit():
            return None
        connector = self._connectors[int(number) - 1]
        if name == "working_status":
            return (connector.working_status,)
        if name == "connection_status":
            return (connector.connection_status,)
        if name == "contactor_status":
            return (int(connector.contactor_on),)
        return None  # measured values, events

    def _static_words(self, config: Config) -> dict[str, tuple[int, ...]]:
        values: dict[str, int | float | str] = {
            "manufacturer": 2,
            "model": 0x80,
            "protocol_version": config.protocol_version,
            "hardware_version": config.hardware_version,
            "charging_connectors_count": len(config.connectors),
            "esn_dispenser": config.esn,
        }
        if config.software_version:
            values["software_version"] = config.software_version
        for number, connector in enumerate(config.connectors, 1):
            values |= {
                f"{number}/total_energy_charged": 0.0,
                f"{number}/connector_type": int(ConnectorType.CCS2),
                f"{number}/maximum_rated_charge_current": connector.max_export_current_A,
                f"{number}/connector_no": connector.global_connector_number,
                f"{number}/electronic_lock_status": 1,
                f"{number}/rated_output_power_connector": connector.max_export_power_W / 1000,
                f"{number}/inverse_connection_dispenser_inlet_cable": 0,
            }
        registers = self._link.map.by_key
        words = {key: encode(registers[key], value) for key, value in values.items()}
        return {key: value or zeros(registers[key]) for key, value in words.items()}


def _word_at(segment: Segment, address: int) -> tuple[int, ...]:
    place = address - segment.address
    return segment.words[place : place + 1] if 0 <= place < len(segment.words) else ()


def _merged(words: Sequence[tuple[int, int]]) -> tuple[Segment, ...]:
    """Adjacent registers are one segment."""
    segments: list[Segment] = []
    for address, word in words:
        last = segments[-1] if segments else None
        if last is not None and last.address + len(last.words) == address:
            segments[-1] = Segment(last.address, (*last.words, word))
        else:
            segments.append(Segment(address, (word,)))
    return tuple(segments)
