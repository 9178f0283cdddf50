// The collector's server-sent events, kept open for as long as somebody looks.

const RETRY_MIN_MS = 500;
const RETRY_MAX_MS = 5_000;
// A browser gives one origin six connections: hidden tabs hand theirs back after a while.
const HIDDEN_CLOSE_MS = 30_000;
const TOPICS = ["runs", "ranks", "metrics", "events", "files", "logs", "stacks"];

/** Opens a stream that reconnects by itself, and returns a function that ends it.
 *
 * @param {string} url
 * @param {(topic: string, data: object) => void} onEvent
 * @param {(state: "live" | "lost") => void} onState
 */
export function openStream(url, onEvent, onState) {
  let source = null;
  let retryMs = RETRY_MIN_MS;
  let retryTimer = 0;
  let hiddenTimer = 0;

  const close = () => {
    clearTimeout(retryTimer);
    source?.close();
    source = null;
  };

  const open = () => {
    close();
    source = new EventSource(url);
    source.onopen = () => {
      retryMs = RETRY_MIN_MS;
      onState("live");
    };
    source.onerror = () => {
      // EventSource gives up for good on an HTTP error (a proxy's 502, a 503 at start): the retry is ours in every case.
      close();
      onState("lost");
      retryTimer = setTimeout(open, retryMs);
      retryMs = Math.min(retryMs * 2, RETRY_MAX_MS);
    };
    for (const topic of TOPICS) {
      source.addEventListener(topic, (message) => {
        let data;
        try {
          data = JSON.parse(message.data);
        } catch {
          return;
        }
        onEvent(topic, data);
      });
    }
  };

  const onVisibility = () => {
    clearTimeout(hiddenTimer);
    if (document.hidden) hiddenTimer = setTimeout(close, HIDDEN_CLOSE_MS);
    else if (source === null) open();
  };

  document.addEventListener("visibilitychange", onVisibility);
  open();
  return () => {
    document.removeEventListener("visibilitychange", onVisibility);
    clearTimeout(hiddenTimer);
    close();
  };
}
