// What the captions hold: tags by count, which filter the gallery, and changes to all captions that are listed.
const tagsOf = (caption) => caption.split(",").map((tag) => tag.trim()).filter(Boolean);
const hasTag = (file, tag) => tagsOf(captionOf(file)).some((each) => each.toLowerCase() === tag);

// [[tag as it is written first, in how many captions]], the most frequent one first.
const countTags = () => {
  const counts = new Map();
  for (const file of set.pictures.keys()) {
    for (const tag of new Map(tagsOf(captionOf(file)).map((each) => [each.toLowerCase(), each])).values()) {
      const found = counts.get(tag.toLowerCase()) ?? [tag, 0];
      counts.set(tag.toLowerCase(), [found[0], found[1] + 1]);
    }
  }
  return [...counts.values()].sort((one, other) => other[1] - one[1] || one[0].localeCompare(other[0]));
};
const drawTags = () => {
  const counted = countTags(), focused = document.activeElement?.dataset?.tag;
  find("ds-words-count").textContent = counted.length ? `(${counted.length})` : "(none yet)";
  say("ds-words-list", ...counted.map(([tag, count]) => {
    const chip = make("button", { type: "button", className: "ds-chip" }, tag, make("b", { textContent: count }));
    chip.dataset.tag = tag.toLowerCase();
    chip.setAttribute("aria-label", `${tag}, in ${many(count, "caption")}`);
    chip.setAttribute("aria-pressed", set.tags.has(tag.toLowerCase()));
    chip.addEventListener("click", () => filterByTag(tag.toLowerCase()));
    return chip;
  }));
  if (focused) [...find("ds-words-list").children].find((chip) => chip.dataset.tag === focused)?.focus();
};
const filterByTag = (tag) => {
  if (!set.tags.delete(tag)) set.tags.add(tag);
  filter();
};

// --- changes to many captions ---
// [{file, before, after}]: what changes, or would change.
const changeCaptions = async (change, text, by, preview = false) => {
  await set.captions.commitAll();
  const every = gallery.files().length === set.pictures.size, changed = [];
  for (const files of every ? [null] : chunks(gallery.files())) {
    const body = { change, find: text, by, preview, files };
    changed.push(...(await ask(address(set.folder, "captions"), "POST", body)).changed);
  }
  if (!preview) set.captions.written(changed);
  return changed;
};
const valueIn = (id) => find(id).querySelector("input").value;
const attempt = async (place, act) => {
  try {
    say(place, await act());
  } catch (error) {
    say(place, fault(error));
  }
};
const require = (text, sentence) => { if (!text.trim()) throw new Error(sentence); };

for (const button of find("ds-tags").querySelectorAll("[data-change]")) {
  button.addEventListener("click", () => attempt("ds-tags-message", async () => {
    require(valueIn("ds-tag"), "No tag is given; write one.");
    const changed = await changeCaptions(button.dataset.change, valueIn("ds-tag"), valueIn("ds-other"));
    forgetTyped("ds-tag", "ds-other");
    return done(`${many(changed.length, "caption")} changed.`);
  }));
}

// --- find and replace: seen before it is done ---
const MOST_SEEN = 50;
const forgetPreview = () => {
  find("ds-apply").hidden = true;
  say("ds-changes");
};
const seen = ({ file, before, after }) =>
  make("li", {}, make("b", { textContent: file }), make("del", { textContent: before || "no caption" }), make("ins", { textContent: after || "no caption" }));
find("ds-replace").addEventListener("input", forgetPreview);
find("ds-preview").addEventListener("click", () => attempt("ds-replace-message", async () => {
  forgetPreview();
  require(valueIn("ds-find"), "Nothing is given to find; write a text that captions hold.");
  const changes = await changeCaptions("text", valueIn("ds-find"), valueIn("ds-by"), true);
  say("ds-changes", ...changes.slice(0, MOST_SEEN).map(seen));
  find("ds-apply").hidden = !changes.length;
  find("ds-apply").textContent = `Change ${many(changes.length, "caption")}`;
  const more = changes.length > MOST_SEEN ? ` The first ${MOST_SEEN} are shown.` : "";
  return make("p", { className: "quiet", textContent: `${many(changes.length, "caption")} would change.${more}` });
}));
find("ds-apply").addEventListener("click", () => attempt("ds-replace-message", async () => {
  const changed = await changeCaptions("text", valueIn("ds-find"), valueIn("ds-by"));
  forgetTyped("ds-find", "ds-by");
  forgetPreview();
  return done(`${many(changed.length, "caption")} changed.`);
}));
find("ds-replace").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && event.target.matches("input")) find("ds-preview").click();
});

// --- what was typed into these fields and not done yet is there again after a reload ---
const typed = makeDrafts(`tincture changes ${document.baseURI}`, "sessionStorage");
const forgetTyped = (...ids) => ids.forEach(typed.drop);
for (const id of ["ds-tag", "ds-other", "ds-find", "ds-by"]) {
  const field = find(id).querySelector("input"), text = typed.read()[id];
  field.addEventListener("input", () => (field.value ? typed.put(id, field.value) : typed.drop(id)));
  if (!text) continue;
  field.value = text;
  field.closest("details").open = true;
}
