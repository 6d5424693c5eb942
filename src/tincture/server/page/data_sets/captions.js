// The captions of a folder as they are typed: what of them is on the server, what is on its way, what is still to be
// saved. A text belongs to the file that it was typed for, whatever is shown since; texts of one file go one after the
// other, so that the last one stays; what was not confirmed stands in the browser's storage, and is sent again.

const oneLine = (text) => text.split(/\r\n|\r|\n/).map((line) => line.trim()).filter(Boolean).join(" ");

// What was typed and is not saved, by file or field, in one of the browser's storages.
const makeDrafts = (place, storage = "localStorage") => {
  const read = () => { try { return JSON.parse(window[storage].getItem(place)) ?? {}; } catch { return {}; } };
  const change = (act) => {
    const all = read();
    act(all);
    try {
      if (Object.keys(all).length) window[storage].setItem(place, JSON.stringify(all));
      else window[storage].removeItem(place);
    } catch { /* a full or forbidden storage: captions are still saved by the server */ }
  };
  return {
    read,
    put: (name, typed) => change((all) => { all[name] = typed; }),
    drop: (name) => change((all) => { delete all[name]; }),
  };
};

// `send(captions)` writes captions by file and throws an Error with a sentence; `changed(file)` is called when a caption
// or its state changed: "", unsaved, saving, saved, failed.
const makeCaptions = (place, send, changed) => {
  const entries = new Map(); // file → {saved, text, state, fault, going, held}
  const past = []; // what can be undone: maps of file → the caption before
  const drafts = makeDrafts(place);
  const isOpen = (entry) => entry.text !== entry.saved || entry.going;
  const note = (file, state, why = "") => {
    if (!entries.has(file)) return; // it was deleted meanwhile
    Object.assign(entries.get(file), { state, fault: why });
    changed(file);
  };

  const save = async (file) => {
    const entry = entries.get(file);
    while (oneLine(entry.text) !== entry.saved) {
      const text = oneLine(entry.text), before = entry.saved;
      note(file, "saving");
      try {
        await send({ [file]: text });
      } catch (error) {
        return note(file, "failed", error.message);
      }
      entry.saved = text;
      past.push(new Map([[file, before]]));
    }
    entry.text = entry.saved;
    drafts.drop(file);
    note(file, "saved");
  };

  const all = {
    text: (file) => entries.get(file)?.text ?? "",
    state: (file) => entries.get(file)?.state ?? "",
    fault: (file) => entries.get(file)?.fault ?? "",
    isOpen: (file) => Boolean(entries.get(file) && isOpen(entries.get(file))),
    put: (file, caption) => entries.set(file, { saved: caption, text: caption, state: "", fault: "", going: null }),
    hold: (file, held) => { entries.get(file).held = held; }, // nothing is saved of one that is being deleted
    forget: (file) => { entries.delete(file); drafts.drop(file); },
    edit: (file, text) => {
      const entry = entries.get(file);
      entry.text = text;
      drafts.put(file, { text, base: entry.saved }); // base is what the server had when the text was begun
      note(file, text === entry.saved && !entry.going ? "" : "unsaved");
    },
    commit: (file) => {
      const entry = entries.get(file);
      if (!entry || entry.held || !isOpen(entry)) return Promise.resolve();
      entry.going ??= save(file).finally(() => { entry.going = null; });
      return entry.going;
    },
    commitAll: () => Promise.all([...entries.keys()].map(all.commit)),

    // Several, as the server wrote them: [{file, before, after}]. They are undone together, with those of `group`, which
    // is returned; what is typed meanwhile stays.
    written: (changes, group = new Map()) => {
      for (const { file, before, after } of changes) {
        const entry = entries.get(file);
        if (!entry) continue;
        group.set(file, before);
        const typing = isOpen(entry);
        entry.saved = after;
        if (typing) continue;
        entry.text = after;
        note(file, "saved");
      }
      if (group.size && !past.includes(group)) past.push(group);
      return group;
    },

    // Takes the last change back, of one caption or of many; returns the files, or throws what went wrong.
    undo: async () => {
      await all.commitAll();
      const group = past.at(-1);
      if (!group) return [];
      const before = Object.fromEntries([...group].filter(([file]) => entries.has(file)));
      await send(before);
      past.splice(past.indexOf(group), 1);
      for (const [file, text] of Object.entries(before)) {
        Object.assign(entries.get(file), { saved: text, text });
        drafts.drop(file);
        note(file, "");
      }
      return Object.keys(before);
    },

    // What an earlier page could not save is saved now. A caption that was changed since stays: returned as [file, text].
    recover: () => {
      const others = [];
      for (const [file, { text, base }] of Object.entries(drafts.read())) {
        const entry = entries.get(file);
        if (!entry || oneLine(text) === entry.saved) drafts.drop(file);
        else if (base !== entry.saved) others.push([file, text]);
        else {
          all.edit(file, text);
          all.commit(file);
        }
      }
      return others;
    },
  };
  return all;
};
