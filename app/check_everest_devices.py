"""Which modules of EVerest's configuration are a connector's devices, and how they can be reached over MQTT.

Two places tell, and the second is the explicit one:

    <our module>.connections     what the driver measured with; for several connectors a list, whose order is
                                 taken for theirs
    <EvseManager>.connections    the devices of the connector whose powersupply_DC is ours
"""

from msgspec import Struct

from .check_everest_yaml import Mapping, Scalar


class Kind(Struct, frozen=True):
    """A kind of device."""

    key: str
    """In [[connectors]]."""
    title: str
    requirement: str
    """Its name in EvseManager's connections."""
    words: tuple[str, ...]
    """One of these stands in the name of a requirement for it."""

    @property
    def api_module(self) -> str:
        """The module by which EVerest takes such a device over MQTT."""
        return f"{self.key}_API"


BOARD = Kind("evse_board_support", "board", "bsp", ("board_support", "bsp"))
ISOLATION = Kind("isolation_monitor", "isolation monitor", "imd", ("isolation", "imd"))
OVER_VOLTAGE = Kind(
    "over_voltage_monitor",
    "over-voltage monitor",
    "over_voltage_monitor",
    ("over_voltage", "overvoltage", "ovm"),
)
METER = Kind("powermeter", "power meter", "powermeter_car_side", ("meter",))
KINDS = (BOARD, ISOLATION, OVER_VOLTAGE, METER)


class Device(Struct, frozen=True):
    """A module that is a device."""

    module_id: str
    module: str
    """What EVerest loads for it; "" if active_modules does not say."""


class Devices(Struct):
    """What was found for one connector."""

    found: dict[str, Device]
    """By Kind.key."""
    manager: str = ""
    """The EvseManager."""


def connections(modules: Mapping, module_id: str) -> dict[str, list[tuple[str, str]]]:
    """A module's connections: requirement → (module id, implementation id) in the file's order."""
    found: dict[str, list[tuple[str, str]]] = {}
    for requirement, targets in modules.mapping(module_id).mapping("connections").entries.items():
        for target in targets if isinstance(targets, list) else []:
            if isinstance(target, Mapping) and isinstance(target.entries.get("module_id"), Scalar):
                pair = (target.text("module_id"), target.text("implementation_id"))
                found.setdefault(requirement, []).append(pair)
    return found


def managers_of(modules: Mapping, module_id: str) -> dict[str, str]:
    """Implementation id of the module → the id of the EvseManager that draws its power there."""
    found: dict[str, str] = {}
    for manager in modules.entries:
        for target, implementation in connections(modules, manager).get("powersupply_DC", []):
            if target == module_id:
                found.setdefault(implementation, manager)
    return found


def consumer_of(modules: Mapping, manager: str) -> str:
    """The id of the evse_manager_consumer_API for an EvseManager; "" if there is none."""
    for candidate in modules.entries:
        if modules.mapping(candidate).text("module") == "evse_manager_consumer_API" and manager in [
            target for target, _ in connections(modules, candidate).get("evse_manager", [])
        ]:
            return candidate
    return ""


def error_history_of(modules: Mapping) -> str:
    """The id of an error_history_consumer_API; "" if there is none."""
    return next(
        (
            candidate
            for candidate in modules.entries
            if modules.mapping(candidate).text("module") == "error_history_consumer_API"
        ),
        "",
    )


def find_devices(
    modules: Mapping, module_id: str, implementations: list[str], notes: list[str]
) -> dict[str, Devices]:
    """The devices of each connector, by its implementation id. What is not clear goes to `notes`."""
    own = _own_devices(modules, module_id, notes)
    managers = managers_of(modules, module_id)
    found = {
        implementation: Devices({}, managers.get(implementation, "")) for implementation in implementations
    }
    for kind in KINDS:
        for place, (implementation, devices) in enumerate(found.items()):
            its_own = connections(modules, devices.manager).get(kind.requirement, [("", "")])[0][0]
            chosen = _choose(kind, own.get(kind.key, []), its_own, place, len(implementations))
            if chosen:
                devices.found[kind.key] = Device(chosen, modules.mapping(chosen).text("module"))
                if its_own and chosen != its_own:
                    notes.append(
                        f"{implementation}: {kind.title} {chosen}, from {module_id}'s connections; "
                        f"{devices.manager} uses {its_own}: which one is this connector's?"
                    )
            elif own.get(kind.key):
                notes.append(
                    f"{implementation}: {module_id} is connected to {', '.join(own[kind.key])}; which of these "
                    f"is this connector's {kind.title} cannot be told: set {kind.key}"
                )
            elif its_own:
                notes.append(
                    f"{implementation}: {devices.manager} has the {kind.title} {its_own}, but {module_id} did "
                    "not use it, so it is left out"
                )
    return found


def _choose(kind: Kind, own: list[str], of_manager: str, place: int, count: int) -> str:
    """The device's module id; "" if it is not clear, or there is none."""
    if of_manager in own:
        return of_manager
    if len(own) == count:
        return own[place]
    # A meter that the driver did not use is no reason to use one now: measurements would change.
    return "" if own or kind is METER else of_manager


def _own_devices(modules: Mapping, module_id: str, notes: list[str]) -> dict[str, list[str]]:
    """Kind.key → the module ids that the module itself is connected to."""
    own: dict[str, dict[str, None]] = {}
    for requirement, targets in connections(modules, module_id).items():
        name = requirement.lower()
        for target, _ in targets:
            module = modules.mapping(target).text("module")
            kind = next((kind for kind in KINDS if module == kind.api_module), None) or next(
                (kind for kind in KINDS if any(word in name for word in kind.words)), None
            )
            if kind is None:
                notes.append(f"connections.{requirement} of {module_id}, to {target}: not known here")
            else:
                own.setdefault(kind.key, {})[target] = None
    return {key: list(targets) for key, targets in own.items()}
