// The same bot in a program with hooks of its own, as those for TypeScript are.
import { register } from "node:module";

register("data:text/javascript,export const load = (url, context, next) => next(url, context)");
await import("./plain.mjs");
