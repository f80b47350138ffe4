// Requests to the service, API keys, and errors when the service does not answer.

import { $ } from "./dom.js";

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

// The service did not answer: it is down or was restarted.
export class Silent extends Error {}

let key = null;
try {
  key = sessionStorage.getItem("medseg.key");
} catch {
  // kept in memory alone
}

let asking = null;

function askForKey(wrong) {
  asking ??= new Promise((done) => {
    $("key-error").textContent = wrong ? "That key is not known here." : "";
    $("key-form").onsubmit = () => {
      key = $("key-text").value.trim();
      $("key-text").value = "";
      try {
        sessionStorage.setItem("medseg.key", key);
      } catch {
        // kept in memory alone
      }
      asking = null;
      done();
    };
    $("key").oncancel = (event) => event.preventDefault();
    $("key").showModal();
  });
  return asking;
}

async function send(path, options = {}) {
  const headers = { ...options.headers };
  if (key) headers.Authorization = `Bearer ${key}`;
  let answer;
  try {
    answer = await fetch(path, { ...options, headers, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Silent("the service does not answer");
  }
  if (answer.status === 401) {
    await askForKey(Boolean(key));
    return send(path, options);
  }
  if (answer.ok) return answer;
  let detail = `the service answered ${answer.status}`;
  try {
    const body = await answer.json();
    if (typeof body.detail === "string") detail = body.detail;
    else if (Array.isArray(body.detail)) detail = body.detail.map((fault) => fault.msg).join("; ");
  } catch {
    // no JSON: the status has to do
  }
  throw new Refused(answer.status, detail);
}

const query = (values) => {
  const given = Object.entries(values).filter(([, value]) => value !== undefined && value !== null);
  return given.length ? `?${new URLSearchParams(given)}` : "";
};

export const get = async (path, values = {}) => (await send(`/api/${path}${query(values)}`)).json();
export const fetchImage = async (path, values = {}) => (await send(`/api/${path}${query(values)}`)).blob();
export const drop = async (path) => (await send(`/api/${path}`, { method: "DELETE" })).json();
export const put = async (path, values, body, signal) =>
  (
    await send(`/api/${path}${query(values)}`, {
      method: "PUT",
      headers: { "Content-Type": "application/octet-stream" },
      body,
      signal,
    })
  ).json();
export const form = async (path, body) => (await send(`/api/${path}`, { method: "POST", body })).json();
const json = (method) => async (path, body) =>
  (
    await send(`/api/${path}`, {
      method,
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    })
  ).json();
export const post = json("POST");
export const patch = json("PATCH");

export async function answers() {
  try {
    return (await fetch("/readyz", { cache: "no-store" })).ok;
  } catch {
    return false;
  }
}
