"""Drives the core on virtual time, through Inputs and Outputs alone, as the core loop does on real time."""

from typing import TypeVar

from fusioncharger.actors.runtime import Runtime
from fusioncharger.actors.system import build
from fusioncharger.messages import inputs, outputs
from fusioncharger.messages.config import Config, parse
from fusioncharger.messages.registers import RegisterMap, encode
from fusioncharger.messages.types import BspEvent, ChargingPhase, Mode, RequirementType
from msgspec.structs import replace

T = TypeVar("T")

PSU_MAC = bytes.fromhex("f6baef9032b5")
OWN_MAC = bytes.fromhex("e22fa3878a1e")
UTC_OFFSET_NS = 1_795_405_582_000_000_000
SECOND_NS = 1_000_000_000


def make_config(
    connectors: int = 1, settings: str = "", first_global: int = 5, *, no_meter: bool = False
) -> Config:
    """A configuration whose connectors have the global numbers 5, 6, …"""
    tables = "".join(
        f"""
        [[connectors]]
        global_connector_number = {first_global + n}
        max_export_current_A = 100
        max_export_power_W = 60000
        power_supply_DC = "psu_{n + 1}"
        evse_board_support = "bsp_{n + 1}"
        isolation_monitor = "imd_{n + 1}"
        over_voltage_monitor = "ovm_{n + 1}"
        {"" if no_meter else f'powermeter = "meter_{n + 1}"'}
        """
        for n in range(connectors)
    )
    return parse(settings + tables, "test.toml")


