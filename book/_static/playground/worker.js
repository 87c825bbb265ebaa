/**
 * Where the networks run: a worker, so that the page never freezes.
 *
 * It is sent `{ id, kind, … }` and answers with messages of the same id: `progress` and `state` on the way, then `done`
 * or `error`. ONNX Runtime Web computes on one thread, which needs no special headers from the server.
 */

import { PIXELS, SIDE } from "./fields.js";
import { fetchFile } from "./files.js";
import { integrate } from "./rungekutta.js";

let runtime = null;
const sessions = new Map();
const running = new Set();
const stopped = new Set();

const tasks = { load, run };

self.addEventListener("message", async ({ data }) => {
  const { id, kind } = data;
  if (kind === "stop") {
    if (running.has(data.target)) {
      stopped.add(data.target);
    }
    return;
  }
  running.add(id);
  const tell = (message, transfer) => self.postMessage({ id, ...message }, transfer ?? []);
  try {
    tell({ kind: "done", ...(await tasks[kind](data, tell)) });
  } catch (error) {
    tell({ kind: "error", message: error.message ?? String(error) });
  } finally {
    running.delete(id);
    stopped.delete(id);
  }
});

/** Fetch the runtime and the networks that are not there yet. */
async function load({ files, networks }, tell) {
  let loaded = 0;
  const onBytes = (bytes) => {
    loaded += bytes;
    tell({ kind: "progress", loaded });
  };
  if (typeof WebAssembly === "undefined") {
    throw new Error("This browser has no WebAssembly, or it is switched off.");
  }
  const wanted = networks.filter((name) => !sessions.has(name));
  const [started, ...contents] = await Promise.all([
    runtime ?? startRuntime(files, onBytes),
    ...wanted.map((name) => fetchFile(files.networks[name], onBytes)),
  ]);
  runtime = started;
  for (const [i, name] of wanted.entries()) {
    const options = { executionProviders: ["wasm"], graphOptimizationLevel: "all" };
    sessions.set(name, await runtime.InferenceSession.create(contents[i], options));
  }
  return {};
}

async function startRuntime(files, onBytes) {
  const [script, wasm] = await Promise.all([fetchFile(files.script, onBytes), fetchFile(files.wasm, onBytes)]);
  const address = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
  const ort = await import(address);
  URL.revokeObjectURL(address);
  ort.env.wasm.wasmBinary = wasm.buffer;
  ort.env.wasm.numThreads = 1;
  ort.env.logLevel = "error";
  return ort;
}

/** Carry one noise through several networks side by side, step by step, and send every state. */
async function run({ id, networks, x, grid, tableau }, tell) {
  const runs = networks.map((network) => {
    const clock = { spent: 0, last: 0 };
    return { network, clock, states: integrate(velocityOf(network, clock), x, grid, tableau) };
  });
  for (let k = 0; k < grid.length; k += 1) {
    for (const { network, clock, states } of runs) {
      await letMessagesIn();
      if (stopped.has(id)) {
        return { stopped: true };
      }
      const { value } = await states.next();
      // The last evaluation is for the picture of the velocity; the state itself did not need it.
      const milliseconds = clock.spent - clock.last;
      tell({ kind: "state", network, ...value, milliseconds });
    }
  }
  return { stopped: false };
}

function velocityOf(network, clock) {
  const session = sessions.get(network);
  if (!session) {
    throw new Error(`The network ${network} is not loaded.`);
  }
  return async (x, t) => {
    const batch = x.length / PIXELS;
    const inputs = {
      x: new runtime.Tensor("float32", x, [batch, 1, SIDE, SIDE]),
      t: new runtime.Tensor("float32", new Float32Array(batch).fill(t), [batch]),
    };
    const begin = performance.now();
    const { velocity } = await session.run(inputs);
    clock.last = performance.now() - begin;
    clock.spent += clock.last;
    return velocity.data;
  };
}

/** A turn of the event loop, so that a stop is heard between two evaluations. */
function letMessagesIn() {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}
