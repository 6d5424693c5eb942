// Says that the form of a training was changed, some moments after the last change, where the form can be seen.
let waiting = null;
const seen = () => element.closest("[role=tabpanel]")?.checkVisibility() ?? false;
const later = () => {
  clearTimeout(waiting);
  waiting = setTimeout(() => { if (seen()) trigger("click", {}); }, 350);
};
const within = "#tab-train";
for (const name of ["input", "change"]) {
  document.addEventListener(name, (event) => { if (event.target.closest?.(within)) later(); }, true);
}
// Choices of a list, tabs and answers of the server bring no such event; a list takes its choice on the way down.
document.addEventListener("mousedown", (event) => {
  if (event.target.closest?.("[role=option], [role=tab], .way")) later();
}, true);
document.addEventListener("keyup", (event) => {
  if (event.key === "Enter" && event.target.closest?.(within)) later();
}, true);
document.addEventListener("form-filled", later);
later();
