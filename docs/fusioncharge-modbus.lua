-- Wireshark dissector for Modbus function 0x41, the unsolicited report of a FusionCharge dispenser.
--
--   wireshark -X lua_script:docs/fusioncharge-modbus.lua FILE
--   or put it into the folder that Wireshark shows under Help, About, Folders, Personal Lua Plugins
--
-- A PDU after its function code (all integers big-endian):
--
--   91 | bytes after it | RR | N  | N devices: location | segments | segments: address | count | registers
--   u8 | u16            | u8 | u16|            u16        u16                  u16       u16     count x u16
--
-- RR bit 7: response required. The response to it, if one was required: 91 0001 00 SS, SS = 00 success.
-- It works after Wireshark's own Modbus dissector and adds a tree of its own, whatever port is used.

local report = Proto("fusioncharge", "FusionCharge unsolicited report")

local f = {
  subfunction = ProtoField.uint8("fusioncharge.subfunction", "Sub-function", base.HEX),
  length = ProtoField.uint16("fusioncharge.length", "Bytes after it", base.DEC),
  response_required = ProtoField.bool("fusioncharge.response_required", "Response required", 8, nil, 0x80),
  devices = ProtoField.uint16("fusioncharge.devices", "Devices", base.DEC),
  location = ProtoField.uint16("fusioncharge.location", "Location", base.HEX),
  segments = ProtoField.uint16("fusioncharge.segments", "Segments", base.DEC),
  address = ProtoField.uint16("fusioncharge.address", "Address", base.HEX),
  count = ProtoField.uint16("fusioncharge.count", "Registers", base.DEC),
  register = ProtoField.uint16("fusioncharge.register", "Register", base.HEX),
  value = ProtoField.uint16("fusioncharge.value", "Value", base.DEC),
  status = ProtoField.uint8("fusioncharge.status", "Status", base.DEC, { [0] = "success" }),
}
report.fields = f

local malformed = ProtoExpert.new(
  "fusioncharge.malformed", "Not a report as protocol.md describes it", expert.group.MALFORMED, expert.severity.ERROR)
report.experts = { malformed }

local function_code = Field.new("modbus.func_code")

-- Registers of a report, by address without the connector's offset.
local NAMES = {
  [0x1024] = "time_sync (high)", [0x1025] = "time_sync (low)",
  [0x110B] = "working_status", [0x110D] = "connection_status",
  [0x1154] = "contactor_status", [0x1156] = "electronic_lock_status", [0x117E] = "charging_event",
  [0x3001] = "door_status_alarm", [0x3002] = "water_alarm", [0x3003] = "epo_alarm", [0x3004] = "tilt_alarm",
  [0x3105] = "dc_output_contactor_fault", [0x3115] = "inverse_connection_dispenser_inlet_cable",
}
local OFFSETS = { 0x0000, 0x0C00, 0x0D00, 0x0E00 }
local DISPENSER = { [0x1024] = true, [0x1025] = true, [0x3001] = true, [0x3002] = true, [0x3003] = true, [0x3004] = true }

local VALUES = {
  working_status = {
    [0] = "STANDBY", [1] = "STANDBY_WITH_CONNECTOR_INSERTED", [3] = "CHARGING", [4] = "CHARGING_COMPLETE",
    [5] = "FAULT", [7] = "DISPENSER_UPGRADE", [8] = "CHARGING_STARTING" },
  connection_status = { [0] = "NOT_CONNECTED", [1] = "SEMI_CONNECTED", [2] = "FULL_CONNECTED" },
  contactor_status = { [0] = "OFF", [1] = "ON" },
  electronic_lock_status = { [0] = "UNLOCKED", [1] = "LOCKED" },
  charging_event = { [0] = "START_TO_STOP", [1] = "STOP_TO_START" },
}

-- Connector (nil for the dispenser's own) and name of a register; nil if there is none.
local function named(address)
  if DISPENSER[address] then return nil, NAMES[address] end
  for connector, offset in ipairs(OFFSETS) do
    local name = NAMES[address - offset]
    if name and not DISPENSER[address - offset] then return connector, name end
  end
  return nil, nil
end

local function add_register(tree, address, range)
  local connector, name = named(address)
  local item = tree:add(f.value, range)
  local value = range:uint()
  local text = string.format("0x%04X", address)
  if name then
    text = text .. " " .. (connector and ("connector " .. connector .. " ") or "") .. name
  end
  local meaning = name and VALUES[name] and VALUES[name][value]
  item:set_text(text .. ": " .. value .. (meaning and (" " .. meaning) or ""))
  item:add(f.register, range, address):set_generated()
end

-- Reads on from a place; every read checks that the bytes are there.
local Reader = {}
Reader.__index = Reader

function Reader.new(range) return setmetatable({ range = range, at = 0 }, Reader) end

function Reader:take(count)
  if self.at + count > self.range:len() then error("the report ends too early", 0) end
  local part = self.range(self.at, count)
  self.at = self.at + count
  return part
end

local function dissect_devices(reader, tree)
  tree:add(f.response_required, reader:take(1))
  local count = reader:take(2)
  tree:add(f.devices, count)
  for _ = 1, count:uint() do
    local location = reader:take(2)
    local device = tree:add(report, location, "Device")
    device:add(f.location, location)
    local segments = reader:take(2)
    device:add(f.segments, segments)
    for _ = 1, segments:uint() do
      local address, registers = reader:take(2), reader:take(2)
      local segment = device:add(report, address,
        string.format("Segment 0x%04X, %d registers", address:uint(), registers:uint()))
      segment:add(f.address, address)
      segment:add(f.count, registers)
      for index = 0, registers:uint() - 1 do
        add_register(segment, address:uint() + index, reader:take(2))
      end
    end
  end
  if reader.at ~= reader.range:len() then error("there are bytes after the last segment", 0) end
end

-- `range`: the PDU after its function code.
local function dissect(range, tree)
  local subtree = tree:add(report, range)
  local ok, why = pcall(function()
    local reader = Reader.new(range)
    subtree:add(f.subfunction, reader:take(1))
    local length = reader:take(2)
    subtree:add(f.length, length)
    if length:uint() ~= range:len() - 3 then error("its length is not the PDU's", 0) end
    if length:uint() == 2 then
      reader:take(1)
      subtree:add(f.status, reader:take(1))
      subtree:append_text(", response")
    else
      dissect_devices(reader, subtree)
    end
  end)
  if not ok then subtree:add_proto_expert_info(malformed, tostring(why)) end
end

function report.dissector(buffer, pinfo, tree)
  local found = false
  -- A TCP segment may hold several ADUs: each function code stands 7 bytes after its ADU's beginning.
  for _, info in ipairs({ function_code() }) do
    if info.value == 0x41 and info.source:len() >= info.offset + 1 then
      local bytes = info.source
      local length = bytes(info.offset - 3, 2):uint()
      dissect(bytes(info.offset + 1, length - 2), tree)
      found = true
    end
  end
  if found then pinfo.cols.info:append(" (FusionCharge report)") end
end

register_postdissector(report)
