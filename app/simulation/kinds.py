"""The kinds of fault that there are, and how one of each is drawn.

KINDS is all of them: a new kind comes in there (docs/simulation.md).
"""

import math
import random
from collections.abc import Callable
from typing import get_args

from ...messages.config import Config
from ...messages.registers import RegisterMap
from ...messages.types import BspEvent
from . import plan as planned
from .plan import AnyEvent, Forgery, OddRequest

BOARD_ERRORS = (
    "EnclosureOpen",
    "WaterIngressDetected",
    "MREC8EmergencyStop",
    "TiltDetected",
    "MREC17EVSEContactorFault",
    "MREC2GroundFailure",
    "VendorError",
)
INTERRUPTED_INPUTS = (
    "",
    "TimerFired",
    "RegistersWritten",
    "RegistersRead",
    "HmacKeyReceived",
    "ModeRequested",
    "SetpointRequested",
    "BspEventReceived",
    "SessionEventReceived",
    "BspErrorRaised",
    "BspErrorCleared",
    "PowerRequestReplyReceived",
    "PsuConnected",
    "PsuConnectFailed",
    "PsuDisconnected",
    "BrokerConnected",
    "BrokerDisconnected",
    "HeartbeatReceived",
    "PowermeterMeasured",
    "UtcOffsetChanged",
    "GooseFramesDropped",
    "ActiveErrorsReceived",
    "ModbusRequestRefused",
    "JournalLost",
    "JournalRestored",
)
HELD_INPUTS = (
    "PowerRequestReplyReceived",
    "RegistersWritten",
    "RegistersRead",
    "HmacKeyReceived",
    "PsuConnected",
    "PsuConnectFailed",
    "PsuDisconnected",
    "BrokerConnected",
    "BrokerDisconnected",
    "ModeRequested",
    "BspEventReceived",
)
GRAVE_INPUTS = (
    "BspEventReceived",
    "SessionEventReceived",
    "ModeRequested",
    "PsuDisconnected",
    "HmacKeyReceived",
)
"""Those that say what nobody will say again, or that stop power."""
_MAP = RegisterMap(4)
_ALARMS = [register for register in _MAP.registers if register.alarm is not None]
_RATINGS = (
    "max_rated_psu_voltage",
    "max_rated_psu_current",
    "min_rated_psu_voltage",
    "min_rated_psu_current",
    "rated_output_power_psu",
)
_ODD_F32_WORDS = (
    (0x0000, 0x0000),
    (0x7FC0, 0x0000),  # NaN
    (0x7F80, 0x0000),  # infinite
    (0xFF80, 0x0000),
    (0xC2C8, 0x0000),  # -100
    (0x0000, 0x0001),  # the smallest there is
    (0x7F7F, 0xFFFF),  # the largest
)


class Draw:
    """Draws single events."""

    def __init__(self, rng: random.Random, config: Config) -> None:
        self.rng = rng
        self.connectors = len(config.connectors)
        self.modbus_timeout_s = config.modbus_timeout_s
        self.everest_timeout_s = config.everest_timeout_s

    def connector(self) -> int:
        """One of them."""
        return self.rng.randint(1, self.connectors)

    def long_s(self, low: float, high: float) -> float:
        """As often from 0.1 to 1 as from 1 to 10."""
        return round(math.exp(self.rng.uniform(math.log(low), math.log(high))), 3)

    def psu(self, at_s: float, **command: object) -> planned.Psu:
        """Tell the power unit."""
        return planned.Psu(at_s=at_s, command=command)


def _later(at_s: float, delay_s: float) -> float:
    return round(at_s + delay_s, 6)


def _draw_restart_of_psu(draw: Draw, at_s: float) -> list[AnyEvent]:
    command: dict[str, object] = {"do": "restart", "for_s": draw.long_s(0.1, 20)}
    if draw.rng.random() < 0.7:
        command["mac"] = f"02:00:00:00:01:{draw.rng.randrange(256):02x}"
    return [planned.Psu(at_s=at_s, command=command)]


def _draw_key(draw: Draw, at_s: float) -> list[AnyEvent]:
    key = draw.rng.choice(("again", "new", "new", "zero", draw.rng.randbytes(48).hex()))
    return [draw.psu(at_s, do="key", connector=draw.connector(), key=key)]


