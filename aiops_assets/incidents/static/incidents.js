"use strict";
// Adds to pages that already work without it: local times, hover on plots, live updates. Sends nothing anywhere else.
(() => {
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
  const minute = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
  const day = new Intl.DateTimeFormat(undefined, { day: "2-digit", month: "short" });
  const zoneName = new Intl.DateTimeFormat(undefined, { timeZoneName: "short" }).formatToParts(new Date())
    .filter((part) => part.type === "timeZoneName").map((part) => part.value)[0] || zone;

  const lasting = (seconds) => {
    seconds = Math.max(0, Math.floor(seconds));
    if (seconds < 60) return `${seconds} s`;
    const minutes = Math.floor(seconds / 60);
    if (minutes < 60) return `${minutes} min`;
    const hours = Math.floor(minutes / 60);
    if (hours < 48) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
    const days = Math.floor(hours / 24);
    return hours % 24 ? `${days} d ${hours % 24} h` : `${days} d`;
  };

  const sameDay = (a, b) => a.toDateString() === b.toDateString();

  const showTimes = (root) => {
    const now = new Date();
    for (const element of root.querySelectorAll("time[datetime]")) {
      const at = new Date(element.dateTime);
      if (Number.isNaN(at.getTime())) continue;
      const local = sameDay(at, now) ? clock.format(at) : `${day.format(at)} ${clock.format(at)}`;
      const utc = at.toISOString().slice(0, 19).replace("T", " ");
      element.title = `${utc} UTC · ${day.format(at)} ${clock.format(at)} ${zoneName}`;
      element.textContent = element.dataset.style === "ago" ? `${lasting((now - at) / 1000)} ago` : local;
    }
    for (const element of root.querySelectorAll("[data-since]")) {
      element.textContent = lasting((now - new Date(element.dataset.since)) / 1000);
    }
    const shifted = new Date().getTimezoneOffset() !== 0;
    for (const stage of root.querySelectorAll(".stage")) {
      if (!shifted) continue;
      for (const tick of stage.querySelectorAll(".tick.local")) {
        const at = new Date(tick.dataset.at);
        tick.textContent = tick.dataset.style === "day" ? day.format(at) : minute.format(at);
      }
      const name = stage.querySelector(".local-zone");
      if (name) name.textContent = zoneName;
    }
  };

  // -- plots ----------------------------------------------------------------------------------------------------------
  const SVG = "http://www.w3.org/2000/svg";
  const quantity = (value, unit) => {
    const digits = (number) => String(Number(number.toPrecision(4)));
    if (unit === "1") return `${digits(value * 100)}%`;
    if (unit === "By" || unit === "By/s") {
      const prefixes = ["", "Ki", "Mi", "Gi", "Ti", "Pi"];
      let power = 0;
      while (Math.abs(value) >= 1024 && power < 5) { value /= 1024; power += 1; }
      return `${digits(value)} ${prefixes[power]}${unit.replace("By", "B")}`;
    }
    const symbol = unit === "Cel" ? "°C" : unit.replace(/[{}]/g, "");
    return symbol ? `${digits(value)} ${symbol}` : digits(value);
  };

  const bindPlot = (stage) => {
    const svg = stage.querySelector("svg");
    const area = svg && svg.querySelector(".area");
    const readout = stage.querySelector(".readout");
    let points;
    try { points = JSON.parse(stage.dataset.points); } catch { return; }
    if (!area || !points.length) return;
    const start = new Date(stage.dataset.start).getTime();
    const span = Math.max(new Date(stage.dataset.end).getTime() - start, 1);
    const line = document.createElementNS(SVG, "line");
    line.setAttribute("class", "cursor");
    line.setAttribute("y1", "0");
    line.setAttribute("y2", area.getAttribute("height"));
    let position = -1;
    const show = (index) => {
      position = Math.min(Math.max(index, 0), points.length - 1);
      const [offset, value] = points[position];
      const x = `${(offset / span) * 100}%`;
      line.setAttribute("x1", x);
      line.setAttribute("x2", x);
      if (!line.parentNode) area.append(line);
      const at = new Date(start + offset);
      const utc = at.toISOString().slice(11, 19);
      const local = clock.format(at);
      readout.replaceChildren(Object.assign(document.createElement("b"), { textContent: quantity(value, stage.dataset.unit) }),
        ` at ${local}${local === utc ? " UTC" : ` (${utc} UTC)`}`);
      readout.hidden = false;
    };
    const hide = () => { line.remove(); readout.hidden = true; position = -1; };
    const nearest = (event) => {
      const box = svg.getBoundingClientRect();
      const wanted = ((event.clientX - box.left) / box.width) * span;
      let low = 0;
      let high = points.length - 1;
      while (low < high) {
        const middle = (low + high) >> 1;
        if (points[middle][0] < wanted) low = middle + 1; else high = middle;
      }
      if (low > 0 && wanted - points[low - 1][0] < points[low][0] - wanted) low -= 1;
      show(low);
    };
    svg.addEventListener("pointermove", nearest);
    svg.addEventListener("pointerdown", nearest);
    svg.addEventListener("pointerleave", hide);
    svg.addEventListener("blur", hide);
    svg.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -20, PageDown: 20 }[event.key];
      if (step === undefined) return;
      event.preventDefault();
      show(position < 0 ? points.length - 1 : position + step);
    });
  };
  const bindPlots = (root) => root.querySelectorAll(".stage").forEach(bindPlot);

  // -- live updates -----------------------------------------------------------------------------------------------------
  const fetchPage = async (address) => {
    const answer = await fetch(address, { headers: { accept: "text/html" }, credentials: "same-origin", redirect: "error" });
    if (!answer.ok) throw new Error(`${address}: ${answer.status}`);
    return new DOMParser().parseFromString(await answer.text(), "text/html");
  };

  const busy = (element) => {
    const active = document.activeElement;
    return element.contains(active) && (active.matches("input, textarea, select") || active.matches("svg"));
  };

  const refresh = async () => {
    const address = new URL(location.href);
    address.searchParams.set("live", "1");
    const fresh = await fetchPage(address);
    for (const element of document.querySelectorAll("[data-live]")) {
      const other = fresh.getElementById(element.id);
      if (!other || busy(element)) continue;
      showTimes(other);
      if (element.innerHTML === other.innerHTML) continue;
      const opened = [...element.querySelectorAll("details")].map((entry) => entry.open);
      const replacement = document.importNode(other, true);
      replacement.querySelectorAll("details").forEach((entry, index) => { entry.open = Boolean(opened[index]); });
      element.replaceWith(replacement);
      replacement.classList.add("fresh");
    }
    document.title = fresh.title;
  };

  let drawnAt = Date.now();
  const refreshFragments = async () => {
    drawnAt = Date.now();
    for (const place of document.querySelectorAll("[data-fragment]")) {
      if (busy(place)) continue;
      const fresh = await fetchPage(place.dataset.fragment);
      const opened = [...place.querySelectorAll("details")].map((entry) => entry.open);
      place.replaceChildren(...[...fresh.body.childNodes].map((node) => document.importNode(node, true)));
      place.querySelectorAll("details").forEach((entry, index) => { entry.open = Boolean(opened[index]); });
      showTimes(place);
      bindPlots(place);
    }
  };

  const watch = () => {
    const address = document.body.dataset.events;
    const sign = document.getElementById("live");
    if (!address || !window.EventSource) return;
    const say = (on) => {
      sign.hidden = false;
      sign.classList.toggle("on", on);
      sign.replaceChildren(Object.assign(document.createElement("span"), { textContent: on ? "live" : "reconnecting" }));
      sign.title = on ? "This page updates itself" : "The connection was lost; trying again";
    };
    const source = new EventSource(`${address}?since=${encodeURIComponent(document.body.dataset.change)}`);
    let running = false;
    let again = false;
    const update = async () => {
      if (running) { again = true; return; }
      running = true;
      do {
        again = false;
        try {
          await refresh();
          if (Date.now() - drawnAt > 5000) await refreshFragments();
        } catch (error) {
          console.warn("update failed", error);
        }
      } while (again);
      running = false;
    };
    source.addEventListener("open", () => say(true));
    source.addEventListener("error", () => say(false));
    source.addEventListener("change", update);
    window.addEventListener("pagehide", () => source.close());
  };

  showTimes(document);
  bindPlots(document);
  watch();
  setInterval(() => { if (!document.hidden) showTimes(document); }, 5000);
  setInterval(() => {
    const runs = document.querySelector("#head .badge.state:not(.resolved)");
    if (!document.hidden && runs && Date.now() - drawnAt > 25000) refreshFragments().catch((error) => console.warn(error));
  }, 10000);
})();
