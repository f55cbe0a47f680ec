// Reads an MCAP file with Foxglove's own reader, and says as JSON what is in it.
//
//   node read_mcap.mjs stream|indexed FILE
//
// stream: from the beginning, as far as it goes, which any file allows; indexed: through the index at the end.
// Every schema is compiled, and every payload parsed and validated against its own.

import { readFileSync } from "node:fs";
import { open } from "node:fs/promises";

import { McapIndexedReader, McapStreamReader } from "@mcap/core";
import { Ajv2020 } from "ajv/dist/2020.js";
import { decompress } from "fzstd";

const decompressHandlers = { zstd: (buffer, size) => decompress(buffer, new Uint8Array(Number(size))) };
// strict off: a schema may use keywords that only describe (contentEncoding).
const ajv = new Ajv2020({ strict: false, allErrors: true });
const text = new TextDecoder("utf-8", { fatal: true });

const found = { profile: null, channels: {}, sequences: [], metadata: {}, chunks: 0, footer: false, error: null };
const schemas = new Map();
const channels = new Map();

function addSchema(schema) {
  if (schema.encoding !== "jsonschema") throw new Error(`schema ${schema.name}: encoding ${schema.encoding}`);
  if (!schemas.has(schema.id)) schemas.set(schema.id, ajv.compile(JSON.parse(text.decode(schema.data))));
}

function addChannel(channel) {
  if (channel.messageEncoding !== "json") throw new Error(`${channel.topic}: encoding ${channel.messageEncoding}`);
  channels.set(channel.id, channel);
}

function addMessage(message) {
  const channel = channels.get(message.channelId);
  const validate = schemas.get(channel.schemaId);
  const payload = JSON.parse(text.decode(message.data));
  if (!validate(payload)) {
    throw new Error(`${channel.topic}, turn ${message.sequence}: ${ajv.errorsText(validate.errors)}`);
  }
  found.channels[channel.topic] = (found.channels[channel.topic] ?? 0) + 1;
  found.sequences.push(message.sequence);
}

function addRecord(record) {
  switch (record.type) {
    case "Header": found.profile = record.profile; break;
    case "Schema": addSchema(record); break;
    case "Channel": addChannel(record); break;
    case "Message": addMessage(record); break;
    case "Chunk": found.chunks += 1; break;
    case "Metadata": found.metadata[record.name] = Object.fromEntries(record.metadata); break;
    case "Footer": found.footer = true; break;
  }
}

function readStream(path) {
  const reader = new McapStreamReader({ includeChunks: true, decompressHandlers });
  reader.append(readFileSync(path));
  for (let record; (record = reader.nextRecord()); ) addRecord(record);
  found.done = reader.done();
}

async function readIndexed(path) {
  const file = await open(path);
  const readable = {
    size: async () => BigInt((await file.stat()).size),
    read: async (offset, size) => {
      const buffer = new Uint8Array(Number(size));
      await file.read(buffer, 0, Number(size), Number(offset));
      return buffer;
    },
  };
  const reader = await McapIndexedReader.Initialize({ readable, decompressHandlers });
  found.profile = reader.header.profile;
  found.chunks = reader.chunkIndexes.length;
  found.statistics = reader.statistics ? Number(reader.statistics.messageCount) : null;
  for (const schema of reader.schemasById.values()) addSchema(schema);
  for (const channel of reader.channelsById.values()) addChannel(channel);
  for await (const message of reader.readMessages()) addMessage(message);
  for await (const record of reader.readMetadata()) addRecord(record);
  await file.close();
}

const [mode, path] = process.argv.slice(2);
try {
  if (mode === "indexed") await readIndexed(path);
  else readStream(path);
} catch (error) {
  found.error = String(error);
}
console.log(JSON.stringify(found));
