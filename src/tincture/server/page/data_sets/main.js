// The data set that is open, and what its parts have to do with each other. `element` is the panel, `trigger` asks Gradio.
const find = (id) => element.querySelector(`#${id}`);
const set = { folder: "", pictures: new Map(), captions: null, current: "", opened: 0, only: null, tags: new Set() };

const say = (place, ...shown) => find(place).replaceChildren(...shown);
const captionOf = (file) => set.captions?.text(file) ?? "";
const isMissing = (file) => !captionOf(file).trim();
const small = (file, side) =>
  address(set.folder, `pictures/${file}`, { side, version: set.pictures.get(file)?.version ?? "" });
const about = (file) => {
  const { mask, cropped, fault: why } = set.pictures.get(file);
  const marks = [why && "cannot be read", mask && "mask", cropped && "cropped"].filter(Boolean);
  return { caption: captionOf(file), marks, fault: why, url: small(file, 192) };
};

const gallery = makeGallery(
  {
    grid: find("ds-gallery"), pager: find("ds-pager"), place: find("ds-place"), back: find("ds-back"),
    forth: find("ds-forth"), none: find("ds-none"),
  },
  about,
  (file, keys) => {
    openPicture(file);
    if (keys) find("ds-text").focus();
    else if (innerWidth < 900) find("ds-editor").scrollIntoView({ block: "start" });
  },
);

// --- what is seen of all: counts, and which pictures ---
const countsOf = () => {
  const files = [...set.pictures.keys()], missing = files.filter(isMissing).length;
  const counts = `${files.length} pictures; ${missing ? `${missing} without a caption` : "all with captions"}.`;
  const sentence = make("p", { className: missing ? "warning" : "done", textContent: counts });
  sentence.setAttribute("role", "status");
  const use = make("button", { type: "button", className: "way strong", textContent: "Use this data set" });
  Object.assign(use.dataset, { way: "data", carried: set.folder, tab: "train/train" });
  return files.length ? [sentence, make("div", { className: "ways" }, use)] : [sentence];
};
const drawAll = () => {
  say("ds-counts", ...countsOf());
  drawTags();
  drawDescribe();
};
let drawing = 0;
const drawSoon = () => { drawing ||= requestAnimationFrame(() => { drawing = 0; if (set.folder) drawAll(); }); };

// Pictures that another part chose: {name, files}, or null for all.
const showOnly = (only) => {
  set.only = only;
  if (!only) set.tags.clear();
  filter();
};
// A picture whose caption is written stays where it is until the next time.
const filter = () => {
  const among = set.only?.files ?? [...set.pictures.keys()], tags = [...set.tags];
  const isListed = (file) =>
    set.pictures.has(file) && tags.every((tag) => hasTag(file, tag)) && (!find("ds-missing").checked || isMissing(file));
  gallery.show(among.filter(isListed));
  const names = [...(set.only ? [set.only.name] : []), ...tags];
  find("ds-filter").textContent = names.length ? `${many(gallery.files().length, "picture")}: ${names.join(", ")}` : "";
  find("ds-unfilter").hidden = !names.length;
  drawTags();
  forgetPreview();
  if (set.current) drawPlace();
};
find("ds-unfilter").addEventListener("click", () => showOnly(null));
find("ds-missing").addEventListener("change", filter);

// --- a folder is opened ---
const sender = (folder) => async (captions) => {
  for (const part of chunks(Object.entries(captions))) {
    await ask(address(folder, "captions"), "PUT", { captions: Object.fromEntries(part) });
  }
};

const openFolder = async (folder) => {
  const mine = ++set.opened;
  closePicture();
  find("ds-all").hidden = true;
  gallery.show([]);
  set.captions?.commitAll();
  if (!folder) {
    set.folder = "";
    return showShelf();
  }
  say("ds-shelf");
  say("ds-counts", make("p", { className: "quiet", textContent: "Reading …" }));
  let answer;
  try {
    await set.captions?.commitAll();
    answer = await ask(address(folder, ""));
  } catch (error) {
    if (mine === set.opened) say("ds-counts", fault(error));
    return;
  }
  if (mine !== set.opened) return;
  Object.assign(set, { folder, pictures: new Map(), only: null });
  set.captions = makeCaptions(`tincture captions ${document.baseURI} ${folder}`, sender(folder), captionChanged);
  for (const picture of answer.pictures) {
    set.pictures.set(picture.file, picture);
    set.captions.put(picture.file, picture.captioned ? picture.caption : "");
  }
  find("ds-all").hidden = !set.pictures.size;
  if (!set.pictures.size) trigger("click", { empty: true });
  for (const place of ["ds-message", "ds-tags-message", "ds-replace-message", "ds-describe-message"]) say(place);
  forgetOverview();
  showDescribers();
  const others = set.captions.recover();
  showOnly(null);
  drawAll();
  for (const [file, text] of others) {
    find("ds-counts").append(fault(`Typed here for ${file}, but changed elsewhere since, so not saved: ${text}`));
  }
};
document.addEventListener("data-set", ({ detail }) => openFolder(detail));

// --- captions, and what becomes of them ---
const captionChanged = (file) => {
  gallery.relabel(file);
  if (file === set.current) drawState();
  drawSoon();
};
const undo = async (place) => {
  try {
    const files = await set.captions.undo();
    const [file] = files;
    if (files.length === 1) openPicture(file);
    if (set.current) drawPicture();
    const which = files.length === 1 ? `The caption of ${file} is` : `${files.length} captions are`;
    say(place, done(files.length ? `${which} as ${files.length === 1 ? "it was" : "they were"} before.` : "There is nothing to take back."));
  } catch (error) {
    say(place, fault(error));
  }
};
for (const button of element.querySelectorAll(".ds-undo")) {
  const place = button.closest("details, section").querySelector("[id$=message]").id;
  button.addEventListener("click", () => undo(place));
}
// The browser sends what is typed even when the page goes.
window.addEventListener("pagehide", () => set.captions?.commitAll());
document.addEventListener("visibilitychange", () => { if (document.hidden) set.captions?.commitAll(); });

// --- where nothing is chosen, all data sets are offered ---
const showShelf = async () => {
  if (set.folder) return;
  const mine = set.opened;
  say("ds-counts");
  try {
    const { datasets } = await ask(new URL("api/v1/datasets", document.baseURI).href);
    if (mine !== set.opened || set.folder) return;
    if (!datasets.length) trigger("click", { empty: true });
    say("ds-counts", make("p", { className: "quiet", textContent: datasets.length ? "Choose a data set, or upload one." : "There is no data set yet; upload one." }));
    say("ds-shelf", ...datasets.map(({ name, path, pictures, captions }) => {
      const words = `${many(pictures, "picture")}, ${many(captions, "caption")}`;
      const card = make("button", { type: "button", className: "ds-card" }, make("b", { textContent: name }), make("span", { textContent: words }));
      card.addEventListener("click", () => { trigger("click", { folder: path }); openFolder(path); });
      return card;
    }));
  } catch (error) {
    say("ds-counts", fault(error));
  }
};
new IntersectionObserver((seen) => { if (seen.some((one) => one.isIntersecting)) showShelf(); }).observe(element);
