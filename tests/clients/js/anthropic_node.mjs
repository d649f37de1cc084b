// Anthropic's SDK for JavaScript on /v1/messages, with a provider on its own wire and with a translated one.

import Anthropic from "@anthropic-ai/sdk";
import * as common from "./common.mjs";
import { add, CALL, SAID, TOKEN, TOOL_SCHEMA } from "./common.mjs";

const TOOL = { name: "lookup", description: "Looks up.", input_schema: TOOL_SCHEMA };
const client = (token = TOKEN, maxRetries = 0) =>
  new Anthropic({ baseURL: common.URL_, authToken: token, apiKey: null, maxRetries });
const asked = (model, content) => ({ model, max_tokens: 500, messages: [{ role: "user", content }] });
const textOf = (message) => message.content.map((block) => block.text ?? "").join("");

const ask = (message, { model, token = TOKEN, retries = 0 }) =>
  client(token, retries).messages.create(asked(model, message));

async function* stream(message, { model }) {
  const events = await client().messages.create({ ...asked(model, message), stream: true });
  for await (const event of events) yield event.type === "content_block_delta" ? event.delta.text : "";
}

for (const [prefix, model] of [
  ["native_", common.ANTHROPIC_MODEL],
  ["translated_", common.MODEL],
]) {
  add(`${prefix}normal`, async () => {
    const message = await ask(SAID, { model });
    return { text: textOf(message), tokens: [message.usage.input_tokens, message.usage.output_tokens] };
  });
  add(`${prefix}stream_usage`, async () => {
    const { usage } = await client().messages.stream(asked(model, SAID)).finalMessage();
    return { tokens: [usage.input_tokens, usage.output_tokens] };
  });
  add(`${prefix}tools`, async () => {
    const body = { ...asked(model, CALL), tools: [TOOL] };
    const first = await client().messages.stream(body).finalMessage();
    const call = first.content.find((block) => block.type === "tool_use");
    const result = { type: "tool_result", tool_use_id: call.id, content: "Tromsø" };
    body.messages.push({ role: "assistant", content: first.content }, { role: "user", content: [result] });
    const last = await client().messages.create(body);
    return { called: call.name, arguments: call.input, stop: first.stop_reason, text: textOf(last) };
  });
  add(`${prefix}count_tokens`, async () => {
    const { max_tokens, ...body } = asked(model, SAID);
    return { tokens: (await client().messages.countTokens(body)).input_tokens };
  });
  common.addStreams(stream, prefix, { model });
  common.addErrors(ask, prefix, { model });
  common.addRetries((message, given) => ask(message, { ...given, retries: 2 }), prefix, { model });
}

await common.run();
