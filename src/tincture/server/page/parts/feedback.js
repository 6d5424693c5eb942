// The button that was pressed looks busy until the answer to what it asked for stands in the page; for all tabs. It is
// marked at once where it always asks the server, else as its request is made, of which requests.js says when that is:
// Gradio first reads all inputs that the request takes along, which lasts where these are many.
(() => {
  const SOON_MS = 3000; // by then a request was made, if there is to be one
  let pressed = null, asking = new Set();
  const waiting = new Map(); // how many requests a button waits for

  const press = (event) => {
    if (!event.isTrusted) return; // what a script does by itself
    pressed = event.target.closest?.("button, a") ?? null;
    if (!asking.has(pressed?.id)) return;
    const button = pressed;
    button.setAttribute("aria-busy", "true");
    setTimeout(() => { if (!waiting.has(button)) button.removeAttribute("aria-busy"); }, SOON_MS);
  };
  window.addEventListener("click", press, true);

  // ``trigger``: what the request came from, the button itself or the panel that it stands in; ``finished``: a promise.
  const show = (trigger, finished) => {
    const button = pressed;
    if (!button || !trigger?.contains(button)) return;
    waiting.set(button, (waiting.get(button) ?? 0) + 1);
    button.setAttribute("aria-busy", "true");
    finished.finally(() => {
      waiting.set(button, waiting.get(button) - 1);
      if (waiting.get(button)) return;
      waiting.delete(button);
      button.removeAttribute("aria-busy");
    });
  };
  window.feedback = { show, setAsking: (ids) => { asking = ids; } };
})();
