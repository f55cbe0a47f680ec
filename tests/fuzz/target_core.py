"""The whole driver without its sockets: any bytes from PSU, EVerest and boards, in any order, through codecs
and core. No turn fails, everything can be recorded, and everything that goes out can be encoded.

    input   steps: operation, its arguments
"""

import contextlib
import struct

import msgspec
from core_harness import OWN_MAC, PSU_MAC, Core, make_config
from fakes.goose_frames import KEY, KEY_ADDRESSES, OTHER_KEY, words_of
from fusioncharger.io import goose_codec
from fusioncharger.io.everest_codec import EverestCodec, EverestOutput
from fusioncharger.io.goose_codec import GooseError
from fusioncharger.io.goose_receiver import GooseAcceptance
from fusioncharger.io.key_ring import KeyRing
from fusioncharger.io.modbus_adu import ModbusProtocolError
from fusioncharger.io.modbus_codec import DispenserCodec
from fusioncharger.io.modbus_link import inputs_of
from fusioncharger.messages import inputs, outputs
from fusioncharger.messages.goose import GooseHeader, PowerRequest, PowerRequestReply, StopRequest
from fusioncharger.messages.outputs import AnyOutput
from fusioncharger.messages.registers import RegisterMap
from fuzz.source import Source

CONFIG = make_config(2, 'error_history = "history"\ntelemetry_topic_prefix = "t"')
REGISTERS = RegisterMap(2).registers
CONNECTOR_NOS = tuple(connector.global_connector_number for connector in CONFIG.connectors)
_STEPS = 50
_output_decoder = msgspec.json.Decoder(AnyOutput)

PAYLOADS = (
    b'{"mode":"Export","charging_phase":"CableCheck"}',
    b'{"mode":"Export","charging_phase":"PreCharge"}',
    b'{"mode":"Export","charging_phase":"Charging"}',
    b'{"mode":"Off","charging_phase":"Other"}',
    b'{"voltage_V":400,"current_A":20}',
    b'{"voltage_V":1e300,"current_A":1e300}',
    b'{"voltage_V":-0.0,"current_A":1e-300}',
    b'{"event":"A"}',
    b'{"event":"B"}',
    b'{"event":"PowerOn"}',
    b'{"type":"MREC8EmergencyStop"}',
    b'{"type":"MREC17EVSEContactorFault","sub_type":"x"}',
    b'{"type":"evse_board_support/TiltDetected","origin":{"module_id":"bsp_1"}}',
    b'{"errors":[{"type":"evse_board_support/EnclosureOpen","origin":{"module_id":"bsp_2"}}]}',
    b'{"voltage_V":{"DC":399.5},"current_A":{"DC":19.5}}',
    b"1e308",
    b"7",
    b"18446744073709551615",
)


class Driver:
    """Codecs and core, as the composition root puts them together."""

    def __init__(self) -> None:
        self.core = Core(CONFIG).start()
        self.everest = EverestCodec(CONFIG, "me")
        self.ring = KeyRing(2)
        self.acceptance = GooseAcceptance(
            OWN_MAC, self.ring, verify_secure=True, allow_insecure=False, connector_nos=CONNECTOR_NOS
        )
        self.modbus = DispenserCodec()

    def feed(self, message: inputs.Input) -> None:
        if isinstance(message, inputs.PsuConnected):
            self.modbus = DispenserCodec()
        begin = len(self.core.history)
        self.core.feed(message)
        self.check(begin)

    def check(self, begin: int) -> None:
        for output in self.core.history[begin:]:
            self._take(output)

    def _take(self, output: AnyOutput) -> None:
        record = msgspec.json.encode(output)
        # As text, because a NaN is written as null, and nothing of the kind may be in here.
        assert msgspec.json.encode(_output_decoder.decode(record)) == record
        match output:
            case outputs.TurnFailed():
                raise AssertionError(f"a turn failed: {output}")
            case (
                outputs.ReadAnswered()
                | outputs.WriteAnswered()
                | outputs.ExceptionAnswered()
                | outputs.ReportSent()
            ):
                assert 2 <= len(self.modbus.encode(output)) - 6 <= 254
            case outputs.PowerRequested() | outputs.StopRequested():
                self._send_goose(output)
            case _ if isinstance(output, EverestOutput):
                self.everest.encode(output)

    def _send_goose(self, output: outputs.PowerRequested | outputs.StopRequested) -> None:
        header = GooseHeader(st_num=output.st_num, sq_num=0, t_seconds=0, t_fraction=0)
        message: PowerRequest | StopRequest
        if isinstance(output, outputs.StopRequested):
            message = StopRequest(connector_no=output.connector_no, reason=output.reason)
        else:
            message = PowerRequest(
                connector_no=output.connector_no,
                requirement_type=output.requirement_type,
                mode=output.mode,
                voltage_v=output.voltage_v,
                current_a=output.current_a,
            )
            maximum = CONFIG.connectors[output.connector - 1].max_export_current_A
            assert 0 <= output.current_a <= maximum
            assert output.voltage_v >= 0
        frame = goose_codec.encode(
            message, header, dst=output.dst, src=OWN_MAC, vlan_id=0, vlan_priority=5, key=KEY
        )
        assert goose_codec.decode(frame).header == header


