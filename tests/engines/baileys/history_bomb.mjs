// A history that inflates to more than a part of it may hold: arguments NODE_MODULES FILE. The library
// inflates it inside a notification, or as it comes from a media server.
import assert from "node:assert/strict";
import { createReadStream, readFileSync } from "node:fs";
import { pipeline } from "node:stream/promises";
import { join } from "node:path";
import { boundInflation } from "../../../agent/engines/baileys/client/inflate.mjs";
import { createInflate } from "node:zlib";

const [modules, file] = process.argv.slice(2);
boundInflation();
const { downloadAndProcessHistorySyncNotification: read } = await import(join(modules, "baileys/lib/Utils/history.js"));
const { maxRSS: before } = process.resourceUsage();

await assert.rejects(read({ initialHistBootstrapInlinePayload: readFileSync(file) }, {}), /frame of more than 16 MiB/);
const chunks = [];
const inflater = createInflate();
inflater.on("data", (chunk) => chunks.push(chunk));
await assert.rejects(pipeline(createReadStream(file), inflater), /part of the history of more than 64 MiB/);
assert.ok(process.resourceUsage().maxRSS - before < 128 << 10);
