// What is asked of the server. Paths are relative to the page's own address, which may lie below a proxy's path; the
// browser adds what it was given for the login.
const MOST_AT_ONCE = 1000; // pictures that one request may name

const address = (folder, path, query = {}) => {
  const parts = path.split("/").map(encodeURIComponent).join("/");
  const found = new URL(`api/v1/datasets/-${parts && "/"}${parts}`, document.baseURI);
  for (const [name, value] of Object.entries({ folder, ...query })) found.searchParams.set(name, value);
  return found.href;
};

// The answer, or an Error with the server's sentence. What is sent goes out even if the page is left meanwhile. The
// button of this tab that was pressed for it looks busy until then.
const ask = (url, method = "GET", body = undefined) => {
  const answer = request(url, method, body);
  window.feedback.show(element.closest("[role=tabpanel]"), answer.catch(() => {}));
  return answer;
};
const request = async (url, method, body) => {
  const text = JSON.stringify(body);
  let response;
  try {
    response = await fetch(url, {
      method,
      body: text,
      keepalive: method !== "GET" && (text?.length ?? 0) < 30_000, // browsers refuse more
      headers: body === undefined ? {} : { "Content-Type": "application/json" },
    });
  } catch {
    throw new Error("The server does not answer; try again once it does.");
  }
  if (response.ok) return response.status === 204 ? null : response.json();
  const told = await response.json().catch(() => ({}));
  throw new Error(told.detail || told.errors || `The server answered ${response.status}.`);
};

const chunks = (list) => {
  const made = [];
  for (let at = 0; at < list.length; at += MOST_AT_ONCE) made.push(list.slice(at, at + MOST_AT_ONCE));
  return made;
};

// --- what is shown ---
const make = (tag, properties = {}, ...inner) => {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...inner);
  return made;
};
const done = (sentence) => make("p", { className: "done", textContent: sentence });
const fault = (error) => {
  const made = make("p", { className: "fault", textContent: error.message ?? String(error) });
  made.setAttribute("role", "alert");
  return made;
};
const many = (count, what) => `${count} ${what}${count === 1 ? "" : "s"}`;
