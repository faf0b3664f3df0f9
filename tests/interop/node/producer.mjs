// A producer in Node: a Redis client, msgpack, and docs/protocol.md.
//
//   node producer.mjs BROKER_URL POOL
//
// Sends good and bad requests to the models of examples/vectors.py and tests/support/models/interop.py, and prints
// what came back as one JSON document: {"answers": {case: ...}, "errors": {case: {code, message, retryable}}}.

import { decode } from "@msgpack/msgpack";
import { createClient, RESP_TYPES } from "redis";
import { decodeReply, digestOf, encodeRequest, floats, strings, valuesOf } from "./wire.mjs";

const WAIT_S = 20;

class Producer {
  constructor(client, pool) {
    this.client = client;
    this.prefix = `iw:{${pool}}:`;
    this.inbox = `${this.prefix}inbox:node-${process.pid}`;
    this.sent = 0;
  }

  newId() {
    this.sent += 1;
    return `node-${process.pid}-${this.sent}`;
  }

  /** Put a request into a stream; an inbox waits for it unless `fields` say otherwise. */
  async submit(fields, { priority = "normal", byKey = false } = {}) {
    const request = { id: this.newId(), reply_to: this.inbox, ...fields };
    await this.add(priority, await this.entry(request, byKey));
    return request.id;
  }

  async entry(request, byKey) {
    const message = encodeRequest(request);
    if (!byKey) {
      return { d: message };
    }
    const key = `${this.prefix}payload:${request.id}`;
    await this.client.set(key, message, { PX: 60_000 });
    return { r: key };
  }

  async add(priority, fields) {
    const entry = await this.client.xAdd(this.prefix + priority, "*", fields, { NOMKSTREAM: true });
    if (entry === null) {
      throw new Error("the pool was never started");
    }
  }

  /** The next reply in the inbox, whichever request it belongs to. */
  async next() {
    const popped = await this.client.blPop(this.inbox, WAIT_S);
    if (popped === null) {
      throw new Error(`no reply within ${WAIT_S} s`);
    }
    const isKey = popped.element.subarray(0, 3).toString() === "iw:";
    return { isKey, ...decodeReply(isKey ? await this.client.get(popped.element) : popped.element) };
  }

  async ask(fields, options) {
    const id = await this.submit(fields, options);
    const reply = await this.next();
    if (reply.id !== id) {
      throw new Error(`asked for ${id}, got a reply to ${reply.id}`);
    }
    return reply;
  }

