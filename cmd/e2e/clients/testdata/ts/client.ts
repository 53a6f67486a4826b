// Creates a webhook and triggers an event, by types that openapi-typescript made.
import createClient from "openapi-fetch";
import type { paths, components, webhooks } from "./api";

declare const process: { env: { SERVER: string; TOKEN: string; RECEIVER: string } };
const { SERVER, TOKEN, RECEIVER } = process.env;
const client = createClient<paths>({ baseUrl: SERVER, headers: { Authorization: `Bearer ${TOKEN}` } });

// Only the required fields, and data of any shape.
const webhook: components["schemas"]["NewWebhook"] = {
  name: "openapi-typescript",
  url: RECEIVER,
  events: ["visit.*"],
  filters: { amount_min: 1000 },
};
const created = await client.POST("/api/v1/webhooks", { body: webhook });
if (!created.data) throw new Error(JSON.stringify(created.error));

const triggered = await client.POST("/api/v1/webhooks/events/trigger", {
  body: { event_type: "visit.created", event_data: { amount: 1500, client: "openapi-typescript", nested: { any: [1, null] } } },
});
if (!triggered.data) throw new Error(JSON.stringify(triggered.error));

// What a receiver gets has a type for each format.
type Received<call extends "event" | "batch"> = webhooks[call]["post"]["requestBody"]["content"]["application/json"];
const received = (body: Received<"event"> | Received<"batch">): number => ("events" in body ? body.events.length : body.attempt);
console.log(created.data.id, triggered.data.event_id, typeof received);
