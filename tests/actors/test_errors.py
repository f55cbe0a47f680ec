"""The errors towards EVerest: every row of behaviour.md §3 that is not tested where it arises."""

import pytest
from core_harness import Core, make_config, only
from fusioncharger.messages import inputs, outputs
from fusioncharger.messages.registers import RegisterMap
from hypothesis import given
from hypothesis import strategies as st

ALARMS = [register for register in RegisterMap(1).registers if register.alarm is not None]


def raised(made: list[outputs.AnyOutput], connector: int = 1) -> list[tuple[str, str, str]]:
    return [
        (error.error_type, error.sub_type, error.message)
        for error in only(made, outputs.ErrorRaised)
        if error.connector == connector
    ]


def cleared(made: list[outputs.AnyOutput], connector: int = 1) -> list[tuple[str, str]]:
    return [
        (error.error_type, error.sub_type)
        for error in only(made, outputs.ErrorCleared)
        if error.connector == connector
    ]


def test_three_are_raised_at_start_and_cleared_once_each() -> None:
    core = Core(make_config(2)).start()
    for connector in (1, 2):
        assert [(kind, sub_type) for kind, sub_type, _ in raised(core.history, connector)] == [
            ("CommunicationFault", ""),
            ("HardwareFault", "psu_not_running"),
            ("HardwareFault", "capabilities_not_received"),
        ]
    assert raised(core.history)[0][2] == "Communication error"
    core.connect()
    core.write("psu_running_mode", 1)
    core.rate(1, max_v=900)
    for connector in (1, 2):
        assert sorted(cleared(core.history, connector)) == [
            ("CommunicationFault", ""),
            ("HardwareFault", "capabilities_not_received"),
            ("HardwareFault", "psu_not_running"),
        ]


@pytest.mark.parametrize("mode", [0, 2, 3, 4, 99])
def test_a_psu_that_does_not_run(mode: int) -> None:
    core = Core().ready()
    assert cleared(core.write("psu_running_mode", 1)) == [("HardwareFault", "psu_not_running")]
    assert [error[:2] for error in raised(core.write("psu_running_mode", mode))] == [
        ("HardwareFault", "psu_not_running")
    ]
    assert raised(core.write("psu_running_mode", mode ^ 6)) == []


@pytest.mark.parametrize("register", ALARMS, ids=lambda register: register.key)
def test_every_alarm_register_is_an_error_of_every_connector(register) -> None:  # type: ignore[no-untyped-def]
    core = Core(make_config(2)).ready()
    made = core.write(register.key, 1)
    for connector in (1, 2):
        ((kind, sub_type, message),) = raised(made, connector)
        assert (kind, sub_type) == ("VendorWarning", register.key)
        category, name = register.key.split("/")
        shown = "AlarmState: ALARM"
        if register.alarm.is_flags:
            shown = "Flags: 0x0001" if name == "ModbusTcpCertificate" else "Flags: 0x00000001"
        assert message == f"Category: {category}; Subcategory: {name}; {shown}"
    assert raised(core.write(register.key, 1)) == []
    made = core.write(register.key, 0)
    assert cleared(made, 1) == cleared(made, 2) == [("VendorWarning", register.key)]


def test_flags_that_change_are_cleared_and_raised_again() -> None:
    core = Core().ready()
    core.write("AcBranch/AcBranch1", 0x80000001)
    made = core.write("AcBranch/AcBranch1", 0x00000003)
    assert [
        type(output) for output in made if isinstance(output, outputs.ErrorCleared | outputs.ErrorRaised)
    ] == [
        outputs.ErrorCleared,
        outputs.ErrorRaised,
    ]
    assert raised(made)[0][2].endswith("Flags: 0x00000003")


def test_a_value_that_is_no_alarm_state_is_unknown() -> None:
    core = Core().ready()
    assert raised(core.write("PowerUnit/Water", 7))[0][2].endswith("AlarmState: UNKNOWN")


def test_one_write_over_several_alarms() -> None:
    core = Core().ready()
    made = core.write_words(0x4000, (1,) * 5)
    assert [sub_type for _, sub_type, _ in raised(made)] == [
        "PowerUnit/HighVoltageDoorStatusSensor",
        "PowerUnit/DoorStatusSensor",
        "PowerUnit/Water",
        "PowerUnit/Smoke",
        "PowerUnit/Epo",
    ]


def test_the_link_failing_clears_psu_alarms_and_raises_the_three() -> None:
    core = Core().ready()
    core.write("psu_running_mode", 1)
    core.write("PowerUnit/Water", 1)
    made = core.disconnect()
    assert cleared(made) == [("VendorWarning", "PowerUnit/Water")]
    assert [error[:2] for error in raised(made)] == [
        ("CommunicationFault", ""),
        ("HardwareFault", "psu_not_running"),
        ("HardwareFault", "capabilities_not_received"),
    ]
    core.advance(0.02)
    core.connect()
    assert [error[:2] for error in raised(core.write("PowerUnit/Water", 1))] == [
        ("VendorWarning", "PowerUnit/Water")
    ]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("alarm"), st.integers(0x4000, 0x40F0), st.integers(0, 3)),
        st.tuples(st.just("mode"), st.just(0), st.integers(0, 4)),
        st.tuples(st.just("rating"), st.just(0), st.sampled_from([0, 1000])),
        st.tuples(st.just("link"), st.just(0), st.just(0)),
        st.tuples(st.just("heartbeat"), st.just(0), st.just(0)),
    ),
    max_size=30,
)


@given(steps=STEPS)
def test_every_raise_has_one_clear_and_everests_view_is_what_was_synchronised(
    steps: list[tuple[str, int, int]],
) -> None:
    core = Core().start().connect(rated=False)
    standing: set[tuple[str, str]] = set()
    seen = 0
    for beat, (what, address, value) in enumerate([("nothing", 0, 0), *steps]):
        is_synchronising = False
        match what:
            case "alarm":
                core.write_words(address, (value,))
            case "mode":
                core.write("psu_running_mode", value)
            case "rating":
                core.rate(max_v=value)
            case "link":
                core.disconnect()
                core.advance(1.1)
                core.connect(rated=False)
            case "heartbeat":
                is_synchronising = True  # the first one, and one after a silence
                core.heartbeat(beat)
        for output in core.history[seen:]:
            if isinstance(output, outputs.ErrorRaised):
                key = (output.error_type, output.sub_type)
                assert is_synchronising or key not in standing
                standing.add(key)
            elif isinstance(output, outputs.ErrorCleared):
                key = (output.error_type, output.sub_type)
                assert is_synchronising or key in standing
                standing.discard(key)
        seen = len(core.history)
    assert ("CommunicationFault", "") not in standing
    # A synchronisation says the same as what the changes have added up to.
    core.feed(inputs.BrokerDisconnected(reason="gone"))
    core.feed(inputs.BrokerConnected(session_present=False))
    said = core.heartbeat(1000)
    assert {(error.error_type, error.sub_type) for error in only(said, outputs.ErrorRaised)} == standing
