// Vercel's AI SDK: @ai-sdk/openai-compatible on chat completions, @ai-sdk/openai on responses.

import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embedMany, generateText, Output, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";
import * as common from "./common.mjs";
import { add, CALL, EMBEDDING_MODEL, MODEL, SAID, TOKEN } from "./common.mjs";

globalThis.AI_SDK_LOG_WARNINGS = false;
const City = z.object({ city: z.string(), people: z.number().int() });
const baseURL = `${common.URL_}/v1`;
const compatible = (apiKey = TOKEN) =>
  createOpenAICompatible({
    name: "gateway",
    baseURL,
    apiKey,
    includeUsage: true,
    supportsStructuredOutputs: true,
  });
const MAKERS = {
  "": (model, token) => compatible(token)(model),
  responses_: (model, token = TOKEN) => createOpenAI({ baseURL, apiKey: token })(model),
};
const counted = ({ inputTokens, outputTokens }) => [inputTokens, outputTokens];
const quiet = { onError: () => {}, providerOptions: { openai: { store: false } } };

for (const [prefix, make] of Object.entries(MAKERS)) {
  const ask = (message, { model = MODEL, token, retries = 0 } = {}) =>
    generateText({ model: make(model, token), prompt: message, maxRetries: retries, providerOptions: quiet.providerOptions });

  async function* stream(message, { model = MODEL } = {}) {
    const leaving = new AbortController();
    const given = { model: make(model), prompt: message, maxRetries: 0, abortSignal: leaving.signal, ...quiet };
    try {
      for await (const part of streamText(given).fullStream) {
        if (part.type === "error") throw part.error;
        if (part.type === "text-delta") yield part.text;
      }
    } finally {
      leaving.abort();
    }
  }

  const using = () => {
    const calls = [];
    const execute = async (given) => {
      calls.push(given);
      return "Tromsø";
    };
    const lookup = tool({ description: "Looks up.", inputSchema: z.object({ city: z.string() }), execute });
    const given = { model: make(MODEL), prompt: CALL, tools: { lookup }, stopWhen: stepCountIs(3), maxRetries: 0, ...quiet };
    return { calls, given };
  };

  add(`${prefix}normal`, async () => {
    const { text, usage } = await ask(SAID);
    return { text, tokens: counted(usage) };
  });
  add(`${prefix}stream_usage`, async () => {
    const result = streamText({ model: make(MODEL), prompt: SAID, maxRetries: 0, ...quiet });
    return { text: await result.text, tokens: counted(await result.usage) };
  });
  add(`${prefix}tools`, async () => {
    const { calls, given } = using();
    const { text } = await generateText(given);
    return { called: "lookup", arguments: calls[0], text };
  });
  add(`${prefix}tools_streamed`, async () => {
    const { calls, given } = using();
    return { text: await streamText(given).text, called: "lookup", arguments: calls[0] };
  });
  add(`${prefix}structured`, async () => {
    const { output } = await generateText({
      model: make(MODEL), prompt: SAID, output: Output.object({ schema: City }), maxRetries: 0, ...quiet,
    });
    return { object: output };
  });
  common.addStreams(stream, prefix);
  common.addStreams(stream, `${prefix}translated_`, { model: common.ANTHROPIC_MODEL });
  common.addErrors(ask, prefix);
  common.addRetries((message, given) => ask(message, { ...given, retries: 2 }), prefix);
}

add("embeddings", async () => {
  const model = compatible().embeddingModel(EMBEDDING_MODEL);
  const { embeddings } = await embedMany({ model, values: ["one", "two words"], maxRetries: 0 });
  return { lengths: embeddings.map((one) => one.length) };
});

await common.run();