  /** The reply by its key: for producers that keep no inbox. */
  async poll(id) {
    for (const end = Date.now() + 1000 * WAIT_S; Date.now() < end; ) {
      const stored = await this.client.get(`${this.prefix}reply:${id}`);
      if (stored !== null) {
        return decodeReply(stored);
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    throw new Error(`no reply to ${id} within ${WAIT_S} s`);
  }

  async published(model, version) {
    return decode(await this.client.hGet(`${this.prefix}models`, `${model}:${version}`));
  }
}

function shown(reply) {
  if (reply.error) {
    return { error: reply.error };
  }
  const outputs = Object.entries(reply.outputs).map(([name, tensor]) => [
    name,
    { dtype: tensor.dtype, shape: tensor.shape, values: valuesOf(tensor) },
  ]);
  return { model: reply.model, version: reply.version, ...Object.fromEntries(outputs) };
}

async function goodRequests(producer) {
  const vector = floats([4], [1, -2, 3, 0.5]);
  const double = { model: "double", inputs: { x: vector } };
  const answers = {
    "one item": shown(await producer.ask(double)),
    "two rows": shown(await producer.ask({ model: "double", inputs: { x: floats([2, 2], [1, 2, 3, 4]) } })),
    empty: shown(await producer.ask({ model: "double", inputs: { x: floats([0], []) } })),
    strings: shown(await producer.ask({ model: "shout", inputs: { text: strings([2], ["größe", "😀 ok"]) } })),
    "one string": shown(await producer.ask({ model: "shout", inputs: { text: strings([], ["hello"]) } })),
    embedding: shown(await producer.ask({ model: "embed-v2", inputs: { vector } })),
    sentiment: shown(await producer.ask({ model: "sentiment-v1", inputs: { vector } })),
    urgent: shown(await producer.ask(double, { priority: "high" })),
    "by payload key": shown(await producer.ask(double, { byKey: true })),
    "every field": shown(
      await producer.ask({
        ...double,
        version: "1",
        tenant: "node",
        parameters: { nested: [1, 0.5, null, { deep: true }] },
        outputs: ["y"],
        timeout_ms: 30_000,
        trace: { traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01" },
      }),
    ),
    "by reply key": shown(await producer.poll(await producer.submit({ ...double, reply_to: null }))),
    large: await largeReply(producer),
    cached: await cachedReply(producer, vector),
  };
  const { timings } = await producer.ask(double);
  return { ...answers, timings };
}

async function largeReply(producer) {
  const values = Array.from({ length: 20_000 }, (_, index) => index);
  const reply = await producer.ask({ model: "double", inputs: { x: floats([20_000], values) } });
  const doubled = valuesOf(reply.outputs.y);
  return { by_key: reply.isKey, length: doubled.length, right: doubled.every((value, index) => value === 2 * index) };
}

/** The same computation twice: the second answer is read from its reply key, and no work is added. */
async function cachedReply(producer, vector) {
  const published = await producer.published("remembered", "1");
  const inputs = { x: vector };
  const parameters = { b: { y: 1, x: [0.5] }, a: true };
  const id = digestOf(published, { inputs, parameters });
  const first = await producer.ask({ id, model: "remembered", inputs, parameters });
  const key = `${producer.prefix}reply:${id}`;
  return {
    id,
    first: shown(first).y.values,
    stored: shown(decodeReply(await producer.client.get(key))).y.values,
    ttl_s: await producer.client.ttl(key),
  };
}

async function badRequests(producer) {
  const x = floats([2], [1, 2]);
  const good = { model: "double", inputs: { x } };
  const cases = {
    "wrong byte count": { ...good, inputs: { x: { ...x, shape: [3] } } },
    "unknown dtype": { ...good, inputs: { x: { ...x, dtype: "FP8" } } },
    "wrong dtype": { ...good, inputs: { x: strings([2], ["a", "b"]) } },
    "wrong shape": { ...good, inputs: { x: floats([1, 1, 2], [1, 2]) } },
    "no rows": { ...good, inputs: { x: floats([0, 2], []) } },
    "absurd shape": { ...good, inputs: { x: { ...x, shape: [-1] } } },
    "wrong input": { ...good, inputs: { z: x } },
    "unknown field": { ...good, priority: 3 },
    "missing field": { model: "double" },
    "wrong version of the protocol": { ...good, v: 2 },
    "unknown model": { ...good, model: "nobody" },
    "unknown version": { ...good, version: "99" },
    "unknown output": { ...good, outputs: ["z"] },
    "no time": { ...good, timeout_ms: 0 },
    "not a number": { ...good, parameters: { threshold: NaN } },
    "failing model": { model: "root", inputs: { x: floats([2], [4, -4]) } },
    "bad id": { ...good, id: "two words" },
  };
  const errors = {};
  for (const [name, fields] of Object.entries(cases)) {
    const id = await producer.submit(fields);
    const reply = await producer.next();
    errors[name] = { ...reply.error, id_comes_back: reply.id === id };
  }
  const elsewhere = await producer.submit({ ...good, reply_to: "somebody-elses-list" });
  errors["bad reply_to"] = (await producer.poll(elsewhere)).error;
  const expired = producer.newId();
  await producer.add("normal", { r: `${producer.prefix}payload:${expired}` });
  errors["payload that is not there"] = (await producer.poll(expired)).error;
  return errors;
}

const [url, pool] = process.argv.slice(2);
const address = url.startsWith("unix://") ? { socket: { path: new URL(url).pathname } } : { url };
const client = createClient(address).withTypeMapping({ [RESP_TYPES.BLOB_STRING]: Buffer });
await client.connect();
const producer = new Producer(client, pool);
const report = { answers: await goodRequests(producer), errors: await badRequests(producer) };
await client.close();
console.log(JSON.stringify(report, null, 2));
