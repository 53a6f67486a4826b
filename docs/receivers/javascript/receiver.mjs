// A receiver of MediLab's webhooks, with nothing but Node. Copy it, and write what handle does.
//
//     WEBHOOK_SECRET=... node receiver.mjs

import { createHmac, randomUUID, timingSafeEqual } from "node:crypto";
import { link, mkdir, open, readdir, readFile, rename, stat, unlink, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { join } from "node:path";

const MAX_BODY = 11 << 20; // events have at most 10 MB
const TOLERANCE = Number(process.env.TOLERANCE ?? 300); // seconds
const GAP_WAIT = Number(process.env.GAP_WAIT ?? 900); // seconds for which a missing number is waited for
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

const { WEBHOOK_SECRET: secret, INBOX: inbox = "inbox", PORT: port = "9000" } = process.env;
if (!secret) throw new Error("WEBHOOK_SECRET is not set");
const key = secret.startsWith("whsec_") ? Buffer.from(secret.slice(6), "base64") : Buffer.from(secret);
const done = join(inbox, "done");
const sequences = join(inbox, "sequence");

// Stores a delivery and answers at once; the work is done afterwards.
async function receive(request) {
  const body = await readBody(request);
  if (!body) return 413;
  const { "webhook-id": id = "", "webhook-timestamp": timestamp = "", "webhook-signature": signatures = "" } = request.headers;
  if (!verify(id, timestamp, body, signatures)) return 401;
  await store(id, request.headers["x-webhook-sequence"] ?? "", body);
  return 204;
}

// The exact bytes: what is signed.
async function readBody(request) {
  const chunks = [];
  let length = 0;
  for await (const chunk of request) {
    length += chunk.length;
    if (length > MAX_BODY) return null;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

// Says whether one of the signatures is ours and the call is recent. During a rotation there
// are several: the old secret's and the new one's.
function verify(id, timestamp, body, signatures) {
  if (!UUID.test(id) || !/^[0-9]{1,12}$/.test(timestamp)) return false;
  if (Math.abs(Date.now() / 1000 - Number(timestamp)) > TOLERANCE) return false;
  const want = Buffer.from("v1," + createHmac("sha256", key).update(`${id}.${timestamp}.`).update(body).digest("base64"));
  return signatures
    .split(" ")
    .map((one) => Buffer.from(one))
    .some((one) => one.length === want.length && timingSafeEqual(one, want));
}

// Keeps a delivery under its id, which is the same for every attempt: a repeated one is already
// there.
async function store(id, sequence, body) {
  if ((await exists(join(inbox, id))) || (await exists(join(done, id)))) return;
  const temporary = join(inbox, `.new-${randomUUID()}`);
  const file = await open(temporary, "wx");
  try {
    await file.writeFile(body);
    await file.sync();
    if (/^[0-9]{1,15}$/.test(sequence)) await writeFile(join(sequences, id), sequence);
    await link(temporary, join(inbox, id)).catch(ignore("EEXIST"));
  } finally {
    await file.close();
    await unlink(temporary);
  }
  arrived();
}

const ignore = (code) => (problem) => {
  if (problem.code !== code) throw problem;
};

const exists = (path) => stat(path).then(() => true, (problem) => (ignore("ENOENT")(problem), false));

let arrived = () => {};

// Handles what is in the inbox, also what was left when the process ended.
async function work() {
  for (;;) {
    const next = new Promise((resolve) => {
      arrived = resolve;
      setTimeout(resolve, 10_000); // what failed is tried again
    });
    await workThrough().catch(console.error);
    await next;
  }
}

// Handles deliveries in the order of their numbers, if they have one (the webhook's field sequence).
// What comes after a number that is missing waits for it, for a time.
async function workThrough() {
  const ids = (await readdir(inbox)).filter((name) => UUID.test(name)).sort();
  const waiting = await Promise.all(ids.map(async (id) => ({ id, number: await readNumber(join(sequences, id)) })));
  let expected = Math.max(1, await readNumber(join(inbox, "next")));
  for (const { id, number } of waiting.sort((a, b) => a.number - b.number)) {
    if (number > expected) {
      if (Date.now() - (await stat(join(inbox, id))).mtimeMs < GAP_WAIT * 1000) return;
      console.error(`${expected} to ${number - 1} did not arrive: GET /api/v1/webhooks/{id}/feed?after=${expected - 1} has them`);
    }
    try {
      await handle(id, JSON.parse(await readFile(join(inbox, id))));
      if (number >= expected) await writeFile(join(inbox, "next"), String((expected = number + 1)));
      await rename(join(inbox, id), join(done, id));
    } catch (problem) {
      console.error(id, problem);
      if (number) return; // those after it wait
    }
  }
}

// Returns the number in the file, or 0.
const readNumber = (path) => readFile(path).then(Number, (problem) => (ignore("ENOENT")(problem), 0));

// Is where your work goes. A crash between it and the rename repeats it: keep the delivery's id
// beside what you write, in one transaction, where that must not happen.
async function handle(id, event) {
  console.log(id, event.event_type ?? "batch");
}

await mkdir(done, { recursive: true });
await mkdir(sequences, { recursive: true });
work();
createServer((request, response) => {
  receive(request)
    .catch((problem) => (console.error(problem), 500)) // it is tried again
    .then((status) => response.writeHead(status).end());
}).listen(Number(port), "127.0.0.1");