def _draw_alarm(draw: Draw, at_s: float) -> list[AnyEvent]:
    register = draw.rng.choice(_ALARMS)
    value = draw.rng.choice((1, 1, 2, (1 << 16 * register.words) - 1, 1 << draw.rng.randrange(16)))
    cleared = draw.psu(_later(at_s, draw.long_s(0.01, 60)), do="clear_alarm", name=register.key)
    return [draw.psu(at_s, do="alarm", name=register.key, value=value), cleared]


def _draw_mode(draw: Draw, at_s: float) -> list[AnyEvent]:
    mode = draw.rng.choice(("STARTING_UP", "FAULTY", "SLEEPING", "UPGRADING"))
    back = draw.psu(_later(at_s, draw.long_s(0.01, 30)), do="running_mode", mode="RUNNING")
    return [draw.psu(at_s, do="running_mode", mode=mode), back]


def _draw_ratings(draw: Draw, at_s: float) -> list[AnyEvent]:
    rng = draw.rng
    command: dict[str, object] = {"do": "ratings"}
    if rng.random() < 0.7:
        command["connector"] = draw.connector()
    chosen = rng.sample(("max_voltage_v", "max_current_a", "min_voltage_v", "min_current_a", "power_kw"), 2)
    for name in chosen:
        command[name] = rng.choice((0.0, 1.0, 50.0, 200.5, 450.0, 1000.0, -5.0, 1e30))
    return [planned.Psu(at_s=at_s, command=command)]


def _draw_odd_rating(draw: Draw, at_s: float) -> list[AnyEvent]:
    register = _MAP.by_key[f"{draw.connector()}/{draw.rng.choice(_RATINGS)}"]
    words = draw.rng.choice(_ODD_F32_WORDS)
    return [draw.psu(at_s, do="write", address=register.address, words=list(words))]


def _draw_odd_write(draw: Draw, at_s: float) -> list[AnyEvent]:
    """Part of a register, several, a gap, up to the end of the address space."""
    rng = draw.rng
    register = rng.choice(_MAP.registers)
    address = max(0, register.address + rng.randint(-3, register.words))
    count = min(rng.choice((1, 1, 2, 5, 24, 123)), 0x10000 - address)
    if rng.random() < 0.1:
        address, count = 0x10000 - 2, 2
    words = [rng.choice((0, 1, rng.randrange(0x10000))) for _ in range(count)]
    return [draw.psu(at_s, do="write", address=address, words=words)]


def _draw_bytes(draw: Draw, at_s: float) -> list[AnyEvent]:
    """What no PSU would say: unknown functions, wrong lengths, no Modbus at all."""
    rng = draw.rng
    transaction_id = rng.randrange(0x10000).to_bytes(2, "big")
    pdu = rng.choice(
        (
            bytes((0x2B, 0x0E, 1, 0)),
            bytes((0x03, 0, 0, 0, 200)),
            bytes((0x03, 0xFF, 0xFF, 0, 2)),
            bytes((0x10, 0xFF, 0xFF, 0, 2, 4, 0, 1, 0, 2)),
            bytes((0x10, 0x20, 0x06, 0, 2, 4, 0, 1)),
            bytes((0x06, 0x20)),
            bytes((0x41, 0x91, 0, 1, 0, 0)),
            bytes((0x83, 2)),
            rng.randbytes(rng.randint(1, 40)),
        )
    )
    adu = transaction_id + b"\0\0" + (len(pdu) + 1).to_bytes(2, "big") + b"\xff" + pdu
    data = adu if rng.random() < 0.7 else rng.randbytes(rng.randint(1, 60))
    return [draw.psu(at_s, do="send", hex=data.hex())]


def _draw_placeholder(draw: Draw, at_s: float) -> list[AnyEvent]:
    reply = draw.rng.choice(("refuse", "withhold"))
    back = draw.psu(_later(at_s, draw.long_s(1, 60)), do="placeholder", reply="answer")
    return [draw.psu(at_s, do="placeholder", reply=reply), back]


def _draw_refusal(draw: Draw, at_s: float) -> list[AnyEvent]:
    drop = draw.rng.choice(("drop", "reset"))
    refused = draw.psu(at_s, do="refuse", for_s=draw.long_s(0.05, 20))
    return [refused, draw.psu(_later(at_s, 0.001), do=drop)]


