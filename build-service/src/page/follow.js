"use strict";

// What happens in a build that is not over yet, as it happens; and a search in its log.
(() => {
  const story = document.getElementById("story");
  const table = document.querySelector("table[data-refresh]");
  if (table) setTimeout(() => location.reload(), 5000);
  if (!story) return;

  const find = (name) => {
    const all = [...story.querySelectorAll("details.step")];
    return all.reverse().find((step) => step.dataset.step === name);
  };
  const add = (name, title) => {
    const step = document.createElement("details");
    step.className = "step running";
    step.dataset.step = name;
    const summary = document.createElement("summary");
    for (const part of ["name", "summary", "took"]) {
      const span = document.createElement("span");
      span.className = part;
      summary.append(span);
    }
    summary.querySelector(".name").textContent = title;
    const log = document.createElement("pre");
    log.className = "log";
    log.tabIndex = 0;
    step.append(summary, log);
    story.append(step);
    return step;
  };
  const search = document.getElementById("search");
  const matches = (line) => line.textContent.toLowerCase().includes(search.value.toLowerCase());
  const show = (event) => {
    const step = find(event.step) ?? add(event.step, event.title ?? event.step);
    switch (event.event) {
      case "step_progress":
        step.querySelector(".summary").textContent = event.total
          ? `${Math.floor((100 * event.done) / event.total)} %`
          : "";
        break;
      case "step_finished":
        step.className = `step ${event.cached ? "cached" : "done"}`;
        step.querySelector(".summary").textContent = event.summary;
        step.querySelector(".took").textContent = event.cached ? "reused" : "";
        break;
      case "log": {
        const line = document.createElement("span");
        line.textContent = `${event.line}\n`;
        line.hidden = search.value !== "" && !matches(line);
        step.querySelector(".log").append(line);
        break;
      }
    }
  };
  if (story.dataset.live !== undefined) {
    const events = new EventSource(`${story.dataset.events}?after=${story.dataset.after}`);
    events.addEventListener("build", (message) => {
      const event = JSON.parse(message.data);
      if (event.event === "step_started") add(event.step, event.title);
      else if (event.step) show(event);
    });
    events.addEventListener("end", () => {
      events.close();
      location.reload();
    });
  }

  search.closest("label").hidden = false;
  search.addEventListener("input", () => {
    for (const step of story.querySelectorAll("details.step")) {
      let found = false;
      for (const line of step.querySelectorAll(".log span")) {
        line.hidden = search.value !== "" && !matches(line);
        found ||= !line.hidden;
      }
      if (search.value !== "") step.open = found && step.querySelector(".log span") !== null;
    }
  });
})();
