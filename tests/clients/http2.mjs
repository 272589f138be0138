// Asks over HTTP/2 with Node: GET, and POST of a file; writes both answers to files.

import { connect } from "node:http2";
import { readFileSync, writeFileSync } from "node:fs";

const [port, ca, body, got, posted] = process.argv.slice(2);
const session = connect(`https://localhost:${port}`, { ca: readFileSync(ca) });
session.on("error", (why) => { throw why; });

const ask = (fields, sent) => new Promise((resolve, reject) => {
  const stream = session.request(fields);
  const pieces = [];
  let status;
  stream.on("response", (head) => { status = head[":status"]; });
  stream.on("data", (piece) => pieces.push(piece));
  stream.on("end", () => status === 200 ? resolve(Buffer.concat(pieces)) : reject(new Error(`${status}`)));
  stream.on("error", reject);
  stream.end(sent);
});

// Both at the same time, on one connection.
const answers = await Promise.all([
  ask({ ":path": "/page" }),
  ask({ ":method": "POST", ":path": "/echo" }, readFileSync(body)),
]);
writeFileSync(got, answers[0]);
writeFileSync(posted, answers[1]);
session.close();
