// What the OpenAI library for Node makes of a gateway. Each scene prints what it saw as one line of JSON; whoever started it judges.
//
//     NODE_PACKAGES=…/node_modules OPENAI_BASE_URL=… OPENAI_API_KEY=… node client_node.mjs SCENE MODEL

import { createRequire } from "node:module";

// A module's imports are looked up beside the module, and the packages are elsewhere.
const OpenAI = createRequire(`${process.env.NODE_PACKAGES}/`)("openai");

const say = (seen) => console.log(JSON.stringify(seen));
const asks = (text) => [{ role: "user", content: text }];

function error(of) {
  return {
    class: of.constructor.name,
    library: of instanceof OpenAI.APIError,
    status: of.status ?? null,
    code: of.code ?? null,
    param: of.param ?? null,
    request: of.requestID ?? null,
  };
}

async function attempt(ask) {
  try {
    await ask();
    return null;
  } catch (refused) {
    return error(refused);
  }
}

async function read(stream) {
  const seen = { text: "", pieces: 0, usage: null, finish: null };
  for await (const chunk of stream) {
    seen.usage = chunk.usage?.total_tokens ?? seen.usage;
    for (const choice of chunk.choices) {
      seen.text += choice.delta?.content ?? "";
      seen.pieces += choice.delta?.content ? 1 : 0;
      seen.finish = choice.finish_reason ?? seen.finish;
    }
  }
  return seen;
}

/** Whole, in pieces, and several at a time. */
async function chat(client, model) {
  const create = (text, more) => client.chat.completions.create({ model, messages: asks(text), max_tokens: 8, ...more });
  const { data, response } = await create("say one two").withResponse();
  const streamed = await read(await create("say one two three", { stream: true, stream_options: { include_usage: true } }));
  const many = await Promise.all(["a", "b", "c"].map((word) => create(`say ${word}`)));
  say({
    text: data.choices[0].message.content,
    usage: data.usage.total_tokens,
    request: data._request_id,
    receipt: response.headers.get("x-anteroom-receipt"),
    streamed,
    many: many.map((answer) => answer.choices[0].message.content),
  });
}

/** By the library's own reader of streams, which is stricter than the plain one. */
async function tools(client, model) {
  const parameters = { type: "object", properties: { place: { type: "string" } }, required: ["place"] };
  const tool = { type: "function", function: { name: "look_up", parameters } };
  const asked = { model, messages: asks("call look_up"), tools: [tool], max_tokens: 20 };
  const whole = await client.chat.completions.create(asked);
  const streamed = await client.chat.completions.stream(asked).finalMessage();
  const called = (message) => [message.tool_calls[0].function.name, message.tool_calls[0].function.arguments];
  say({ whole: called(whole.choices[0].message), streamed: called(streamed), tool });
}

async function responses(client, model) {
  const asked = { model, input: "say one two", max_output_tokens: 8 };
  const kinds = [];
  for await (const event of await client.responses.create({ ...asked, stream: true })) kinds.push(event.type);
  say({ whole: (await client.responses.create(asked)).output_text, kinds });
}

async function refusals(client, model) {
  const create = (body) => () => client.chat.completions.create({ model, messages: asks("hi"), ...body });
  const tools = [{ type: "function", function: { name: "look_up" } }];
  const attempts = [
    () => client.withOptions({ apiKey: "sk-wrong" }).models.list(),
    create({ model: "gpt-5" }),
    create({ made_up: 1 }),
    create({ tools }),
    create({ messages: asks("fail 500") }),
  ];
  const seen = [];
  for (const one of attempts) seen.push(await attempt(one));
  say({ seen });
}

async function cut(client, model) {
  const create = (text, more) => client.chat.completions.create({ model, messages: asks(text), ...more });
  const stream = await create("a long story", { max_tokens: 100_000, stream: true });
  const pieces = stream[Symbol.asyncIterator]();
  say({ begun: (await pieces.next()).value.choices[0].delta.content });
  const rest = async () => {
    while (!(await pieces.next()).done);
  };
  say({ cut: await attempt(rest) });
  say({ after: await attempt(() => create("more")) });
  // Nor does it matter how often it would try.
  const patient = client.withOptions({ maxRetries: 6 });
  say({ patient: await attempt(() => patient.chat.completions.create({ model, messages: asks("more") })) });
}

/** One question. */
async function one(client, model) {
  say({ asking: true });
  let answer = null;
  const failed = await attempt(async () => {
    const found = await client.chat.completions.create({ model, messages: asks("say one two") });
    answer = found.choices[0].message.content;
  });
  say({ answer, failed });
}

const [scene, model] = process.argv.slice(2);
await { chat, tools, responses, refusals, cut, one }[scene](new OpenAI(), model);
