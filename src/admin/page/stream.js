// Server-sent events by `fetch`: `EventSource` cannot show a token.

/** Why there are no events. */
export class Refused extends Error {
  constructor(status, why) {
    super(why);
    this.status = status;
  }
}

/** Whoever says nothing for so long is gone: there is an event each second. */
const SILENT_MAX = 6000;

/** Yields `[name, data]` for each event, until the stream ends; throws if it breaks. */
export async function* events(path, headers) {
  const abort = new AbortController();
  let alarm = setTimeout(() => abort.abort(), SILENT_MAX);
  try {
    const answer = await fetch(path, { headers, signal: abort.signal, cache: "no-store" });
    if (!answer.ok) throw new Refused(answer.status, await why(answer));
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      clearTimeout(alarm);
      alarm = setTimeout(() => abort.abort(), SILENT_MAX);
      rest += value;
      for (let end; 0 <= (end = rest.indexOf("\n\n")); rest = rest.slice(end + 2)) {
        yield parse(rest.slice(0, end));
      }
    }
  } finally {
    clearTimeout(alarm);
    abort.abort();
  }
}

function parse(event) {
  const field = (name) => event.split("\n").find((line) => line.startsWith(name))?.slice(name.length);
  return [field("event: "), JSON.parse(field("data: "))];
}

/** What the API says of why it refuses. */
export async function why(answer) {
  const told = await answer.json().catch(() => null);
  return told?.error ?? `the answer was ${answer.status}`;
}
