// OpenAI's SDK for JavaScript: chat completions and responses.

import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";
import * as common from "./common.mjs";
import { add, CALL, EMBEDDING_MODEL, MODEL, SAID, TOKEN, TOOL_SCHEMA } from "./common.mjs";

const City = z.object({ city: z.string(), people: z.number().int() });
const TOOL = { type: "function", function: { name: "lookup", parameters: TOOL_SCHEMA } };
const client = (token = TOKEN, maxRetries = 0) =>
  new OpenAI({ baseURL: `${common.URL_}/v1`, apiKey: token, maxRetries });
const user = (content) => [{ role: "user", content }];

const ask = (message, { model = MODEL, token = TOKEN, retries = 0 } = {}) =>
  client(token, retries).chat.completions.create({ model, messages: user(message) });

async function* stream(message) {
  const chunks = await client().chat.completions.create({ model: MODEL, messages: user(message), stream: true });
  for await (const chunk of chunks) yield chunk.choices[0]?.delta?.content;
}

add("normal", async () => {
  const { choices, usage } = await ask(SAID);
  return { text: choices[0].message.content, tokens: [usage.prompt_tokens, usage.completion_tokens] };
});

add("stream_usage", async () => {
  const options = { stream: true, stream_options: { include_usage: true } };
  const counted = [];
  for await (const chunk of await client().chat.completions.create({ model: MODEL, messages: user(SAID), ...options }))
    if (chunk.usage) counted.push(chunk.usage);
  return { tokens: [counted[0].prompt_tokens, counted[0].completion_tokens], chunks_with_it: counted.length };
});

add("stream_no_usage", async () => {
  let counted = 0;
  for await (const chunk of await client().chat.completions.create({ model: MODEL, messages: user(SAID), stream: true }))
    if (chunk.usage) counted += 1;
  return { chunks_with_it: counted };
});

add("tools", async () => {
  const messages = user(CALL);
  const asked = { model: MODEL, messages, tools: [TOOL] };
  const first = (await client().chat.completions.create(asked)).choices[0].message;
  const [call] = first.tool_calls;
  messages.push(first, { role: "tool", tool_call_id: call.id, content: "Tromsø" });
  const last = (await client().chat.completions.create(asked)).choices[0].message;
  return { called: call.function.name, arguments: JSON.parse(call.function.arguments), text: last.content };
});

add("tools_streamed", async () => {
  const runner = client().chat.completions.stream({ model: MODEL, messages: user(CALL), tools: [TOOL] });
  const [call] = (await runner.finalMessage()).tool_calls;
  return { called: call.function.name, arguments: JSON.parse(call.function.arguments) };
});

add("structured", async () => {
  const response_format = zodResponseFormat(City, "city");
  const answer = await client().chat.completions.parse({ model: MODEL, messages: user(SAID), response_format });
  return { object: answer.choices[0].message.parsed };
});

add("embeddings", async () => {
  const asked = { model: EMBEDDING_MODEL, input: ["one", "two words"] };
  const packed = await client().embeddings.create(asked);
  const plain = await client().embeddings.create({ ...asked, encoding_format: "float" });
  const alike = JSON.stringify(packed.data) === JSON.stringify(plain.data);
  return { alike, length: packed.data[0].embedding.length };
});

add("models", async () => {
  const ids = [];
  for await (const model of client().models.list()) ids.push(model.id);
  return { listed: ids.includes(MODEL) };
});

add("responses", async () => {
  const answer = await client().responses.create({ model: MODEL, input: SAID, store: false });
  return { text: answer.output_text, tokens: [answer.usage.input_tokens, answer.usage.output_tokens] };
});

add("responses_streamed", async () => {
  const kinds = [];
  let text = "";
  const events = await client().responses.create({ model: MODEL, input: SAID, store: false, stream: true });
  for await (const event of events) {
    kinds.push(event.type);
    if (event.type === "response.output_text.delta") text += event.delta;
  }
  return { text, first: kinds[0], last: kinds.at(-1) };
});

async function* responses(message) {
  const events = await client().responses.create({ model: MODEL, input: message, store: false, stream: true });
  for await (const event of events) yield event.type === "response.output_text.delta" ? event.delta : "";
}

common.addStreams(stream);
common.addStreams(responses, "responses_");
common.addErrors(ask);
common.addErrors(
  (message, { model = MODEL, token = TOKEN }) => client(token).responses.create({ model, input: message }),
  "responses_",
);
common.addRetries((message, given) => ask(message, { ...given, retries: 2 }));

await common.run();
