// The late bot in a Node process that its program starts, as runners of TypeScript do.
import { fork } from "node:child_process";
import { fileURLToPath } from "node:url";

fork(fileURLToPath(new URL("./late.mjs", import.meta.url))).on("exit", (code) => process.exit(code ?? 1));
