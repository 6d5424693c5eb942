// Says whether the caption in the editor is saved, and saves it when the page is left or hidden, which no answer of the
// server's would come in time for: the browser itself sends it then. `#ds-picture [data-file]` says whose caption it is.
const state = element.querySelector("#ds-state");
const whose = () => document.querySelector("#ds-picture [data-file]")?.dataset;
const box = () => document.querySelector("#ds-caption textarea");
let typed = null; // {folder, file, text}: what a person typed, until the server has it

const say = (words) => { if (state.textContent !== words) state.textContent = words; }; // a change is seen below again
const show = () => {
  const picture = whose();
  if (typed && picture?.folder === typed.folder && picture.file === typed.file && picture.saved === typed.text) {
    typed = null;
    say("Saved.");
  } else if (typed) say("Not saved yet.");
};
document.addEventListener("input", (event) => {
  const picture = whose();
  if (event.target !== box() || !picture) return;
  typed = { folder: picture.folder, file: picture.file, text: event.target.value };
  show();
}, true);
// An answer draws the picture's line anew, and with it what is saved.
new MutationObserver(show).observe(document.body, { childList: true, subtree: true });

const leave = () => {
  if (!typed) return;
  const { folder, file, text } = typed;
  const parts = file.split("/").map(encodeURIComponent).join("/");
  const address = new URL(`api/v1/datasets/-/captions/${parts}?folder=${encodeURIComponent(folder)}`, document.baseURI);
  fetch(address, {
    method: "PUT",
    keepalive: true,
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ text }),
  }).catch(() => {});
};
window.addEventListener("pagehide", leave);
document.addEventListener("visibilitychange", () => { if (document.visibilityState === "hidden") leave(); });
