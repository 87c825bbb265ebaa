import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, test } from "node:test";
import { gzipSync } from "node:zlib";
import { duration, megabytes } from "../../book/_static/playground/elements.js";
import { fetchFile } from "../../book/_static/playground/files.js";

const CONTENT = Buffer.from("a network, or something as long as one ".repeat(1000));
let server;
let address;

before(async () => {
  server = createServer((request, response) => {
    if (request.url === "/plain") {
      response.end(CONTENT);
    } else if (request.url === "/packed.gz") {
      response.end(gzipSync(CONTENT));
    } else if (request.url === "/unpacked-on-the-way.gz") {
      response.setHeader("Content-Encoding", "gzip");
      response.end(gzipSync(CONTENT));
    } else {
      response.statusCode = 404;
      response.end();
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  address = `http://127.0.0.1:${server.address().port}`;
});

after(() => {
  server.closeAllConnections();
  server.close();
});

for (const name of ["plain", "packed.gz", "unpacked-on-the-way.gz"]) {
  test(`the content of ${name} arrives, whatever packed it`, async () => {
    let told = 0;
    const bytes = await fetchFile({ url: `${address}/${name}` }, (count) => {
      told += count;
    });
    assert.deepEqual(Buffer.from(bytes), CONTENT);
    assert.equal(told, name === "packed.gz" ? gzipSync(CONTENT).length : CONTENT.length);
  });
}

test("a missing file is named, with the server's answer, whether or not its hash is known", async () => {
  const url = `${address}/base.onnx`;
  const reason = /base\.onnx could not be fetched: .* answered 404/;
  await assert.rejects(fetchFile({ url }), reason);
  await assert.rejects(fetchFile({ url, integrity: `sha384-${"A".repeat(64)}` }), reason);
});

test("a server that is not there is told from a file that is not there", async () => {
  await assert.rejects(fetchFile({ url: "http://127.0.0.1:1/x" }), /x could not be reached/);
});

test("a file with another hash is refused", async () => {
  const file = { url: `${address}/plain`, integrity: `sha384-${"A".repeat(64)}` };
  await assert.rejects(fetchFile(file), /plain is not the one that belongs here/);
});

test("sizes and times read well", () => {
  assert.equal(megabytes(6_527_612), "6.5 MB");
  assert.equal(duration(88.4), "88 ms");
  assert.equal(duration(1764), "1.8 s");
});
