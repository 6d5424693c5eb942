// Models that are installed write the captions that are missing, one picture after the other.
const describing = { on: false, stopped: false };
const undescribed = () => [...set.pictures.keys()].filter((file) => isMissing(file) && !set.pictures.get(file).fault);
const drawDescribe = () => {
  const count = undescribed().length, chosen = [...find("ds-describers").querySelectorAll("input:checked")].length;
  find("ds-describe-count").textContent = count ? `(${count} of ${set.pictures.size})` : "(none)";
  find("ds-describe-do").textContent = `Describe ${many(count, "picture")}`;
  find("ds-describe-do").disabled = describing.on || !count || !chosen;
  find("ds-describe-stop").hidden = find("ds-describe-bar").hidden = !describing.on;
};
const DESCRIBERS = { captioner: "A sentence, by a captioner (BLIP)", tagger: "Tags, by a tagger" };
const showDescribers = async () => {
  if (!find("ds-describe").open || describing.on) return;
  try {
    const found = await ask(new URL("api/v1/describers", document.baseURI).href);
    let first = true;
    say("ds-describers", ...Object.entries(DESCRIBERS).map(([what, words]) => {
      const { model, missing } = found[what];
      const box = make("input", { type: "checkbox", value: model, disabled: Boolean(missing), checked: !missing && first });
      box.dataset.what = what;
      box.addEventListener("change", drawDescribe);
      if (!missing) first = false;
      const label = make("label", { className: "ds-check" }, box, missing ? words : `${words}: ${model}`);
      return make("div", {}, label, make("p", { className: "quiet", textContent: missing && `Not to be used yet: ${missing}` }));
    }));
    drawDescribe();
  } catch (error) {
    say("ds-describe-message", fault(error));
  }
};
find("ds-describe").addEventListener("toggle", showDescribers);

const describeAll = async () => {
  const { folder, captions } = set, files = undescribed(), bar = find("ds-describe-bar");
  const models = [...find("ds-describers").querySelectorAll("input:checked")].map((box) => [box.dataset.what, box.value]);
  let written = new Map();
  Object.assign(bar, { max: files.length, value: 0 });
  for (const [place, file] of files.entries()) {
    if (describing.stopped || folder !== set.folder) break;
    bar.value = place;
    say("ds-describe-message", make("p", { className: "quiet", textContent: `Describing ${place + 1} of ${files.length} …` }));
    if (captions.text(file).trim()) continue; // somebody wrote one meanwhile
    const { text } = await ask(address(folder, `descriptions/${file}`), "POST", { ...Object.fromEntries(models), only_missing: true });
    if (captions === set.captions) written = captions.written([{ file, before: "", after: text }], written);
  }
  return written.size;
};
find("ds-describe-do").addEventListener("click", async () => {
  const { folder } = set;
  Object.assign(describing, { on: true, stopped: false });
  drawDescribe();
  try {
    const count = await describeAll();
    const words = describing.stopped ? "Stopped: " : "";
    if (folder === set.folder) say("ds-describe-message", done(`${words}${many(count, "picture")} described.`));
  } catch (error) {
    if (folder === set.folder) say("ds-describe-message", fault(error));
  }
  describing.on = false;
  drawDescribe();
});
find("ds-describe-stop").addEventListener("click", () => { describing.stopped = true; });
