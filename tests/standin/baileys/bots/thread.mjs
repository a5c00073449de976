// The plain bot in a thread of its program.
import { Worker } from "node:worker_threads";

new Worker(new URL("./plain.mjs", import.meta.url));
