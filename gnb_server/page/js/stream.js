// The server-sent stream, and whether it is there.

const SILENT_MS = 8000; // no tick for so long: the connection is taken for dead
const AGAIN_MS = 1500;

export class Stream {
  /** `onTick(answer)` for each event; `onState("connecting" | "live" | "away" | "paused", since)` when that changes. */
  constructor(onTick, onState) {
    this.onTick = onTick;
    this.onState = onState;
    this.state = "";
    this.window = null;
    setInterval(() => this.#watch(), 1000);
  }

  /** Begin, or begin again with another window [s]. */
  open(window = this.window) {
    this.window = window;
    this.close();
    this.source = new EventSource(`v1/stream?by=version${window ? `&window=${window}` : ""}`);
    this.heard = Date.now();
    this.source.addEventListener("nmse", (event) => {
      this.heard = Date.now();
      this.#say("live");
      this.onTick(JSON.parse(event.data));
    });
    this.source.addEventListener("error", () => {
      this.#say("away");
      if (this.source?.readyState === EventSource.CLOSED) this.heard = Date.now() - SILENT_MS + AGAIN_MS; // refused
    });
    if (this.state !== "away") this.#say("connecting");
  }

  close() {
    this.source?.close();
    this.source = null;
  }

  pause() {
    this.close();
    this.#say("paused");
  }

  #watch() {
    if (this.source && Date.now() - this.heard > SILENT_MS) {
      this.#say("away");
      this.open();
    }
  }

  #say(state) {
    if (state === this.state) return;
    this.state = state;
    this.onState(state, Date.now() / 1000);
  }
}
