"""GOOSE between driver and power unit: frames, encoded, signed and verified as io/ does it.

A new message travels as a frame. Once the power unit has it, its repeats are only told to the model, for they
say nothing new; a frame that was lost comes again a second later, as the next repeat would.
"""

from collections import deque
from collections.abc import Callable
from functools import partial

from msgspec import Struct
from msgspec.structs import replace

from ...io.goose_codec import DecodedFrame, GooseError, decode, encode, verify
from ...io.goose_receiver import GooseAcceptance
from ...messages.config import Config
from ...messages.goose import GooseHeader, PowerRequest, PowerRequestReply, StopRequest, t_of_utc_ns
from ...messages.inputs import GooseFramesDropped, PowerRequestReplyReceived
from ...messages.outputs import PowerRequested, StopRequested
from ...messages.types import RequirementType
from ...mock.actions import ReplySent
from ...mock.psu_model import PsuModel
from .invariants import InvariantViolated
from .io_thread import IoThread
from .network import Network
from .plan import Site
from .process import DISPENSER_MAC, Process
from .virtual_time import SECOND_NS, Calendar, Chance

PSU_MAC = bytes.fromhex("020000000001")
VLAN_PRIORITY = 5
CAPTURED_FRAMES = 8
SIGNATURES = "a message is signed with its connector's key"
VERIFICATION = "a frame counts for the connector whose key verified it"

Received = Callable[[PowerRequest | StopRequest, GooseHeader], None]


class _Publisher(Struct):
    """A connector's GOOSE message, as it is being repeated."""

    output: PowerRequested | StopRequested
    is_accepted: bool = False
    """The power unit has it."""