def _draw_broker_lost(draw: Draw, at_s: float) -> list[AnyEvent]:
    """For however long, or about as long as it may be gone."""
    rng = draw.rng
    for_s = draw.long_s(0.01, 30)
    if rng.random() < 0.5:
        for_s = round(draw.everest_timeout_s * rng.uniform(0.5, 2.0) + rng.uniform(0.0, 2.0), 3)
    return [planned.BrokerLost(at_s=at_s, for_s=for_s, keeps=rng.random() < 0.5)]


def _draw_mqtt(draw: Draw, at_s: float) -> list[AnyEvent]:
    rng = draw.rng
    return [
        planned.MqttTrouble(
            at_s=at_s,
            for_s=draw.long_s(0.5, 30),
            lost=rng.choice((0.0, 0.1, 0.5)),
            twice=rng.choice((0.0, 0.2, 0.5)),
            slow_s=rng.choice((0.0, 0.05, 1.0, 4.0)),
        )
    ]


def _draw_goose(draw: Draw, at_s: float) -> list[AnyEvent]:
    rng = draw.rng
    return [
        planned.GooseTrouble(
            at_s=at_s,
            for_s=draw.long_s(0.5, 30),
            lost=rng.choice((0.0, 0.2, 0.9)),
            twice=rng.choice((0.0, 0.3)),
            slow_s=rng.choice((0.0, 0.01, 2.0)),
        )
    ]


def _draw_raising(draw: Draw, at_s: float) -> list[AnyEvent]:
    rng = draw.rng
    on = rng.choice(GRAVE_INPUTS if rng.random() < 0.4 else INTERRUPTED_INPUTS)
    call = rng.choice((1, 1, 2, 2, 3, 4, 6))
    return [planned.HandlerRaises(at_s=at_s, on=on, call=call, after=rng.random() < 0.5)]


def _draw_held(draw: Draw, at_s: float) -> list[AnyEvent]:
    """As a scheduler does it; or for much longer. The connection breaks meanwhile, or does not."""
    for_s = draw.long_s(0.0005, 4.9)
    cut_after_s = round(for_s * draw.rng.choice((0.0, 0.1, 0.5)), 6) if draw.rng.random() < 0.6 else None
    return [
        planned.ThreadHeld(at_s=at_s, on=draw.rng.choice(HELD_INPUTS), for_s=for_s, cut_after_s=cut_after_s)  # type: ignore[arg-type]
    ]


def _draw_late_reply(draw: Draw, at_s: float) -> list[AnyEvent]:
    """A reply is verified, and until the core has it, the next connection stands and has its keys. A cut before
    it lets a charge that goes on ask for one."""
    cut = planned.LinkCut(at_s=at_s)
    held = planned.ThreadHeld(
        at_s=at_s,
        on="PowerRequestReplyReceived",
        for_s=round(draw.rng.uniform(1.2, 4.9), 3),
        cut_after_s=draw.long_s(0.001, 0.3),
    )
    return [cut, held] if draw.rng.random() < 0.7 else [held]


def _draw_late_key(draw: Draw, at_s: float) -> list[AnyEvent]:
    """A power unit that was silent nearly too long writes a key, and until the core has it, it was too long."""
    connector = draw.connector()
    left_s = draw.rng.uniform(0.2, 2.0)
    silence_s = round(draw.modbus_timeout_s - left_s, 3)
    return [
        draw.psu(at_s, do="key", connector=connector, key="again"),
        draw.psu(_later(at_s, 0.1), do="silence", for_s=silence_s),
        draw.psu(_later(at_s, 0.2), do="key", connector=connector, key="again"),
        planned.ThreadHeld(
            at_s=_later(at_s, silence_s), on="RegistersWritten", for_s=round(left_s + draw.rng.uniform(0, 1), 3)
        ),
    ]


def _draw_restart(draw: Draw, at_s: float) -> list[AnyEvent]:
    rng = draw.rng
    return [
        planned.DriverRestarts(
            at_s=at_s,
            for_s=draw.long_s(0.1, 20),
            killed=rng.random() < 0.6,
            cut_bytes=rng.choice((0, 0, 1, 40)),
            forgets_alarms=rng.random() < 0.1,
        )
    ]


