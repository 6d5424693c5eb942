// Keeps what a person does while an answer is under way, for all tabs; requests.py says how. It stands between the page
// and Gradio's two addresses: queue/join takes a request, queue/data streams the answers.
(() => {
  const original = window.fetch.bind(window);
  const dependencies = new Map(); // by id, as Gradio's configuration has them
  const commands = new Set(); // ids of those that are neither refreshed in what is hidden nor asked again
  const typing = new Set(); // ids of those that need only the last of several values
  const hidden = new Set(); // ids of inputs that nobody sees
  const readers = new Map(); // the inputs of each form, and who waits for their values, by the button that reads them
  let inputs = []; // ids of those that answers may write into
  const elements = new Map(); // their ids in the document
  const acts = new Map(); // how often a person did something in them
  const active = new Set(); // requests, from being triggered until their answer stands in the page
  const sent = new Map(); // requests by the id that the server gave them
  const posting = new Set(); // promises of such ids
  const arriving = new Set(); // requests whose answer was let through, and may not stand in the page yet
  let repeated = 0, twins = 0;

  const pause = (ms = 0) => new Promise((resolve) => setTimeout(resolve, ms));
  const frame = () => new Promise((resolve) => requestAnimationFrame(resolve));
  const text = (value) => JSON.stringify(value ?? null);
  const isUpdate = (value) => value?.__type__ === "update";
  const hasValue = (value) => !isUpdate(value) || "value" in value;
  const valueOf = (value) => (isUpdate(value) ? value.value : value);

  // What Gradio would drop ("once") or put off ("always_last") while it is under way comes here, to be put in its order.
  const prepare = (config) => {
    const buttons = new Map(); // of the readers, by id
    for (const one of config.components) {
      if (one.props.elem_id?.startsWith("page-values-")) buttons.set(one.id, one.props.elem_id);
      if (one.props.visible === "hidden") hidden.add(one.id);
      elements.set(one.id, one.props.elem_id ?? `component-${one.id}`);
    }
    for (const one of config.dependencies) {
      dependencies.set(one.id, one);
      const button = buttons.get(one.targets[0]?.[0]);
      if (button) readers.set(button, { inputs: one.inputs, waiting: [] });
      const clock = one.targets.some(([, event]) => event === "tick" || event === "load");
      if (one.trigger_mode === "once" && clock) continue;
      if (one.trigger_mode === "always_last") typing.add(one.id);
      if (one.trigger_mode === "once" && (one.trigger_after ?? null) === null) commands.add(one.id);
      one.trigger_mode = "multiple";
    }
    const asks = (one) => one.backend_fn && (one.trigger_after ?? null) === null;
    const clicked = config.dependencies.filter(asks).flatMap((one) => one.targets.filter(([, event]) => event === "click"));
    window.feedback.setAsking(new Set(clicked.map(([id]) => elements.get(id))));
    const written = new Set(config.dependencies.flatMap((one) => (one.backend_fn ? one.outputs : [])));
    inputs = [...readers.values()].flatMap((one) => one.inputs).filter((id) => written.has(id));
  };
  let configuration = window.gradio_config;
  if (configuration) prepare(configuration);
  Object.defineProperty(window, "gradio_config", {
    get: () => configuration,
    set: (value) => { if (!configuration) prepare(value); configuration = value; },
  });

  // --- what stands in the inputs now, as JSON by id ---
  // For what comes by itself after an answer, and shall not come between a person and what was asked for since.
  window.commandsUnderWay = () => [...active].some((one) => commands.has(one.dependency.id) && !one.answered);
  window.pageValues = (name, values) => readers.get(name).waiting.shift()?.(values);
  const readForm = async ([name, reader]) => {
    while (!document.getElementById(name)) await pause(10); // the page is not drawn yet
    const values = await new Promise((resolve) => {
      const ask = () => {
        if (!reader.waiting.includes(resolve)) return;
        document.getElementById(name)?.click();
        setTimeout(ask, 1000); // Gradio hears no click while it still puts the page together
      };
      reader.waiting.push(resolve);
      ask();
    });
    return reader.inputs.map((id, place) => [id, text(values[place])]);
  };
  const readForms = async (isWanted) => {
    const wanted = [...readers].filter(([, reader]) => reader.inputs.some(isWanted));
    return (await Promise.all(wanted.map(readForm))).flat();
  };
  // Of those among these ids that answers may write into, and of others of the same forms.
  const current = async (ids) => {
    const found = await readForms((id) => inputs.includes(id) && ids.includes(id));
    return new Map(found.filter(([id]) => inputs.includes(id)));
  };
  // Of any inputs, by their ids in the document.
  window.valuesOf = async (names) => {
    const found = await readForms((id) => names.includes(elements.get(id)));
    return new Map(found.map(([id, value]) => [elements.get(id), value]));
  };

  const act = (event) => {
    for (const id of inputs) {
      if (!document.getElementById(elements.get(id))?.contains(event.target)) continue;
      acts.set(id, (acts.get(id) ?? 0) + 1);
      if (event.type === "input") for (const one of arriving) one.typed.set(event.target, event.target.value);
    }
  };
  for (const name of ["input", "change", "keydown", "pointerdown", "mousedown", "paste", "drop"]) {
    window.addEventListener(name, act, true);
  }

  // --- an answer that redraws a button while it is pressed would lose the click ---
  let pressed = null, release = null;
  const press = (event) => {
    if (pressed || !event.target.closest?.("button, a, label, summary, [role=option], [role=tab]")) return;
    if (event.type === "keydown" && event.key !== " ") return;
    pressed = new Promise((resolve) => { release = resolve; });
    setTimeout(let_go, 3000);
  };
  const let_go = () => setTimeout(() => { release?.(); pressed = release = null; });
  for (const name of ["pointerdown", "keydown"]) window.addEventListener(name, press, true);
  for (const name of ["pointerup", "pointercancel", "keyup", "blur"]) window.addEventListener(name, let_go, true);

  // --- what came just before stands in the page only now: a button that it turned into another is still the first ---
  let meant = null;
  window.addEventListener("pointerdown", ({ target }) => {
    const button = target.closest?.("button");
    meant = button && { button, data: { ...button.dataset } };
  }, true);
  const dress = (button, data) => {
    for (const name of Object.keys(button.dataset)) if (!(name in data)) delete button.dataset[name];
    Object.assign(button.dataset, data);
  };
  window.addEventListener("click", (event) => {
    const { button, data } = meant ?? {}, now = { ...button?.dataset };
    meant = null;
    if (!event.isTrusted || !button?.contains(event.target) || text(now) === text(data)) return;
    dress(button, data);
    setTimeout(() => { if (text({ ...button.dataset }) === text(data)) dress(button, now); });
  }, true);

  // --- requests, each after those whose answers it reads or writes over ---
  const follows = (one, other) =>
    other.dependency.outputs.some((id) => one.dependency.inputs.includes(id) || one.dependency.outputs.includes(id));

  const supersedes = (one, other) =>
    one.dependency === other.dependency && one.body.trigger_id === other.body.trigger_id;

  const remember = async (request) => {
    const { inputs: read, outputs } = request.dependency;
    request.before = await current([...read, ...outputs]);
    read.forEach((id, place) => {
      const value = request.body.data[place];
      if (inputs.includes(id) && typeof value !== "object") request.before.set(id, text(value));
    });
  };

  const refresh = (request) => request.dependency.inputs.forEach((id, place) => {
    const asPressed = commands.has(request.dependency.id) && hidden.has(id);
    if (request.written.has(id) && !asPressed) request.body.data[place] = JSON.parse(request.written.get(id));
  });

  const post = (request) => {
    const posted = (async () => {
      const init = { ...request.init, body: JSON.stringify(request.body) };
      const response = await original(request.url, init);
      if (!response.ok) return response;
      const { event_id: event } = await response.clone().json();
      request.event ??= event;
      sent.set(event, request);
      return response;
    })();
    posting.add(posted);
    return posted.finally(() => posting.delete(posted));
  };

  const join = async (url, init) => {
    const body = JSON.parse(init.body), dependency = dependencies.get(body.fn_index);
    if (!dependency) return original(url, init);
    const key = JSON.stringify([body.fn_index, body.data, body.event_data]);
    const twin = commands.has(dependency.id) && [...active].find((other) => other.key === key && !other.answered);
    const trigger = document.getElementById(elements.get(body.trigger_id));
    if (twin) {
      window.feedback.show(trigger, twin.finished);
      return twinOf(twin);
    }
    const request = { url, init, body, dependency, key, before: new Map(), written: new Map(), twins: [], typed: new Map() };
    request.acts = new Map(acts);
    request.finished = new Promise((resolve) => { request.finish = resolve; });
    window.feedback.show(trigger, request.finished);
    const older = typing.has(dependency.id) && [...active].find((other) => !other.sent && supersedes(request, other));
    if (older) {
      older.newer = request;
      active.delete(older);
      older.finish();
    }
    const earlier = [...active].filter((other) => follows(request, other));
    active.add(request);
    request.ready = remember(request);
    request.posted = Promise.all([request.ready, ...earlier.map((other) => other.finished)]).then(() => {
      if (request.newer) return twinOf(request.newer);
      request.sent = true;
      refresh(request);
      return post(request);
    });
    try {
      const response = await request.posted;
      if (!response.ok && !request.newer) settle(request, new Map());
      return response;
    } catch (error) {
      settle(request, new Map());
      throw error;
    }
  };

  const twinOf = async (request) => {
    const event_id = `twin-${++twins}`;
    request.twins.push(event_id);
    await request.posted;
    return new Response(JSON.stringify({ event_id }), { headers: { "Content-Type": "application/json" } });
  };

  // --- answers: what a person changed since the request stays ---
  const judge = async (request, data) => {
    const { id: dependency, inputs: read, outputs } = request.dependency;
    const applied = new Map();
    const places = outputs.map((id, place) => [id, place]).filter(([id, place]) => inputs.includes(id) && hasValue(data[place]));
    const touched = (id) => acts.get(id) !== request.acts.get(id);
    const now = await current(places.some(([id]) => touched(id)) ? [...read, ...outputs] : []);
    for (const [id, place] of places) {
      const isFree = !touched(id) || now.get(id) === request.before.get(id);
      if (isFree && window.typing.mayWrite(document.getElementById(elements.get(id)), valueOf(data[place]))) {
        applied.set(id, text(valueOf(data[place])));
        continue;
      }
      const ownFollows = typing.has(dependency) && request.body.trigger_id === id; // its last value is on its way
      if (!isFree && read.includes(id) && !commands.has(dependency) && !ownFollows) return { now };
      const { value: _, ...rest } = isUpdate(data[place]) ? data[place] : { __type__: "update" };
      data[place] = rest;
    }
    return { applied };
  };

  const askAgain = async (request, now) => {
    // Only what it reads anew may be written over now: what else was changed has a request of its own, which waits.
    request.dependency.inputs.forEach((id, place) => {
      if (!now.has(id)) return;
      request.body.data[place] = JSON.parse(now.get(id));
      request.before.set(id, now.get(id));
      request.acts.set(id, acts.get(id));
    });
    repeated += 1;
    try {
      return (await post(request)).ok;
    } catch {
      return false;
    }
  };

  // For those who write into inputs for a person: what was asked for before is not written over it.
  window.changedByHand = (names) => {
    for (const id of inputs) if (names.has(elements.get(id))) acts.set(id, (acts.get(id) ?? 0) + 1);
  };
  // Whether answers are still to come that write into one of these inputs, or anywhere.
  window.answersFor = (names) => {
    const writes = ({ dependency }) => !names || dependency.outputs.some((id) => names.has(elements.get(id)));
    return [...active].some(writes);
  };

  // What was typed between the judgement and the moment in which Gradio wrote the answer stands again.
  const retype = (request) => {
    for (const [element, value] of request.typed) {
      if (!element.isConnected || element.value === value || element.type === "checkbox") continue;
      element.value = value;
      element.dispatchEvent(new Event("input", { bubbles: true }));
    }
  };

  // The answer was given to the page; who waited for it goes on once it stands there.
  const settle = async (request, applied) => {
    request.answered = true;
    // An input that the answer makes visible is drawn first, and gets what was written into it two frames later.
    await Promise.race([frame().then(frame), pause(200)]); // there are none while another tab of the browser is seen
    for (let tries = 0; tries < 20; tries++) {
      await pause(tries ? 10 : 50);
      const now = await current([...applied.keys()]);
      if ([...applied].every(([id, value]) => now.get(id) === value)) break;
    }
    arriving.delete(request);
    retype(request);
    active.delete(request);
    for (const other of active) {
      await other.ready;
      for (const [id, value] of applied) {
        if (other.before.get(id) !== request.before.get(id)) continue; // it saw something newer
        other.before.set(id, value);
        other.written.set(id, value);
      }
    }
    request.finish();
    const detail = [...applied.keys()].map((id) => elements.get(id));
    if (applied.size) document.dispatchEvent(new CustomEvent("answered", { detail }));
  };

  // What the page is to get in place of a message of the server's.
  const answers = async (message) => {
    if (message.event_id && !sent.has(message.event_id)) await Promise.allSettled([...posting]);
    const request = sent.get(message.event_id);
    if (!request) return [message];
    const own = { ...message, event_id: request.event };
    if (message.msg !== "process_completed") return [own];
    sent.delete(message.event_id);
    if (message.event_id !== request.event) repeated -= 1;
    await pressed;
    const data = message.success && Array.isArray(message.output?.data) ? message.output.data : [];
    arriving.add(request);
    const { applied, now } = await judge(request, data);
    if (now) {
      arriving.delete(request);
      request.typed.clear();
      if (await askAgain(request, now)) return [];
    }
    settle(request, applied ?? new Map());
    const nothing = { ...message.output, data: data.map(() => ({ __type__: "update" })) };
    return [own, ...request.twins.map((event_id) => ({ ...message, event_id, output: nothing }))];
  };

  // Passes a stream on. The server ends it where nothing is under way; a request that was asked again needs another one.
  const stream = async (request) => {
    const { url, headers, signal } = request;
    let response = await original(request);
    if (!response.ok || !response.body) return response;
    const passOn = async (controller) => {
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (let part = await reader.read(); !part.done; part = await reader.read()) {
        const blocks = (rest + part.value).split("\n\n");
        rest = blocks.pop();
        for (const block of blocks) {
          const message = JSON.parse(block.slice(block.indexOf(":") + 1));
          if (message.msg === "close_stream" && repeated) return true;
          const passed = await answers(message);
          for (const one of passed) controller.enqueue(new TextEncoder().encode(`data: ${JSON.stringify(one)}\n\n`));
        }
      }
      return false;
    };
    const body = new ReadableStream({
      async start(controller) {
        try {
          while (await passOn(controller)) response = await original(url, { headers, signal });
          controller.close();
        } catch (error) {
          controller.error(error);
        }
      },
    });
    return new Response(body, { status: response.status, headers: response.headers });
  };

  window.fetch = (input, init) => {
    const { pathname } = new URL(input.url ?? input, location.href);
    if (pathname.endsWith("/queue/join")) return join(input, init);
    if (pathname.endsWith("/queue/data") && input instanceof Request) return stream(input);
    return original(input, init);
  };
})();
