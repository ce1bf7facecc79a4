// A request as a line for a POSIX shell. Pure; what goes in is bytes, what comes out is safe to
// paste: everything that is not plain text is escaped or encoded.

import { asText, toBase64, toPercent } from "./bytes.js";
import { query, token } from "./api.js";

/** Longer values would bury the command. */
const INLINE_MAX = 2048;

export function curl({ method, key, value, contentType, parameters, origin }) {
  const path = toPercent(key, true);
  const dots = path.split("/").some((part) => part === "." || part === "..");
  const words = ["curl"];
  // Without this curl resolves dots as if the key were a path.
  if (dots) words.push("--path-as-is");
  if (method !== "GET") words.push("-X", method);
  if (token()) words.push("-H", '"Authorization: Bearer $DKVS_TOKEN"');
  let feed = "";
  if (method === "PUT") {
    const text = asText(value);
    words.push("-H", quoted(`Content-Type: ${contentType}`));
    if (value.length > INLINE_MAX) {
      words.push("--data-binary", "@value.bin");
    } else if (text !== null && !/[\0-\x08\x0b-\x1f\x7f]/.test(text)) {
      words.push("--data-raw", quoted(text));
    } else {
      feed = `printf %s ${quoted(toBase64(value))} | base64 -d | `;
      words.push("--data-binary", "@-");
    }
  }
  words.push(quoted(`${origin}/kv/${path}${query(parameters)}`));
  return feed + words.join(" ");
}

/** In single quotes, in which a shell takes everything for what it is but the quote itself. */
export const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