def _draw_board_error(draw: Draw, at_s: float) -> list[AnyEvent]:
    """As often as not two instances: at one board, or at two, which overlap or do not."""
    rng = draw.rng
    first = planned.BoardError(
        at_s=at_s,
        connector=draw.connector(),
        error_type=rng.choice(BOARD_ERRORS),
        sub_type=rng.choice(("", "a")),
        for_s=draw.long_s(0.01, 120),
    )
    if rng.random() < 0.5:
        return [first]
    connector = first.connector if rng.random() < 0.5 else draw.connector()
    second = planned.BoardError(
        at_s=_later(at_s, draw.long_s(0.01, 60)),
        connector=connector,
        error_type=first.error_type,
        sub_type="b",
        for_s=draw.long_s(0.01, 120),
    )
    return [first, second]


_JUMPS_S = (0.15, 0.3, -0.3, 3600.0, -3600.0, 1e6)

KINDS: dict[str, Callable[[Draw, float], list[AnyEvent]]] = {
    "unplug": lambda draw, at_s: [planned.Unplug(at_s=at_s, connector=draw.connector())],
    "odd": lambda draw, at_s: [
        planned.Odd(at_s=at_s, connector=draw.connector(), what=draw.rng.choice(get_args(OddRequest)))
    ],
    "board_event": lambda draw, at_s: [
        planned.BoardEvent(at_s=at_s, connector=draw.connector(), event=draw.rng.choice(list(BspEvent)))
    ],
    "board_error": _draw_board_error,
    "device_silent": lambda draw, at_s: [
        planned.DeviceSilent(at_s=at_s, connector=draw.connector(), for_s=draw.long_s(1, 30))
    ],
    "everest_restarts": lambda draw, at_s: [planned.EverestRestarts(at_s=at_s, for_s=draw.long_s(0.1, 30))],
    "everest_silent": lambda draw, at_s: [planned.EverestSilent(at_s=at_s, for_s=draw.long_s(0.5, 40))],
    "history_silent": lambda draw, at_s: [planned.HistorySilent(at_s=at_s, for_s=draw.long_s(0.5, 30))],
    "broker_lost": _draw_broker_lost,
    "mqtt_trouble": _draw_mqtt,
    "psu_restart": _draw_restart_of_psu,
    "psu_key": _draw_key,
    "psu_alarm": _draw_alarm,
    "psu_mode": _draw_mode,
    "psu_ratings": _draw_ratings,
    "psu_odd_rating": _draw_odd_rating,
    "psu_odd_write": _draw_odd_write,
    "psu_bytes": _draw_bytes,
    "psu_placeholder": _draw_placeholder,
    "psu_refuse": _draw_refusal,
    "psu_silence": lambda draw, at_s: [draw.psu(at_s, do="silence", for_s=draw.long_s(0.5, 90))],
    "psu_port": lambda draw, at_s: [
        draw.psu(at_s, do="port_available", available=draw.rng.random() < 0.5, connector=draw.connector())
    ],
    "link_cut": lambda _, at_s: [planned.LinkCut(at_s=at_s)],
    "link_stalls": lambda draw, at_s: [planned.LinkStalls(at_s=at_s, for_s=draw.long_s(0.1, 30))],
    "link_slow": lambda draw, at_s: [
        planned.LinkSlow(
            at_s=at_s,
            for_s=draw.long_s(0.5, 30),
            slow_s=draw.rng.choice((0.005, 0.1, 1.5)),
            splits=draw.rng.random() < 0.7,
        )
    ],
    "goose_trouble": _draw_goose,
    "goose_forged": lambda draw, at_s: [
        planned.GooseForged(
            at_s=at_s,
            connector=draw.connector(),
            how=draw.rng.choice(get_args(Forgery)),
            for_s=draw.long_s(1, 300),
        )
    ],
    "clock_jumps": lambda draw, at_s: [planned.ClockJumps(at_s=at_s, by_s=draw.rng.choice(_JUMPS_S))],
    "handler_raises": _draw_raising,
    "thread_held": _draw_held,
    "late_reply": _draw_late_reply,
    "late_key": _draw_late_key,
    "journal_lost": lambda draw, at_s: [
        planned.JournalLost(at_s=at_s, for_s=draw.long_s(0.1, 30), lost_turns=draw.rng.choice((0, 1, 5)))
    ],
    "driver_restarts": _draw_restart,
}
"""Every kind of fault, and how one of it is drawn."""
