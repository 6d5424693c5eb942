// The tools for the picture that is open: crop and mask. One of them at a time; what they do is done on the server.
let tool = ""; // crop, mask or none
const trainingSize = () => {
  const [width, height] = ["tr-width", "tr-height"].map((id) => Number(document.querySelector(`#${id} input`)?.value) || 0);
  return width && height ? [width, height] : null; // 0: the model's own size, which is a square
};
const shapes = { training: () => { const size = trainingSize(); return size ? size[0] / size[1] : 1; }, square: () => 1,
  picture: ([width, height]) => width / height };
const crop = makeCrop(
  {
    stage: find("ds-stage"), frame: find("ds-frame"), box: find("ds-box"),
    fields: Object.fromEntries(["left", "top", "width", "height"].map((name) => [name, find(`ds-crop-${name}`)])),
  },
  (size) => shapes[find("ds-shape").value]?.(size),
  () => find("ds-crop-do").click(),
);
const mask = makeMask(
  { canvas: find("ds-canvas"), size: find("ds-brush") },
  () => find("ds-erase").checked,
  (canUndo) => { find("ds-mask-undo").disabled = !canUndo; saveMaskSoon(); },
);

const showTool = (name) => {
  tool = name;
  for (const each of ["crop", "mask"]) {
    find(`ds-${each}`).setAttribute("aria-pressed", each === name);
    find(`ds-${each}-tools`).hidden = each !== name;
  }
  if (name !== "crop") crop.close();
  find("ds-canvas").hidden = name !== "mask";
};
// Whether there was one to close.
const closeTool = () => {
  if (!tool) return false;
  mask.close();
  saveMask();
  showTool("");
  return true;
};
const press = (name, open) => {
  find(`ds-${name}`).addEventListener("click", () => {
    const again = tool === name;
    closeTool();
    if (!again) open();
  });
};

// The picture as the server has it now, in the gallery and here.
const take = (folder, answer) => {
  if (folder !== set.folder || !set.pictures.has(answer.file)) return;
  set.pictures.set(answer.file, answer);
  gallery.redraw(answer.file);
  if (answer.file === set.current) drawPicture();
};

// --- crop ---
press("crop", () => {
  const { width, height } = set.pictures.get(set.current), size = trainingSize();
  const option = find("ds-shape").querySelector("[value=training]");
  option.textContent = `As the training${size ? `, ${size[0]} × ${size[1]}` : ", a square"}`;
  showTool("crop");
  crop.open(width, height);
  find("ds-box").focus();
});
find("ds-shape").addEventListener("change", crop.reshape);
const cropped = async (act, sentence) => {
  const { folder, current: file } = set;
  const buttons = [find("ds-crop-do"), find("ds-original")];
  if (buttons[0].disabled) return;
  buttons.forEach((button) => { button.disabled = true; });
  try {
    await saveMask();
    take(folder, await act(address(folder, `crops/${file}`)));
    if (file !== set.current) return;
    closeTool();
    say("ds-message", done(sentence(set.pictures.get(file))));
    find("ds-crop").focus();
  } catch (error) {
    say("ds-message", fault(error));
  } finally {
    buttons.forEach((button) => { button.disabled = false; });
  }
};
find("ds-crop-do").addEventListener("click", () => {
  const box = crop.box();
  if (box) cropped((url) => ask(url, "PUT", box), ({ width, height }) => `Cropped to ${width} × ${height}; the original can be put back.`);
});
find("ds-crop-cancel").addEventListener("click", () => { closeTool(); find("ds-crop").focus(); });
find("ds-original").addEventListener("click", () => cropped((url) => ask(url, "DELETE"), () => "The original is back."));

// --- mask: saved some moments after each stroke, and when the picture is left ---
const masks = { wanted: null, waiting: 0, going: Promise.resolve() };
press("mask", async () => {
  const { folder, current: file } = set, { width, height, mask: has } = set.pictures.get(file);
  try {
    await masks.going;
    let picture = null;
    if (has) {
      picture = new Image();
      picture.src = address(folder, `masks/${file}`, { time: Date.now() });
      await picture.decode();
    }
    if (folder !== set.folder || file !== set.current || tool) return;
    showTool("mask");
    find("ds-mask-undo").disabled = true;
    mask.open(width, height, picture);
    find("ds-canvas").focus();
  } catch {
    say("ds-message", fault("The mask cannot be read; delete it where it lies, in the folder mask."));
  }
});
const saveMaskSoon = () => {
  masks.wanted = { folder: set.folder, file: set.current };
  find("ds-mask-state").textContent = "Not saved yet.";
  clearTimeout(masks.waiting);
  masks.waiting = setTimeout(saveMask, 600);
};
// The strokes that are not saved yet; resolved once they are.
const saveMask = () => {
  clearTimeout(masks.waiting);
  const { wanted } = masks;
  if (!wanted) return masks.going;
  masks.wanted = null;
  if (mask.isBlack()) {
    find("ds-mask-state").textContent = "Not saved: nothing would be learned; leave some of the picture without red.";
    return masks.going;
  }
  const png = mask.png();
  masks.going = masks.going.then(async () => {
    try {
      take(wanted.folder, await ask(address(wanted.folder, `masks/${wanted.file}`), "PUT", { png }));
      if (!masks.wanted) find("ds-mask-state").textContent = "Saved.";
    } catch (error) {
      say("ds-message", fault(error));
    }
  });
  return masks.going;
};
find("ds-mask-undo").addEventListener("click", () => mask.undo());
find("ds-mask-clear").addEventListener("click", () => mask.clear());
find("ds-mask-invert").addEventListener("click", () => mask.invert());
window.addEventListener("pagehide", () => { mask.close(); saveMask(); });
