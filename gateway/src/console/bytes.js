// Keys and values are bytes. Owns how they are typed and shown; knows nothing of requests.

const utf8 = new TextEncoder();
const strictUtf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** What was typed, as bytes. Throws an Error whose message says what is wrong. */
export function parse(typed, form) {
  if (form === "base64") return fromBase64(typed);
  if (form === "percent") return fromPercent(typed);
  return utf8.encode(typed);
}

function fromPercent(typed) {
  const wrong = typed.match(/%(?![0-9a-fA-F]{2}).{0,2}/);
  if (wrong) throw new Error(`“${wrong[0]}” is no byte: write two hexadecimal digits after each %, and % itself as %25.`);
  const parts = typed.split(/%([0-9a-fA-F]{2})/);
  const bytes = parts.flatMap((part, at) => (at % 2 ? [parseInt(part, 16)] : [...utf8.encode(part)]));
  return Uint8Array.from(bytes);
}

export function fromBase64(typed) {
  try {
    return Uint8Array.from(atob(typed.trim()), (c) => c.charCodeAt(0));
  } catch {
    throw new Error("That is not base64: letters, digits, + and /, padded with = to a multiple of four.");
  }
}

export function toBase64(bytes) {
  // In pieces: a call takes only so many arguments.
  let binary = "";
  for (let at = 0; at < bytes.length; at += 8192) {
    binary += String.fromCharCode(...bytes.subarray(at, at + 8192));
  }
  return btoa(binary);
}

/** The bytes as text, or null if they are not UTF-8. */
export function asText(bytes) {
  try {
    return strictUtf8.decode(bytes);
  } catch {
    return null;
  }
}

/** The bytes in a URL: all but unreserved characters escaped, and the slash unless `keepSlash`. */
export function toPercent(bytes, keepSlash = false) {
  let out = "";
  for (const byte of bytes) {
    const c = String.fromCharCode(byte);
    out += /[A-Za-z0-9_.~-]/.test(c) || (keepSlash && c === "/") ? c : `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  }
  return out;
}

/** Bytes to read: as text with signs for what has no shape, or in hexadecimal. */
export function preview(bytes, cut = false) {
  let text = asText(bytes);
  // A cut may fall into the middle of a character; that is no reason to call it binary.
  for (let end = bytes.length - 1; text === null && cut && end > bytes.length - 4 && end > 0; end -= 1) {
    text = asText(bytes.subarray(0, end));
  }
  // Text has no control characters but blanks, and nothing that turns the direction of the rest.
  if (text !== null && !/[\0-\x08\x0b\x0c\x0e-\x1f\x7f]/.test(text)) {
    return { text: visible(text), binary: false };
  }
  const shown = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0"));
  return { text: shown.join(" "), binary: true };
}

/** A key on one line. */
export function showKey(bytes) {
  const text = asText(bytes);
  return text === null || /[\0-\x1f\x7f]/.test(text) ? toPercent(bytes, true) : visible(text);
}

const visible = (text) => text.replace(/[\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, (c) => `⟨U+${c.codePointAt(0).toString(16).toUpperCase()}⟩`);
