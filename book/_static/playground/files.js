/** Fetch files with progress, checked against the hashes that the book's build noted, and unpacked where packed. */

/**
 * The content of a file.
 *
 * @param {{ url: string, integrity?: string }} file
 * @param {(bytes: number) => void} onBytes told of each part that arrives
 * @returns {Promise<Uint8Array<ArrayBuffer>>}
 */
export async function fetchFile({ url, integrity }, onBytes = () => {}) {
  const response = await fetch(url, integrity ? { integrity } : {}).catch(() => null);
  if (!response?.ok) {
    throw new Error(await whyNot(url, response));
  }
  const parts = [];
  const reader = response.body.getReader();
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    parts.push(part.value);
    onBytes(part.value.length);
  }
  return unpacked(new Uint8Array(await new Blob(parts).arrayBuffer()));
}

/** A browser that refuses a file does not say why: it may be another one, or none, or out of reach. */
async function whyNot(url, response) {
  const answer = response ?? (await fetch(url, { method: "HEAD" }).catch(() => null));
  if (!answer) {
    return `The file ${url} could not be reached.`;
  }
  return answer.ok
    ? `The file ${url} is not the one that belongs here: its hash is another.`
    : `The file ${url} could not be fetched: the server answered ${answer.status}.`;
}

/** Bytes that begin like a gzip file are unpacked. Some servers do that on the way, so the name would not tell. */
async function unpacked(bytes) {
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) {
    return bytes;
  }
  if (typeof DecompressionStream === "undefined") {
    throw new Error("This browser cannot unpack gzip files (DecompressionStream is missing); a newer one can.");
  }
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