class Core:
    """The core, its time, and the timers that it started."""

    def __init__(self, config: Config | None = None, runtime: Runtime | None = None) -> None:
        self.config = config or make_config()
        self.runtime = runtime or build(self.config)
        self.at_ns = 0
        self.timers: dict[tuple[str, str], tuple[int, int]] = {}
        self.connection = 0
        self.transaction = 0
        self.map = RegisterMap(len(self.config.connectors))
        self.history: list[outputs.AnyOutput] = []

    def feed(self, message: inputs.Input, after_s: float = 0.001) -> list[outputs.AnyOutput]:
        """One turn, `after_s` after the last one; timers that ran out before it fire first."""
        self.advance(after_s)
        return self._turn(message)

    def advance(self, seconds: float) -> list[outputs.AnyOutput]:
        """Let time go by; the Outputs of the timers that fire."""
        end_ns = self.at_ns + round(seconds * SECOND_NS)
        made: list[outputs.AnyOutput] = []
        while self.timers:
            (owner, name), (due_ns, number) = min(self.timers.items(), key=lambda item: (item[1][0], item[0]))
            if due_ns > end_ns:
                break
            del self.timers[owner, name]
            self.at_ns = max(self.at_ns, due_ns)
            made += self._turn(inputs.TimerFired(owner=owner, name=name, number=number))
        self.at_ns = end_ns
        return made

    def _turn(self, message: inputs.Input) -> list[outputs.AnyOutput]:
        made = self.runtime.turn(replace(message, at_ns=self.at_ns))
        for output in made:
            match output:
                case outputs.StartTimer():
                    due_ns = self.at_ns + output.delay_ns
                    self.timers[output.owner, output.name] = (due_ns, output.number)
                case outputs.CancelTimer():
                    self.timers.pop((output.owner, output.name), None)
                case outputs.PsuConnectRequested(connection=connection):
                    self.connection = connection
        self.history += made
        return list(made)

    # --- what a test needs again and again -----------------------------------------------------------------

    def start(self) -> "Core":
        self.feed(inputs.Started(utc_offset_ns=UTC_OFFSET_NS, goose_mac=OWN_MAC))
        return self

    def connect(self, *, rated: bool = True) -> "Core":
        """The link stands, the PSU's MAC is known, and (`rated`) its ratings. It has not said RUNNING."""
        self.feed(inputs.PsuConnected(connection=self.connection))
        self.write("psu_mac", PSU_MAC)
        if rated:
            for number in range(1, len(self.config.connectors) + 1):
                self.rate(number)
        return self

    def rate(
        self,
        connector: int = 1,
        *,
        max_v: float = 1000,
        max_a: float = 100,
        min_v: float = 100,
        min_a: float = 1,
        power_kw: float = 60,
    ) -> list[outputs.AnyOutput]:
        """The PSU writes a connector's ratings, each in a turn of its own; the Outputs of all."""
        values = {
            "max_rated_psu_voltage": max_v,
            "max_rated_psu_current": max_a,
            "min_rated_psu_voltage": min_v,
            "min_rated_psu_current": min_a,
            "rated_output_power_psu": power_kw,
        }
        return [output for name, value in values.items() for output in self.write(f"{connector}/{name}", value)]

    def disconnect(self, reason: str = "closed by the PSU") -> list[outputs.AnyOutput]:
        return self.feed(inputs.PsuDisconnected(connection=self.connection, reason=reason))

    def ready(self) -> "Core":
        return self.start().connect()

    def write(self, key: str, value: float | bytes) -> list[outputs.AnyOutput]:
        """The PSU writes a whole register."""
        register = self.map.by_key[key]
        return self.write_words(register.address, encode(register, value))

    def write_words(
        self, address: int, words: tuple[int, ...], function: int = 0x10
    ) -> list[outputs.AnyOutput]:
        self.transaction += 1
        return self.feed(
            inputs.RegistersWritten(
                connection=self.connection,
                transaction_id=self.transaction,
                unit_id=0xFF,
                function=function,
                address=address,
                words=words,
                adu=b"",
            )
        )

    def read(self, address: int, count: int) -> tuple[int, ...]:
        """The words that the PSU reads."""
        self.transaction += 1
        made = self.feed(
            inputs.RegistersRead(
                connection=self.connection,
                transaction_id=self.transaction,
                unit_id=0xFF,
                address=address,
                count=count,
                adu=b"",
            )
        )
        (answer,) = only(made, outputs.ReadAnswered)
        assert answer.transaction_id == self.transaction
        assert answer.unit_id == 0xFF
        return answer.words

    def read_register(self, key: str) -> tuple[int, ...]:
        register = self.map.by_key[key]
        return self.read(register.address, register.words)

    def plug_in(self, connector: int = 1) -> list[outputs.AnyOutput]:
        return self.feed(inputs.BspEventReceived(connector=connector, event=BspEvent.B))

    def plug_out(self, connector: int = 1) -> list[outputs.AnyOutput]:
        return self.feed(inputs.BspEventReceived(connector=connector, event=BspEvent.A))

    def key(self, connector: int = 1) -> list[outputs.AnyOutput]:
        return self.feed(inputs.HmacKeyReceived(connection=self.connection, connector=connector))

    def reply(
        self,
        connector: int = 1,
        result: int = 0,
        requirement_type: int = RequirementType.MODULE_PLACEHOLDER_REQUEST,
        verified: tuple[int, ...] | None = None,
        connection: int | None = None,
    ) -> list[outputs.AnyOutput]:
        return self.feed(
            inputs.PowerRequestReplyReceived(
                verified=(connector,) if verified is None else verified,
                connector_no=self.config.connectors[connector - 1].global_connector_number,
                charging_sn=0xFFFF,
                requirement_type=requirement_type,
                result=result,
                mode=2,
                voltage_bits=0,
                current_bits=0,
                st_num=1,
                sq_num=0,
                frame=b"",
                connection=self.connection if connection is None else connection,
            )
        )

    def mode(
        self, mode: Mode, phase: ChargingPhase = ChargingPhase.OTHER, connector: int = 1
    ) -> list[outputs.AnyOutput]:
        return self.feed(inputs.ModeRequested(connector=connector, mode=mode, charging_phase=phase))

    def export(
        self, phase: ChargingPhase = ChargingPhase.CHARGING, connector: int = 1
    ) -> list[outputs.AnyOutput]:
        return self.mode(Mode.EXPORT, phase, connector)

    def off(self, connector: int = 1) -> list[outputs.AnyOutput]:
        return self.mode(Mode.OFF, ChargingPhase.OTHER, connector)

    def setpoint(self, voltage_v: float, current_a: float, connector: int = 1) -> list[outputs.AnyOutput]:
        return self.feed(
            inputs.SetpointRequested(connector=connector, voltage_v=voltage_v, current_a=current_a)
        )

    def heartbeat(
        self, heartbeat_id: int, connector: int = 1, *, redelivered: bool = False
    ) -> list[outputs.AnyOutput]:
        return self.feed(
            inputs.HeartbeatReceived(connector=connector, heartbeat_id=heartbeat_id, redelivered=redelivered)
        )

    def to_running(self, connector: int = 1) -> "Core":
        self.plug_in(connector)
        self.key(connector)
        self.reply(connector)
        return self

    def to_charging(self, voltage_v: float = 400, current_a: float = 20, connector: int = 1) -> "Core":
        self.to_running(connector)
        self.setpoint(voltage_v, current_a, connector)
        self.export(connector=connector)
        return self


def only(made: list[outputs.AnyOutput], kind: type[T]) -> list[T]:
    """The Outputs of one kind."""
    return [output for output in made if isinstance(output, kind)]


def goose(made: list[outputs.AnyOutput]) -> list[tuple[RequirementType | None, float, float]]:
    """The GOOSE messages: (requirement_type, V, A); a stop request is (None, 0, 0)."""
    found: list[tuple[RequirementType | None, float, float]] = []
    for output in made:
        if isinstance(output, outputs.PowerRequested):
            found.append((output.requirement_type, output.voltage_v, output.current_a))
        elif isinstance(output, outputs.StopRequested):
            found.append((None, 0.0, 0.0))
    return found
