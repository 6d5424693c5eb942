// Buttons that lead on, for the whole page; way_on.py makes them.
(() => {
  // "train/datasets": the tab, and the one within it.
  const openTab = (place) => {
    const [outer, inner] = place.split("/");
    const find = (within, id) => document.querySelector(`#${within} [role=tab][data-tab-id="${id}"]`);
    find("tabs", outer)?.click();
    if (inner) find("train-tabs", inner)?.click();
    window.scrollTo({ top: 0 });
  };

  const follow = ({ way, carried, tab }) => {
    if (tab) openTab(tab);
    if (way) document.dispatchEvent(new CustomEvent("way", { detail: { way, carried } }));
  };

  // After an answer: only for who still stands at the button; who has gone on to type stays where that is.
  window.followWay = (way) => {
    const isBusy = document.activeElement?.matches("input, textarea, select") || window.commandsUnderWay();
    if (way.carried && !isBusy) follow(way);
  };

  // The clipboard is not there for a page that came over plain HTTP from another machine.
  const copy = async (text, beside) => {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      const field = Object.assign(document.createElement("textarea"), { value: text, readOnly: true });
      beside.after(field);
      field.select();
      const copied = document.execCommand("copy");
      field.remove();
      beside.focus();
      return copied;
    }
  };

  document.addEventListener("click", async (event) => {
    const button = event.target.closest?.("button[data-copy], button[data-tab]");
    if (!button) return;
    if (button.dataset.copy === undefined) return follow(button.dataset);
    const usual = (button.dataset.usual ??= button.textContent);
    button.textContent = (await copy(button.dataset.copy, button)) ? "Copied" : "Select and copy it";
    setTimeout(() => { button.textContent = usual; }, 2000);
  });
})();
