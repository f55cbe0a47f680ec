/* What the file holds: facts, timeline, and the turns in compressed blocks, unpacked when they are wanted. */

const BLOCK_TURNS = 512;
const BLOCKS_KEPT = 24;
const DAY_US = 8.64e10;

function bytesOf(base64) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64); // browsers of 2025 and later
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let index = 0; index < text.length; index += 1) bytes[index] = text.charCodeAt(index);
  return bytes;
}

async function unpacked(base64) {
  const stream = new Blob([bytesOf(base64)]).stream().pipeThrough(new DecompressionStream('gzip'));
  return new Response(stream).text();
}

const Facts = {
  load() {
    Object.assign(Facts, JSON.parse($('facts').textContent));
    Facts.beginUs = Number(Facts.begin_us);
    Facts.endUs = Math.max(Facts.end_us, 1);
    Facts.days = Math.floor((Facts.beginUs + Facts.endUs) / DAY_US) - Math.floor(Facts.beginUs / DAY_US) + 1;
    document.documentElement.classList.toggle('days', Facts.days > 1);
  },
};

const Turns = {
  /* µs since the log's begin, by row. */
  at: new Float64Array(),
  types: [],
  inputs: [],
  spans: [],
  spanRows: [],
  kept: new Map(),
  get rows() { return Turns.at.length; },

  load(data) {
    let us = 0;
    Turns.at = Float64Array.from(data.at, (difference) => (us += difference));
    Turns.types = data.types;
    Turns.inputs = data.inputs;
    Turns.spans = data.spans;
    Turns.spanRows = data.spans.map(([first]) => first);
  },

  rowAt(us) { return Math.max(0, lastAtOrBefore(Turns.at, us)); },

  /* [turn number, id of the run] */
  name(row) {
    const span = Turns.spans[lastAtOrBefore(Turns.spanRows, row)];
    return [span[1] + row - span[0], span[2]];
  },

  /* The last row with that turn number, as `replay --at` understands it; -1: there is none. */
  rowOf(number) {
    for (let index = Turns.spans.length - 1; index >= 0; index -= 1) {
      const [first, begin] = Turns.spans[index];
      const next = index + 1 < Turns.spans.length ? Turns.spans[index + 1][0] : Turns.rows;
      if (number >= begin && number < begin + next - first) return first + number - begin;
    }
    return -1;
  },

  get blocks() { return Math.ceil(Turns.rows / BLOCK_TURNS); },

  /* The text of a block, as a promise; the blocks used last are kept. */
  block(index) {
    let found = Turns.kept.get(index);
    if (found) Turns.kept.delete(index);
    else found = unpacked($(`block-${index}`).textContent).then((text) => ({ text, lines: text.split('\n') }));
    Turns.kept.set(index, found);
    if (Turns.kept.size > BLOCKS_KEPT) Turns.kept.delete(Turns.kept.keys().next().value);
    return found;
  },

  /* For searching: not kept. */
  async text(index) {
    const kept = Turns.kept.get(index);
    return kept ? (await kept).text : unpacked($(`block-${index}`).textContent);
  },

  async turn(row) {
    const { lines } = await Turns.block(Math.floor(row / BLOCK_TURNS));
    return JSON.parse(lines[row % BLOCK_TURNS], exact);
  },
};

/* JSON.parse's reviver: integers that a double cannot hold stay as they are written. */
function exact(key, value, context) {
  if (typeof value !== 'number' || Number.isSafeInteger(value) || !context) return value;
  return /^-?\d+$/.test(context.source) ? BigInt(context.source) : value;
}

/* A value as text; bytes, which JSON has as base64, as hex. */
function valueText(value, isBytes = false) {
  if (isBytes && typeof value === 'string') {
    try {
      return `0x${Array.from(atob(value), (character) => pad(character.charCodeAt(0).toString(16))).join('')}`;
    } catch {
      return value;
    }
  }
  if (typeof value === 'string') return value;
  if (typeof value === 'bigint') return String(value);
  return JSON.stringify(value, (_, inner) => (typeof inner === 'bigint' ? String(inner) : inner));
}

/* A register's address as the protocol's tables have it, with its name. */
function addressText(address) {
  const hex = `0x${pad(address.toString(16).toUpperCase(), 4)}`;
  const name = Facts.registers[address];
  return name ? `${hex} ${name}` : hex;
}

/* A report's segments: a line for each, by its first register. */
function segmentTexts(segments) {
  return segments.map(({ address, words }) => `${addressText(address)}: ${words.join(' ')}`).join('\n');
}

/* [name, text] of a message's fields, without its tag and time. */
function fieldTexts(message) {
  const bytes = Facts.bytes_fields[message.type] ?? [];
  return Object.entries(message)
    .filter(([name]) => name !== 'type' && name !== 'at_ns')
    .map(([name, value]) => {
      if (name === 'address') return [name, addressText(value)];
      if (name === 'segments') return [name, segmentTexts(value)];
      return [name, valueText(value, bytes.includes(name))];
    });
}
