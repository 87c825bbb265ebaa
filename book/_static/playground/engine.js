/**
 * The worker as the page sees it: load, run, stop, each a promise.
 *
 * One engine serves all parts of a page. A new run stops the one before it. A `loaded` event follows each load.
 */

import { fetchFile } from "./files.js";

export class Engine extends EventTarget {
  #worker = null;
  #files = null;
  #next = 0;
  #waiting = new Map(); // id → { resolve, reject, onMessage }
  #running = null;
  #loading = Promise.resolve();

  /** @param {URL | string} manifest address of playground.json, written by the book's build */
  constructor(manifest) {
    super();
    this.manifest = new URL(manifest);
    this.loaded = new Set();
  }

  /** The content of playground.json, with complete addresses. */
  async files() {
    if (!this.#files) {
      const files = JSON.parse(new TextDecoder().decode(await fetchFile({ url: this.manifest.href })));
      for (const file of [files.script, files.wasm, ...Object.values(files.networks)]) {
        file.url = new URL(file.url, this.manifest).href;
      }
      this.#files = files;
    }
    return this.#files;
  }

  /** Bytes still to be fetched before these networks can run. */
  async missingBytes(networks) {
    const { script, wasm, networks: known } = await this.files();
    const wanted = networks.filter((name) => !this.loaded.has(name)).map((name) => known[name]);
    return [...(this.loaded.size ? [] : [script, wasm]), ...wanted].reduce((sum, file) => sum + file.bytes, 0);
  }

  /**
   * Fetch what these networks need and is not there yet.
   *
   * @param {string[]} networks
   * @param {(share: number) => void} onProgress called with the share that has arrived, 0 to 1
   */
  load(networks, onProgress = () => {}) {
    const load = async () => {
      const total = await this.missingBytes(networks);
      if (total > 0) {
        const onMessage = ({ loaded }) => onProgress(Math.min(1, loaded / total));
        await this.#post({ kind: "load", files: await this.files(), networks }, onMessage).answer;
        for (const name of networks) {
          this.loaded.add(name);
        }
        this.dispatchEvent(new Event("loaded"));
      }
    };
    this.#loading = this.#loading.then(load, load); // one after the other, so that nothing is fetched twice
    return this.#loading;
  }

  /**
   * Carry noise through one or several networks.
   *
   * @param {{ networks: string[], x: Float32Array, grid: number[], tableau: object }} request x: images of 28 × 28 pixels,
   *   one after the other
   * @param {(state: object) => void} onState called with every state: network, k, t, x, velocity, nfe, milliseconds
   * @returns {Promise<{ stopped: boolean }>}
   */
  async run({ networks, x, grid, tableau }, onState) {
    this.stop();
    const { id, answer } = this.#post({ kind: "run", networks, x, grid, tableau }, (state) => {
      if (this.#running === id) {
        onState(state);
      }
    });
    this.#running = id;
    try {
      const { stopped } = await answer;
      return { stopped: stopped || this.#running !== id };
    } finally {
      if (this.#running === id) {
        this.#running = null;
      }
    }
  }

  /** Stop the run under way, if there is one. None of its states follows this call. */
  stop() {
    if (this.#running !== null) {
      this.#worker.postMessage({ kind: "stop", target: this.#running });
      this.#running = null;
    }
  }

  #post(message, onMessage) {
    this.#worker ??= this.#start();
    const id = this.#next;
    this.#next += 1;
    const answer = new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject, onMessage });
    });
    this.#worker.postMessage({ id, ...message });
    return { id, answer };
  }

  #start() {
    const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
    worker.addEventListener("message", ({ data }) => {
      const asked = this.#waiting.get(data.id);
      if (!asked) {
        return; // progress of something that has failed meanwhile
      }
      if (data.kind === "done" || data.kind === "error") {
        this.#waiting.delete(data.id);
      }
      if (data.kind === "done") {
        asked.resolve(data);
      } else if (data.kind === "error") {
        asked.reject(new Error(data.message));
      } else {
        asked.onMessage(data);
      }
    });
    worker.addEventListener("error", (event) => {
      const reason = event.message || `${new URL("worker.js", import.meta.url)} could not be loaded`;
      for (const { reject } of this.#waiting.values()) {
        reject(new Error(`The worker that runs the networks failed: ${reason}.`));
      }
      this.#waiting.clear();
      this.#worker = null;
      this.#running = null;
      this.loaded.clear();
      this.dispatchEvent(new Event("loaded")); // what is loaded has changed
    });
    return worker;
  }
}
