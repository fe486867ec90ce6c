// Pages that peav evaluate, peav caption and peav data inspect wrote.

import { ask, make } from "./ask.js";

export async function showReports(say) {
  document.title = "peav: runs and data";
  document.getElementById("search").hidden = true;
  document.getElementById("help").hidden = true;
  let found;
  try {
    found = await ask("/api/reports");
  } catch (error) {
    say(error.message, true);
    return;
  }
  say(found.length ? "" : "No page of peav evaluate, caption or data inspect lies in the folders of --reports.");
  const rows = found.map((report) =>
    make(
      "tr",
      {},
      make("td", {}, make("a", { href: `/reports/${report.id}`, textContent: report.title })),
      make("td", { textContent: report.writer }),
      make("td", { textContent: report.place }),
      make("td", { textContent: new Date(report.modified * 1000).toLocaleString() }),
    ),
  );
  const head = make("tr", {}, ...["Page", "Written by", "Where", "When"].map((text) => make("th", { scope: "col", textContent: text })));
  const back = make("p", {}, make("a", { href: "/", textContent: "Back to the search" }));
  document.querySelector("main").append(back, make("table", { className: "reports" }, make("thead", {}, head), make("tbody", {}, ...rows)));
}