class GooseSide:
    """Both directions."""

    def __init__(
        self,
        config: Config,
        site: Site,
        model: PsuModel,
        received: Received,
        *,
        network: Network,
        calendar: Calendar,
        chance: Chance,
        utc_ns: Callable[[], int],
        thread: IoThread,
        standing: Callable[[], tuple[int, int]],
    ) -> None:
        """`received` gets what the power unit takes; `utc_ns` is the wall clock; `thread` receives for the
        driver; `standing`: the connection that stands as the core knows, by the power unit's number and the
        core's; 0, 0 if none does."""
        self._config = config
        self._site = site
        self._model = model
        self._received = received
        self._network = network
        self._calendar = calendar
        self._chance = chance
        self._utc_ns = utc_ns
        self._thread = thread
        self._standing = standing
        self._process: Process | None = None
        self._acceptance: GooseAcceptance | None = None
        self._publishers: dict[int, _Publisher] = {}
        """By connector."""
        self._keys: dict[int, list[tuple[int, bytes]]] = {}
        """By connector: every key that it was ever given, and in which Modbus session; the newest first."""
        self._captured: deque[bytes] = deque(maxlen=CAPTURED_FRAMES)
        self._forging: dict[int, tuple[int, str]] = {}
        """By connector: until when each of its placeholder requests gets a forged reply, and of what kind."""
        self._drops: dict[str, int] = {}
        for connector in range(1, len(config.connectors) + 1):
            self._plan_repeat(connector)

    def attach(self, process: Process | None) -> None:
        """Another driver process, or none: what the former one sent is repeated no more."""
        self._thread.reset()
        self._process = process
        self._publishers.clear()
        self._drops.clear()
        self._acceptance = None
        if process is not None:
            self._acceptance = GooseAcceptance(
                DISPENSER_MAC,
                process.key_ring,
                verify_secure=self._config.verify_secure_goose,
                allow_insecure=self._config.allow_insecure_goose,
                connector_nos=tuple(item.global_connector_number for item in self._config.connectors),
                replay_protection=self._config.goose_replay_protection,
            )

    def key_written(self, session: int, connector: int, key: bytes) -> None:
        """The power unit gave a connector a key."""
        self._keys.setdefault(connector, []).insert(0, (session, key))

    def demand(self, connector: int) -> PowerRequested | None:
        """What a connector is asked to deliver."""
        publisher = self._publishers.get(connector)
        return publisher.output if publisher and isinstance(publisher.output, PowerRequested) else None

    # --- dispenser to power unit -----------------------------------------------------------------------------

    def issue(self, output: PowerRequested | StopRequested) -> None:
        """A new message of a connector."""
        publisher = self._publishers[output.connector] = _Publisher(output)
        self._publish(publisher)
        until_ns, how = self._forging.get(output.connector, (0, ""))
        is_asked = getattr(output, "requirement_type", None) is RequirementType.MODULE_PLACEHOLDER_REQUEST
        if is_asked and self._calendar.now_ns < until_ns:
            self._forge(output.connector, how)

    def silence(self, connector: int) -> None:
        """A connector's message is repeated no more."""
        self._publishers.pop(connector, None)

    def _publish(self, publisher: _Publisher) -> None:
        frame = self._frame(publisher.output)
        if self._network.take_frame(partial(self._at_psu, publisher, frame)):
            return

        def repeat() -> None:
            if self._publishers.get(publisher.output.connector) is publisher:
                self._publish(publisher)

        self._calendar.after(1.0, repeat)

    def _frame(self, output: PowerRequested | StopRequested) -> bytes:
        """As io/goose_publisher.py sends it."""
        key = None
        if self._config.send_secure_goose:
            key = self._process.key_ring.signing_key(output.connector) if self._process else None
            if key is None:
                text = f"connector {output.connector} has a message to sign, and no key"
                raise InvariantViolated(SIGNATURES, text)
        return encode(
            _message_of(output),
            _header(output.st_num, 0, output.t_ns),
            dst=output.dst,
            src=DISPENSER_MAC,
            vlan_id=self._config.goose_vlan_id,
            vlan_priority=VLAN_PRIORITY,
            key=key,
        )

    def _at_psu(self, publisher: _Publisher, frame: bytes) -> None:
        decoded = decode(frame)
        output = publisher.output
        if self._config.send_secure_goose:
            self._check_signature(decoded, output.connector)
            keys = self._model.accepted_keys(DISPENSER_MAC, output.connector_no, self._calendar.now_ns)
            if not any(verify(decoded, key) for key in keys):
                return  # it has forgotten the key: it restarted
        publisher.is_accepted = True
        self._received(_message_of(output), decoded.header)

    def _check_signature(self, decoded: DecodedFrame, connector: int) -> None:
        """Signed with a key that this very connector was given, at whatever time."""
        if not any(verify(decoded, key) for _, key in self._keys.get(connector, ())):
            text = f"a message of connector {connector} is signed with a key that it was never given"
            raise InvariantViolated(SIGNATURES, text)

    def _plan_repeat(self, connector: int) -> None:
        def repeat() -> None:
            publisher = self._publishers.get(connector)
            if publisher is not None and publisher.is_accepted:
                output = publisher.output
                self._received(_message_of(output), _header(output.st_num, 9, output.t_ns))
            self._plan_repeat(connector)

        self._calendar.after(self._site.goose_repeat_s, repeat)

    # --- power unit to dispenser -----------------------------------------------------------------------------

    def reply(self, reply: ReplySent) -> None:
        """The power unit answers a placeholder request."""
        frame = self._encode_reply(reply, reply.key if self._site.psu_signs else None)
        self._captured.append(frame)
        self._network.take_frame(partial(self._at_dispenser, frame))

    def begin_forging(self, connector: int, how: str, for_s: float) -> None:
        """A forged reply now, and one to each placeholder request within a time."""
        self._forging[connector] = (self._calendar.now_ns + int(for_s * SECOND_NS), how)
        self._forge(connector, how)

    def _forge(self, connector: int, how: str) -> None:
        """A reply that says success, which no honest power unit sent."""
        connectors = self._config.connectors
        success = PowerRequestReply(
            connector_no=connectors[connector - 1].global_connector_number,
            requirement_type=int(RequirementType.MODULE_PLACEHOLDER_REQUEST),
            result=0,
            mode=2,
            voltage_bits=0,
            current_bits=0,
        )
        reply = ReplySent(DISPENSER_MAC, success, st_num=1, sq_num=0, key=None)
        match how:
            case "captured":
                frame = self._captured[0] if self._captured else b""
            case "unsigned":
                frame = self._encode_reply(reply, None)
            case "other_connector":
                others = [keys[0][1] for number, keys in sorted(self._keys.items()) if number != connector]
                frame = self._encode_reply(reply, others[0] if others else self._chance.bytes(48))
            case "other_type":  # an honest one, but to another request than the placeholder's
                charging = replace(success, requirement_type=int(RequirementType.CHARGING))
                keys = self._keys.get(connector)
                frame = self._encode_reply(replace(reply, message=charging), keys[0][1] if keys else None)
            case "garbage":
                frame = self._encode_reply(reply, None)[: self._chance.below(120)]
            case _:
                frame = self._encode_reply(reply, self._chance.bytes(48))
        self._network.soon(partial(self._at_dispenser, frame))

    def _encode_reply(self, reply: ReplySent, key: bytes | None) -> bytes:
        return encode(
            reply.message,
            _header(reply.st_num, reply.sq_num, self._utc_ns()),
            dst=reply.dst,
            src=PSU_MAC,
            vlan_id=0,
            vlan_priority=VLAN_PRIORITY,
            key=key,
        )

    def _at_dispenser(self, frame: bytes) -> None:
        self._thread.arrive(partial(self._decide, frame))

    def _decide(self, frame: bytes) -> None:
        """What the thread does with a frame. Keys are those of this moment, whenever the core gets it."""
        if self._process is None or self._acceptance is None:
            return
        try:
            accepted = self._acceptance.decide(frame, self._calendar.now_ns)
        except GooseError as error:
            if not self._drops:
                self._calendar.after(1.0, partial(self._thread.arrive, self._report_drops))
            self._drops[error.reason.value] = self._drops.get(error.reason.value, 0) + 1
        else:
            if self._config.verify_secure_goose:
                self._check_accepted(decode(frame), accepted.reply)
            self._thread.put(self._process, accepted.reply)

    def _check_accepted(self, decoded: DecodedFrame, reply: PowerRequestReplyReceived) -> None:
        """Signed with a key that each of its connectors was given on the connection that stands, and it says
        which one that is."""
        session, connection = self._standing()
        if reply.connection != connection:
            text = f"a reply counts for connection {reply.connection}, and {connection} stands"
            raise InvariantViolated(VERIFICATION, text)
        for connector in reply.verified:
            keys = [key for written_in, key in self._keys.get(connector, ()) if written_in == session]
            if not session or not any(verify(decoded, key) for key in keys):
                text = (
                    f"a reply counts for connector {connector}, whose keys of this connection do not verify it"
                )
                raise InvariantViolated(VERIFICATION, text)

    def _report_drops(self) -> None:
        drops, self._drops = self._drops, {}
        if self._process is not None and drops:
            self._thread.put(self._process, GooseFramesDropped(counts=drops))


def _header(st_num: int, sq_num: int, utc_ns: int) -> GooseHeader:
    seconds, fraction = t_of_utc_ns(utc_ns)
    return GooseHeader(st_num=st_num, sq_num=sq_num, t_seconds=seconds, t_fraction=fraction)


def _message_of(output: PowerRequested | StopRequested) -> PowerRequest | StopRequest:
    if isinstance(output, StopRequested):
        return StopRequest(connector_no=output.connector_no, reason=output.reason)
    return PowerRequest(
        connector_no=output.connector_no,
        requirement_type=output.requirement_type,
        mode=output.mode,
        voltage_v=output.voltage_v,
        current_a=output.current_a,
    )
