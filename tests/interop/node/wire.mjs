// The wire in Node, written from docs/protocol.md alone: tensors, requests, replies, and the digest id.

import { decode, encode } from "@msgpack/msgpack";
import { blake2b } from "@noble/hashes/blake2b";
import { bytesToHex } from "@noble/hashes/utils";

export function floats(shape, values) {
  const data = new DataView(new ArrayBuffer(4 * values.length));
  values.forEach((value, index) => data.setFloat32(4 * index, value, true));
  return { dtype: "FP32", shape, data: new Uint8Array(data.buffer) };
}

export function strings(shape, values) {
  return { dtype: "BYTES", shape, data: values };
}

/** A tensor's values as a flat list; FP32, INT64 and BYTES are all that this producer asks for. */
export function valuesOf(tensor) {
  if (tensor.dtype === "BYTES") {
    return tensor.data;
  }
  const [size, read] = { FP32: [4, "getFloat32"], INT64: [8, "getBigInt64"] }[tensor.dtype];
  const view = new DataView(tensor.data.buffer, tensor.data.byteOffset, tensor.data.byteLength);
  return Array.from({ length: tensor.data.byteLength / size }, (_, index) => Number(view[read](size * index, true)));
}

export function encodeRequest(request) {
  return Buffer.from(encode({ v: 1, ...request }));
}

export function decodeReply(bytes) {
  return decode(bytes);
}

/** The id of a request whose result may be cached. `published` is the model's entry in `iw:{pool}:models`. */
export function digestOf(published, { tenant = null, parameters = {}, inputs, outputs = null }) {
  const names = Object.keys(inputs).sort();
  const head = [
    tenant,
    published.name,
    published.version,
    published.weights,
    parameters,
    outputs,
    names.map((name) => [name, inputs[name].dtype, inputs[name].shape]),
  ];
  const hash = blake2b.create({ dkLen: 20 }).update(encode(head, { sortKeys: true }));
  for (const name of names) {
    const { dtype, data } = inputs[name];
    hash.update(dtype === "BYTES" ? encode(data) : data);
  }
  return "b2:" + bytesToHex(hash.digest());
}
