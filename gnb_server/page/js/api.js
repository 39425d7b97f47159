// Asking the gNB. What it refuses, it says why; that text is the error's message.

const TOKEN = "csiemu-token";

export const token = {
  get: () => sessionStorage.getItem(TOKEN) ?? "",
  keep: (text) => sessionStorage.setItem(TOKEN, text),
  forget: () => sessionStorage.removeItem(TOKEN),
};

/** The gNB's refusal, with the HTTP status (0: it did not answer). */
export class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** The outcome of asking, or nothing where the gNB refuses or is away: what is shown stays, and the lamp says so. */
export async function quietly(asking) {
  try {
    return await asking;
  } catch (problem) {
    if (!(problem instanceof Refused)) throw problem;
    return undefined;
  }
}

export const get = (path) => ask(path, {});

/** POST with the token, if there is one. */
export function post(path, body = {}) {
  const headers = { "content-type": "application/json" };
  if (token.get()) headers.authorization = `Bearer ${token.get()}`;
  return ask(path, { method: "POST", headers, body: JSON.stringify(body) });
}

async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Refused("the gNB does not answer", 0);
  }
  const content = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Refused(content.error ?? `${answer.status} ${answer.statusText}`, answer.status);
  return content;
}