def check(data: bytes) -> None:
    source = Source(data)
    driver = Driver()
    for _ in range(_STEPS):
        if not source.left:
            break
        step(driver, source)


def step(driver: Driver, source: Source) -> None:
    connection = driver.core.connection
    match source.below(10):
        case 0:
            modbus(driver, source.chunk())
        case 1:
            register = source.choice(REGISTERS)
            words = source.take(2 * register.words)
            write(driver, register.address, words.ljust(2 * register.words, b"\xff"))
        case 2:
            write(driver, source.number(2), source.chunk())
        case 3:
            mqtt(driver, source, source.choice(PAYLOADS))
        case 4:
            mqtt(driver, source, source.chunk())
        case 5:
            goose(driver, source)
        case 6:
            begin = len(driver.core.history)
            driver.core.advance(source.number(2) / 1000)
            driver.check(begin)
        case 7:
            driver.feed(inputs.PsuConnected(connection=connection))
            write(driver, 0x2111, PSU_MAC)
        case 8:
            driver.feed(inputs.PsuDisconnected(connection=connection, reason="closed"))
        case _:
            number = source.below(3)
            if number == 2:
                driver.feed(inputs.BrokerConnected(session_present=bool(source.below(2))))
            else:
                key = (KEY, OTHER_KEY)[number]
                write(driver, KEY_ADDRESSES[number], struct.pack(">24H", *words_of(key)))


def modbus(driver: Driver, data: bytes) -> None:
    driver.modbus.receive(data)
    try:
        while (event := driver.modbus.next_event()) is not None:
            for message in inputs_of(event, driver.core.connection, driver.ring):
                driver.feed(message)
    except ModbusProtocolError as error:
        driver.feed(inputs.PsuDisconnected(connection=driver.core.connection, reason=str(error)))
        driver.modbus = DispenserCodec()


def write(driver: Driver, address: int, data: bytes) -> None:
    """A write (0x10) of these bytes, on a stream of its own."""
    count = min(len(data) // 2, 123)
    pdu = struct.pack(">BHHB", 0x10, address, count, 2 * count) + data[: 2 * count]
    driver.modbus = DispenserCodec()
    modbus(driver, struct.pack(">HHHB", 1, 0, len(pdu) + 1, 0xFF) + pdu)


def mqtt(driver: Driver, source: Source, payload: bytes) -> None:
    topic = source.choice(driver.everest.subscriptions)
    received = driver.everest.decode(topic, payload, retained=False, redelivered=bool(source.left & 1))
    if received is not None:
        driver.feed(received)


def goose(driver: Driver, source: Source) -> None:
    """A reply with any numbers in it, signed by one of the keys."""
    message = PowerRequestReply(
        connector_no=source.choice(CONNECTOR_NOS),
        requirement_type=source.choice((1, 1, source.number(2))),
        result=source.choice((0, 1, source.number(2))),
        mode=source.number(2),
        voltage_bits=source.number(4),
        current_bits=source.number(4),
    )
    header = GooseHeader(st_num=source.number(4), sq_num=source.number(4), t_seconds=0, t_fraction=0)
    key = source.choice((KEY, OTHER_KEY))
    frame = goose_codec.encode(message, header, dst=OWN_MAC, src=PSU_MAC, vlan_id=0, vlan_priority=5, key=key)
    with contextlib.suppress(GooseError):
        driver.feed(driver.acceptance.decide(frame, driver.core.at_ns).reply)
