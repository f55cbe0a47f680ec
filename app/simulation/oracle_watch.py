"""All that is watched of one connector, and the checks of a turn (behaviour.md §1, §3, §4)."""

from collections.abc import Sequence

from ...messages.config import Config
from ...messages.everest import Capabilities
from ...messages.outputs import CapabilitiesPublished, ErrorCleared, ErrorRaised, ModePublished
from ...messages.types import ConnectorPhase, Mode
from .oracle import F32_ULP, STOP, fail
from .oracle_errors import (
    ALLOCATION,
    ANY,
    COMMUNICATION,
    INTERNAL,
    JOURNAL,
    NO_CAPABILITIES,
    NOT_RUNNING,
    ErrorLedger,
    Key,
)
from .oracle_goose import GooseShadow, Message
from .oracle_link import Ratings
from .oracle_measured import MeasuredShadow
from .oracle_supervised import SupervisedShadow
from .oracle_table import CAR_DISCONNECTED, COMPLETED, RUNNING, ConnectorSeen

Said = ErrorRaised | ErrorCleared


class ConnectorWatch:
    """A connector's shadows, and what it said in this turn."""

    def __init__(self, number: int, config: Config, alarm_keys: Sequence[str]) -> None:
        self.number = number
        self.name = f"connector/{number}"
        settings = config.connectors[number - 1]
        self._limit_a, self._limit_w = settings.max_export_current_A, settings.max_export_power_W
        self.shadow = SupervisedShadow(number, config)
        self.goose = GooseShadow(self.shadow, signs=config.send_secure_goose)
        self.measured = MeasuredShadow(self.shadow, config)
        self.ledger = ErrorLedger(number, alarm_keys)
        self.messages: list[Message] = []
        self.said: list[Said] = []
        self.modes: list[ModePublished] = []
        self.told: list[CapabilitiesPublished] = []
        self.logged: list[str] = []
        self.seen: object = None
        """The driver's state after the last turn."""
        self.restart()

    def restart(self) -> None:
        """A new process."""
        self.shadow.restart()
        self.goose.restart()
        self.ledger.restart()
        self.measured.restart()
        self.is_dirty = True
        self.mode_due = True
        self.must_synchronise = self.may_synchronise = self.is_broker_new = False
        self._mode = Mode.OFF
        self.capabilities = self._capabilities((0.0, 0.0, 0.0, 0.0, 0.0))
        self._capabilities_told: Capabilities | None = None
        self.shown = (0, 0, False)
        self.checked_ns = 0
        """When it said that it is there (communication_check)."""

    def rated(self, ratings: Ratings) -> None:
        """The PSU's ratings changed."""
        self.capabilities = told = self._capabilities(ratings)
        self.shadow.rated(
            (
                told.max_export_voltage_V,
                told.min_export_voltage_V,
                told.max_export_current_A,
                told.min_export_current_A,
            )
        )
        self.is_dirty = True

    def _capabilities(self, ratings: Ratings) -> Capabilities:
        max_v, min_v, max_a, min_a, power_kw = ratings
        return Capabilities(
            bidirectional=False,
            max_import_voltage_V=0.0,
            min_import_voltage_V=0.0,
            max_import_current_A=0.0,
            min_import_current_A=0.0,
            max_import_power_W=0.0,
            current_regulation_tolerance_A=1.0,
            peak_current_ripple_A=0.5,
            conversion_efficiency_import=0.85,
            conversion_efficiency_export=0.9,
            max_export_voltage_V=max_v,
            min_export_voltage_V=min_v,
            max_export_current_A=min(max_a, self._limit_a),
            min_export_current_A=min_a,
            max_export_power_W=min(power_kw * 1000, self._limit_w),
            nominal_max_export_current_A=self._limit_a,
            nominal_max_export_power_W=self._limit_w,
        )

    # --- the checks of a turn --------------------------------------------------------------------------------

    def check_state(self, seen: ConnectorSeen, now_ns: int) -> None:
        """The driver's state is the shadow's; what it did by timers is taken over first."""
        shadow = self.shadow
        before = (shadow.phase, shadow.mode_phase, shadow.setpoint, shadow.resume_overdue)
        shadow.observe(seen, now_ns)
        if before != (shadow.phase, shadow.mode_phase, shadow.setpoint, shadow.resume_overdue):
            self.is_dirty = True
        if shadow.stopped:
            return
        if seen.phase is not shadow.phase:
            fail("fsm", f"{self.name} is in {seen.phase}, has to be in {shadow.phase}")
        if seen.mode_phase is not shadow.mode_phase:
            fail("mode_phase", f"{self.name}: {seen.mode_phase}, has to be {shadow.mode_phase}")
        setpoint = seen.setpoint and (seen.setpoint.voltage_v, seen.setpoint.current_a)
        if setpoint != shadow.setpoint:
            fail("setpoint", f"{self.name}: {setpoint}, has to be {shadow.setpoint}")
        if shadow.phase is RUNNING and not self.goose.key_connection:
            fail("running_without_key", self.name)

    def check_outputs(self, wanted: dict[Key, str], utc_ns: int) -> None:
        """What the connector said in this turn."""
        shadow = self.shadow
        self.goose.check(self.messages, utc_ns)
        self._check_mode()
        if not shadow.stopped:
            self._check_capabilities()
            self._check_errors(wanted)
        if shadow.log_due and not self.logged:
            fail("not_logged", f"{self.name}: {shadow.log_due}")
        shadow.log_due, shadow.has_forgotten = "", False
        self.is_dirty = self.mode_due = False
        self.must_synchronise = self.may_synchronise = self.is_broker_new = False
        for said in (self.messages, self.said, self.modes, self.told):
            said.clear()

    def _check_mode(self) -> None:
        mode = Mode.EXPORT if self.shadow.exports and not self.shadow.stopped else Mode.OFF
        if any(published.mode is not mode for published in self.modes):
            fail("wrong_mode", f"{self.name}: {self.modes}, {mode} is in effect")
        if not self.modes and (self.mode_due or mode is not self._mode):
            fail("mode_not_published", f"{self.name}: {mode}")
        occasions = (
            self.mode_due or mode is not self._mode or self.shadow.has_forgotten
        ) + self._synchronisations()
        if len(self.modes) > occasions:
            fail("mode_repeated", f"{self.name}: {self.modes}")
        self._mode = mode

    def _synchronisations(self) -> int:
        """How often everything may be told in this turn, whether it is new or not."""
        return int(self.must_synchronise or self.may_synchronise) + self.is_broker_new

    def _check_capabilities(self) -> None:
        if self.told:
            is_new = self.told[-1].capabilities != self._capabilities_told
            if len(self.told) > is_new + self._synchronisations():
                fail("capabilities_repeated", f"{self.name}: {self.told}")
            self._capabilities_told = self.told[-1].capabilities
        if not _equal(self._capabilities_told, self.capabilities):
            fail("capabilities", f"{self.name}: {self._capabilities_told}, has to be {self.capabilities}")

    def _check_errors(self, wanted: dict[Key, str]) -> None:
        if self.must_synchronise and not (self.told and self.modes):
            fail("not_synchronised", f"{self.name}: mode or capabilities")
        if self.must_synchronise or (self.may_synchronise and self.told):
            self.ledger.synchronise(self.said)
            self.shadow.sync_due = False
        else:
            self.ledger.take(self.said)
        self.ledger.compare(wanted)

    def wanted_errors(self, alarms: dict[Key, str], *, ready: bool, runs: bool, journal: str) -> dict[Key, str]:
        """The errors that have to stand (behaviour.md §3)."""
        wanted = dict(alarms)
        shadow, able = self.shadow, self.capabilities
        if not ready or (shadow.resuming and not shadow.resume_overdue):
            wanted[COMMUNICATION] = "Communication error"
        if not runs:
            wanted[NOT_RUNNING] = ANY
        if 0 in (able.max_export_voltage_V, able.max_export_current_A, able.max_export_power_W):
            wanted[NO_CAPABILITIES] = ANY
        if shadow.allocation_failed:
            wanted[ALLOCATION] = ANY
        if shadow.internal_error:
            wanted[INTERNAL] = shadow.internal_error
        if journal:
            wanted[JOURNAL] = journal
        return wanted

    # --- liveness --------------------------------------------------------------------------------------------

    def check_settled(self) -> None:
        """It does what EVerest asked for last."""
        shadow = self.shadow
        resting: tuple[ConnectorPhase, ...] = (CAR_DISCONNECTED, COMPLETED, RUNNING)
        wanted = (RUNNING,) if shadow.exports else resting
        if shadow.phase not in wanted:
            fail("not_settled", f"{self.name} is still in {shadow.phase}, {shadow.mode_phase}")
        # Completed: a key that a long outage has taken comes again with the next Export only.
        if not self.goose.can_send and shadow.phase is RUNNING:
            fail("not_settled", f"{self.name} has no MAC or no key")
        content = shadow.content() if self.goose.can_send else STOP
        if self.goose.issued != content and self.goose.can_send:
            fail("not_settled", f"{self.name} sends {self.goose.issued}, not {content}")
        if COMMUNICATION in self.ledger.told:
            fail("not_settled", f"{self.name}: CommunicationFault stands")


def _equal(told: Capabilities | None, wanted: Capabilities) -> bool:
    """Whether capabilities are the same; an f32 may be told as its shortest decimal, and
    a least current above the highest as that."""
    if told is None or told == wanted:
        return told is not None
    for name in Capabilities.__struct_fields__:
        said, due = getattr(told, name), getattr(wanted, name)
        is_capped = name == "min_export_current_A" and told.max_export_current_A <= said < due
        if abs(said - due) > F32_ULP * abs(due) + 1e-35 and not is_capped:
            return False
    return True
