// The picture that is open, beside the gallery: its caption, the way to the next one, and its end.
const drawState = () => {
  const words = { unsaved: "Not saved yet.", saving: "Not saved yet.", saved: "Saved." };
  const state = set.captions.state(set.current);
  if (state === "failed") say("ds-state", fault(set.captions.fault(set.current)));
  else find("ds-state").textContent = words[state] ?? "";
  const text = captionOf(set.current), box = find("ds-text");
  // Lines are joined once they are saved, but not under the fingers.
  if (box.value !== text && !(document.activeElement === box && oneLine(box.value) === text)) box.value = text;
};
const drawPlace = () => {
  const { width, height, fault: why } = set.pictures.get(set.current);
  const { marks } = about(set.current);
  const size = why || [`${width} × ${height}`, ...marks].join(", ");
  find("ds-about").textContent = `${set.current}, ${size}, ${gallery.where(set.current)}`;
};
const drawPicture = () => {
  const { width, height, fault: why } = set.pictures.get(set.current), image = find("ds-stage").querySelector("img");
  find("ds-stage").hidden = Boolean(why);
  find("ds-stage").style.aspectRatio = `${width || 1} / ${height || 1}`;
  find("ds-stage").style.width = `min(100%, ${Math.round((420 * (width || 1)) / (height || 1))}px)`;
  if (why) image.removeAttribute("src");
  else image.src = small(set.current, 1024);
  image.alt = captionOf(set.current) || set.current;
  find("ds-tools").hidden = Boolean(why);
  find("ds-original").hidden = !set.pictures.get(set.current).cropped;
  drawPlace();
  drawState();
};

const openPicture = (file) => {
  if (!set.pictures.has(file) || file === set.current) return;
  leavePicture();
  set.current = file;
  gallery.mark(file);
  find("ds-editor").hidden = false;
  find("ds-sure").hidden = true;
  find("ds-text").value = captionOf(file);
  say("ds-message");
  drawPicture();
};
// What was begun for the picture is saved, whatever comes next.
const leavePicture = () => {
  if (!set.current) return;
  closeTool();
  set.captions.commit(set.current);
};
const closePicture = () => {
  leavePicture();
  set.current = "";
  find("ds-editor").hidden = true;
  gallery.mark("");
};
const closeToGallery = () => {
  const file = set.current;
  closePicture();
  gallery.focus(file);
};

find("ds-text").addEventListener("input", (event) => set.captions.edit(set.current, event.target.value));
find("ds-text").addEventListener("blur", () => { if (set.current) set.captions.commit(set.current); });
find("ds-text").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !(event.shiftKey || event.ctrlKey || event.metaKey)) return;
  event.preventDefault();
  set.captions.commit(set.current);
});
find("ds-save").addEventListener("click", async () => {
  await set.captions.commit(set.current);
  if (set.current && set.captions.state(set.current) !== "failed") find("ds-state").textContent = "Saved.";
});
find("ds-previous").addEventListener("click", () => openPicture(gallery.beside(set.current, -1)));
find("ds-next").addEventListener("click", () => openPicture(gallery.beside(set.current, 1)));
find("ds-close").addEventListener("click", closeToGallery);
element.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || !set.current || event.defaultPrevented) return;
  event.preventDefault();
  const open = tool;
  if (!closeTool()) return closeToGallery();
  find(`ds-${open}`).focus();
});

// --- a picture is deleted, here or among duplicates ---
const removePicture = async (file) => {
  await set.captions.commit(file);
  set.captions.hold(file, true);
  try {
    await ask(address(set.folder, `pictures/${file}`), "DELETE");
  } catch (error) {
    set.captions.hold(file, false);
    throw error;
  }
  set.pictures.delete(file);
  set.captions.forget(file);
  const next = gallery.without(file);
  dropFromTwins(file);
  drawSoon();
  return next;
};
find("ds-delete").addEventListener("click", () => {
  find("ds-sure").hidden = false;
  find("ds-really").focus();
});
find("ds-keep").addEventListener("click", () => {
  find("ds-sure").hidden = true;
  find("ds-delete").focus();
});
find("ds-really").addEventListener("click", async () => {
  const file = set.current, folder = set.folder;
  if (find("ds-really").disabled) return;
  find("ds-really").disabled = true;
  try {
    const next = await removePicture(file);
    if (set.current !== file || set.folder !== folder) return;
    set.current = ""; // what was typed for it goes with it
    const typing = document.activeElement === find("ds-text");
    if (next) openPicture(next);
    else closePicture();
    // What is still typed for the one that is gone is not for the next, nor does it press a button.
    if (typing) find("ds-editor").focus();
    else gallery.focus(next);
    say("ds-message", done(`${file} is deleted.`));
  } catch (error) {
    say("ds-message", fault(error));
  } finally {
    find("ds-really").disabled = false;
  }
});
