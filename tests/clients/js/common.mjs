// What the programs in JavaScript share; the same cases as programs/common.py. One line of JSON for each case.

import { randomUUID } from "node:crypto";

export const URL_ = process.env.CLIENT_URL; // of the gateway, without /v1
export const TOKEN = process.env.CLIENT_TOKEN;
const SANDBOX = process.env.CLIENT_SANDBOX;
export const MODEL = "minimax/MiniMax-M2"; // OpenAI's wire
export const ANTHROPIC_MODEL = "anthropic/claude-haiku-4-5";
export const EMBEDDING_MODEL = "openai/text-embedding-3-small";
export const SAID = "Say hello.";
export const CALL = "Please use lookup for me."; // the sandbox calls a tool that the message names
export const TOOL_SCHEMA = {
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
  additionalProperties: false,
};
const LEFT_TIMEOUT_MS = 5000;

const cases = {};
const later = {}; // run only when they are named, because they take long
export const add = (name, work) => (cases[name] = work);
const ordered = (order, mark = "") => `[sandbox: ${order}] Say hello. ${mark}`.trim();
const marker = () => `mark${randomUUID()}`;
const now = () => performance.now();
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

async function arrived(mark) {
  const seen = await (await fetch(`${SANDBOX}/_sandbox/requests`)).json();
  return seen.filter((one) => one.raw.includes(mark));
}

// Its class, and status, code and request id wherever it or its causes have them.
export function raised(error) {
  const facts = { error: error?.name === "Error" ? error.constructor.name : (error?.name ?? typeof error) };
  facts.says = String(error?.message ?? JSON.stringify(error)).slice(0, 300);
  for (let one = error; one && typeof one === "object"; one = one.cause ?? one.lastError) {
    const parsed = one.data?.error ?? one.error?.error ?? one.error ?? one;
    facts.status ??= one.status ?? one.statusCode;
    facts.code ??= parsed?.code;
    facts.request_id ??= one.requestID ?? one.responseHeaders?.["x-request-id"];
    facts.retry_after ??= one.headers?.get?.("retry-after") ?? one.responseHeaders?.["retry-after"];
  }
  return facts;
}

export function failing(ask, message, given = {}) {
  return async () => {
    const mark = marker();
    try {
      return { error: null, answer: String(await ask(`${message} ${mark}`, given)) };
    } catch (error) {
      return { ...raised(error), asked: (await arrived(mark)).length };
    }
  };
}

// ask(message, {model, token}): one request without retries of its own.
export function addErrors(ask, prefix = "", given = {}) {
  add(`${prefix}error_401`, failing(ask, SAID, { ...given, token: "wg_live_not_a_token" }));
  add(`${prefix}error_403`, failing(ask, SAID, { ...given, model: "google/gemini-2.5-flash" }));
  add(`${prefix}error_404`, failing(ask, SAID, { ...given, model: "minimax/NoSuchModel" }));
  add(`${prefix}error_400`, failing(ask, ordered("status=400"), given));
  add(`${prefix}error_429`, failing(ask, ordered("status=429; retry-after=7"), given));
  add(`${prefix}error_500`, failing(ask, ordered("status=500"), given));
  add(`${prefix}error_503`, failing(ask, ordered("status=503"), given));
}

// ask makes up to two retries.
export function addRetries(ask, prefix = "", given = {}) {
  add(`${prefix}retries_in_vain`, failing(ask, ordered("status=429; retry-after=90"), given));
  add(`${prefix}retries_of_use`, failing(ask, ordered("status=500"), given));
}

export async function hear(pieces, most = Infinity) {
  const heard = { pieces: [], first_s: null, error: null };
  const started = now();
  try {
    for await (const piece of pieces) {
      heard.first_s ??= (now() - started) / 1000;
      if (piece) heard.pieces.push(piece);
      if (heard.pieces.length >= most) break;
    }
  } catch (error) {
    Object.assign(heard, raised(error));
  }
  heard.closed = now();
  return heard;
}

export function told({ pieces, closed, ...rest }) {
  return { text: pieces.join(""), pieces: pieces.length, ...rest };
}

async function leftS(mark, since) {
  while (now() - since < LEFT_TIMEOUT_MS) {
    if ((await arrived(mark)).some((one) => one.client_left)) return (now() - since) / 1000;
    await pause(20);
  }
  return null;
}

// stream(message, given): an async generator of text pieces; leaving it must leave the gateway.
export function addStreams(stream, prefix = "", given = {}) {
  const hearing = (message) => async () => told(await hear(stream(message, given)));
  add(`${prefix}stream`, hearing(SAID));
  later[`${prefix}silence`] = hearing(ordered("gap=16.5; tokens=2"));
  add(`${prefix}slow`, hearing(ordered("delay=1.5")));
  add(`${prefix}cut`, hearing(ordered("cut-after=3; cut=rst")));
  add(`${prefix}cut_fin`, hearing(ordered("cut-after=3; cut=fin")));
  add(`${prefix}broken_event`, hearing(ordered("malformed-after=3")));
  add(`${prefix}cancel`, async () => {
    const mark = marker();
    const heard = await hear(stream(ordered("gap=0.1; tokens=300", mark), given), 2);
    return { pieces: heard.pieces.length, left_s: await leftS(mark, heard.closed), error: heard.error };
  });
}

export async function run() {
  const named = process.argv.slice(2);
  for (const name of named.length ? named : Object.keys(cases)) {
    const started = now();
    const line = { case: name };
    try {
      line.facts = await (cases[name] ?? later[name])();
    } catch (error) {
      line.raised = String(error?.stack ?? error).slice(0, 500);
    }
    line.took_s = Math.round((now() - started) / 10) / 100;
    console.log(JSON.stringify(line));
  }
}
