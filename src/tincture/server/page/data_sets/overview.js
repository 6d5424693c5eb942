// The pictures as a whole: which show the same, and which sizes they get in a training.
const forgetOverview = () => {
  for (const place of ["ds-twins", "ds-twins-message", "ds-bars", "ds-sizes-message"]) say(place);
};

// --- duplicates ---
const twin = (file) => {
  const { width, height } = set.pictures.get(file);
  const open = make("button", { type: "button", className: "ds-open" }, make("img", { src: small(file, 256), alt: "", loading: "lazy" }));
  open.setAttribute("aria-label", `Open ${file}`);
  open.addEventListener("click", () => { openPicture(file); find("ds-editor").scrollIntoView({ block: "nearest" }); });
  const drop = make("button", { type: "button", className: "way", textContent: "Delete this one" });
  drop.setAttribute("aria-label", `Delete ${file}`);
  const about = make("figcaption", {}, make("b", { textContent: file }), make("span", { textContent: `${width} × ${height}` }), make("span", { textContent: captionOf(file) || "no caption" }));
  const figure = make("figure", {}, open, about, drop);
  figure.dataset.file = file;
  drop.addEventListener("click", () => askAndDelete(figure, drop));
  return figure;
};
// The second press deletes; leaving the button calls it off.
const askAndDelete = async (figure, drop) => {
  const { file } = figure.dataset;
  if (drop.dataset.sure === undefined) {
    drop.dataset.sure = "";
    drop.classList.add("danger");
    drop.textContent = "Delete for good";
    drop.setAttribute("aria-label", `Delete ${file} for good`);
    drop.addEventListener("blur", () => figure.isConnected && set.pictures.has(file) && !drop.disabled && figure.replaceWith(twin(file)), { once: true });
    return;
  }
  drop.disabled = true;
  try {
    const next = await removePicture(file);
    if (set.current === file) { set.current = ""; next ? openPicture(next) : closePicture(); }
    say("ds-twins-message", done(`${file} is deleted.`));
  } catch (error) {
    drop.disabled = false;
    say("ds-twins-message", fault(error));
  }
};
const dropFromTwins = (file) => {
  for (const group of [...find("ds-twins").children]) {
    [...group.children].find((each) => each.dataset.file === file)?.remove();
    if (group.children.length < 2) group.remove();
  }
};
find("ds-twins-find").addEventListener("click", () => attempt("ds-twins-message", async () => {
  const { folder } = set, button = find("ds-twins-find");
  button.disabled = true;
  say("ds-twins");
  say("ds-twins-message", make("p", { className: "quiet", textContent: "Comparing all pictures …" }));
  try {
    const { groups } = await ask(address(folder, "duplicates"));
    if (folder !== set.folder) return "";
    const known = groups.map((group) => group.filter((file) => set.pictures.has(file))).filter((group) => group.length > 1);
    say("ds-twins", ...known.map((group) => make("div", { className: "ds-group" }, ...group.map(twin))));
    return done(known.length ? `${many(known.length, "group")} of pictures that show the same, or nearly.` : "No two pictures show the same.");
  } finally {
    button.disabled = false;
  }
}));

// --- sizes ---
const fromTraining = () => {
  const [width, height] = trainingSize() ?? [512, 512];
  Object.assign(find("ds-sizes-width"), { value: width });
  Object.assign(find("ds-sizes-height"), { value: height });
  find("ds-sizes-buckets").checked = document.querySelector("#tr-buckets input")?.checked ?? false;
};
// The browser reports an opened section late, at times after the first letter in it: what was entered stays.
let sizesEntered = false;
find("ds-sizes").addEventListener("input", () => { sizesEntered = true; });
find("ds-sizes").addEventListener("toggle", () => { if (find("ds-sizes").open && !sizesEntered && !find("ds-bars").children.length) fromTraining(); });
const bar = (one, most) => {
  const name = one.width && one.height ? `${one.width} × ${one.height}` : "no size";
  const facts = [many(one.files.length, "picture"), one.cropped > 0.005 && `${Math.round(100 * one.cropped)} % cut off`, one.enlarged && `${one.enlarged} enlarged`];
  const fill = make("span", { className: "ds-fill" });
  fill.style.width = `${(100 * one.files.length) / most}%`;
  const button = make("button", { type: "button", className: "ds-bar" }, make("b", { textContent: name }), make("span", { className: "ds-track" }, fill), make("span", { textContent: facts.filter(Boolean).join(", ") }));
  button.addEventListener("click", () => showOnly({ name: `trained at ${name}`, files: one.files }));
  return button;
};
const warnings = (sizes, buckets) => {
  const made = [], enlarged = sizes.flatMap((one) => one.enlarged_files), alone = sizes.filter((one) => one.files.length === 1);
  const cut = sizes.filter((one) => one.cropped > 0.25).flatMap((one) => one.files);
  const none = sizes.filter((one) => !one.width || !one.height).flatMap((one) => one.files);
  const warn = (files, sentence, name) => {
    if (!files.length) return;
    const show = make("button", { type: "button", className: "way", textContent: "Show them" });
    show.setAttribute("aria-label", `Show those that are ${name}`);
    show.addEventListener("click", () => showOnly({ name, files }));
    made.push(make("p", { className: "warning" }, `${sentence} `, show));
  };
  warn(enlarged, `${many(enlarged.length, "picture")} would be enlarged, and trained blurred; use larger ones, or train smaller.`, "enlarged");
  warn(cut, `Of ${many(cut.length, "picture")} more than a quarter is cut off${buckets ? "" : "; buckets cut off less"}.`, "cut off by much");
  warn(none, `${many(none.length, "picture")} cannot be trained at any of these sizes.`, "without a size");
  if (buckets && alone.length > 1) warn(alone.flatMap((one) => one.files), `${alone.length} sizes have one picture each, which makes batches of one.`, "alone in their size");
  return made;
};
find("ds-sizes-show").addEventListener("click", () => attempt("ds-sizes-message", async () => {
  say("ds-bars");
  const [width, height] = ["width", "height"].map((side) => Number(find(`ds-sizes-${side}`).value));
  if (!(width >= 8 && height >= 8) || width % 8 || height % 8) throw new Error("Width and height are multiples of 8, and at least 8.");
  const buckets = find("ds-sizes-buckets").checked, { folder } = set;
  const { sizes } = await ask(address(folder, "sizes", { width, height, buckets }));
  if (folder !== set.folder) return "";
  const most = Math.max(...sizes.map((one) => one.files.length));
  say("ds-bars", ...sizes.map((one) => bar(one, most)));
  return make("div", {}, ...warnings(sizes, buckets));
}));
