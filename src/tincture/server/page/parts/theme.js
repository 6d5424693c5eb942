// Light, dark, or as the system is: chosen by the button in the header, and remembered by the browser.
(() => {
  const CHOICES = ["system", "light", "dark"];
  const KEY = "tincture-theme";
  const system = matchMedia("(prefers-color-scheme: dark)");
  let chosen = new URLSearchParams(location.search).get("__theme"); // as Gradio reads it; the button's choice wins
  try {
    chosen = localStorage.getItem(KEY) ?? chosen;
  } catch {
    // A browser that keeps nothing for this page: the choice holds until the page is loaded again.
  }
  if (!CHOICES.includes(chosen)) chosen = "system";

  const show = () => {
    const dark = chosen === "dark" || (chosen === "system" && system.matches);
    if (document.body.classList.contains("dark") !== dark) document.body.classList.toggle("dark", dark);
    document.documentElement.style.colorScheme = dark ? "dark" : "light";
    const button = document.getElementById("theme");
    if (!button || button.dataset.theme === chosen) return;
    button.dataset.theme = chosen;
    button.textContent = `Theme: ${chosen}`;
    button.title = `Press for ${following()}`;
  };
  const following = () => CHOICES[(CHOICES.indexOf(chosen) + 1) % CHOICES.length];

  document.addEventListener("click", (event) => {
    if (!event.target.closest?.("#theme")) return;
    chosen = following();
    try {
      localStorage.setItem(KEY, chosen);
    } catch {
      // as above
    }
    show();
  });
  system.addEventListener("change", show);
  // Gradio puts this into the page when it likes, sets the class itself, and makes the header later.
  const begin = () => {
    show();
    const watched = { attributes: true, attributeFilter: ["class"], childList: true, subtree: true };
    new MutationObserver(show).observe(document.body, watched);
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin);
  else begin();
})();
