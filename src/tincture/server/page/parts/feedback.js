// The button that was pressed looks busy until the answer to what it asked for stands in the page; for all tabs. It is
// marked as its request is made, before anything is heard of the server; requests.js says when that is.
(() => {
  let pressed = null;
  const waiting = new Map(); // how many requests a button waits for

  const press = (event) => {
    if (event.isTrusted) pressed = event.target.closest?.("button, a") ?? null; // not what a script does by itself
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
  window.feedback = { show };
})();
