// What the CI's pages do beyond what they do without a script: a list is
// filtered while one types, a log that grows is followed, and a page whose
// builds are under way is kept up to date.
"use strict";

(() => {
  // A filter is a form that works by itself; here it answers at once.
  for (const input of document.querySelectorAll("input[data-filter]")) {
    const items = document.querySelectorAll("[data-item]");
    const told = document.querySelector("[data-shown]");
    const filter = () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const item of items) {
        const text = item.dataset.item.toLowerCase();
        item.hidden = !words.every((word) => text.includes(word));
        shown += item.hidden ? 0 : 1;
      }
      if (told) told.textContent = String(shown);
    };
    input.addEventListener("input", filter);
    if (input.value) filter();
  }

  // "/" goes to the filter or the search of the page.
  document.addEventListener("keydown", (event) => {
    const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName);
    const search = document.querySelector("input[type=search]");
    if (event.key === "/" && !typing && search && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      search.focus();
    }
  });

  // A link to a line that is in another window of the log.
  const log = document.getElementById("log");
  const wanted = /^#L(\d+)$/.exec(location.hash);
  if (log && log.dataset.windows && wanted && !document.getElementById(`L${wanted[1]}`)) {
    location.replace(`?line=${wanted[1]}${location.hash}`);
  }

  if (log && log.dataset.events) follow(log);
  else if (document.body.dataset.state) refresh(document.body.dataset.state);

  // Follows a log that grows.
  function follow(log) {
    const rows = 5000;
    // The rest of this page would be the log: it comes as events instead.
    window.stop();
    let next = 1;
    const box = document.getElementById("follow");
    const status = document.getElementById("status");
    const end = () => window.scrollTo(0, document.documentElement.scrollHeight);
    // Who scrolls up wants to read; who comes back to the end, to follow.
    window.addEventListener("scroll", () => {
      if (!box) return;
      const left = document.documentElement.scrollHeight - window.scrollY - window.innerHeight;
      box.checked = left < 80;
    }, { passive: true });

    let waiting = [];
    let drawing = false;
    const draw = () => {
      drawing = false;
      const following = !box || box.checked;
      for (const { first, lines, skipped, begun } of waiting) {
        if (skipped) gap(skipped);
        lines.forEach((html, index) => put(first + index, html));
        next = Math.max(next, first + lines.length);
        if (begun) put(next, begun);
      }
      waiting = [];
      while (log.childElementCount > rows) log.firstElementChild.remove();
      if (following) end();
    };
    const put = (number, html) => {
      let row = document.getElementById(`L${number}`);
      if (!row) {
        row = document.createElement("span");
        row.className = "l";
        row.id = `L${number}`;
        log.append(row);
      }
      const text = document.createElement("span");
      text.innerHTML = html;
      const link = document.createElement("a");
      link.href = `#L${number}`;
      link.textContent = String(number);
      row.replaceChildren(link, text, "\n");
    };
    const gap = (count) => {
      const row = document.createElement("span");
      row.className = "gap";
      row.textContent = `${count} earlier lines are not shown here\n`;
      log.append(row);
    };

    const source = new EventSource(`${log.dataset.events}?from=${next}`);
    source.addEventListener("lines", (event) => {
      waiting.push(JSON.parse(event.data));
      if (!drawing) {
        drawing = true;
        // A page in the background is not drawn; it is to be right all the same.
        if (document.hidden) setTimeout(draw, 250);
        else requestAnimationFrame(draw);
      }
    });
    source.addEventListener("done", (event) => {
      source.close();
      if (waiting.length) draw();
      const { state, text, saved } = JSON.parse(event.data);
      log.dataset.done = state;
      if (status) {
        const icon = document.createElement("i");
        icon.className = `s ${state}`;
        const word = document.createElement("span");
        word.className = `word ${state}`;
        word.textContent = text;
        const link = document.createElement("a");
        link.href = saved;
        link.textContent = "The whole log";
        status.replaceChildren(icon, " ", word, " ", link);
      }
    });
  }

  // Shows the page again when what it shows has changed, at most once a second.
  function refresh(state) {
    const source = new EventSource(`/events?from=${encodeURIComponent(state)}`);
    let waiting = false;
    source.addEventListener("change", () => {
      if (waiting) return;
      waiting = true;
      setTimeout(() => {
        waiting = false;
        show().catch(() => {});
      }, 1000 * Math.random());
    });
    const show = async () => {
      const main = document.querySelector("main");
      const inUse = document.activeElement && document.activeElement.matches("input, textarea, select");
      if (inUse) return;
      const answer = await fetch(location.href, { headers: { accept: "text/html" } });
      if (!answer.ok || answer.redirected) return;
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.querySelector("main");
      if (!fresh || fresh.innerHTML === main.innerHTML) return;
      const focus = document.activeElement && document.activeElement.id;
      main.replaceChildren(...fresh.childNodes);
      if (focus && document.getElementById(focus)) document.getElementById(focus).focus();
    };
  }
})();
