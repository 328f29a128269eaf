// People: how many match is asked for once the page stands, and ticking is made easy. The page works without this.
import { call } from "./api.js";

const form = document.getElementById("people");

// The number of those who match, which may take longer than the page itself.
async function count() {
  const asked = JSON.parse(form.dataset.asked);
  const answer = await call("MailchimpsyncCache", "getcount", asked).catch(() => null);
  if (answer === null) return;
  const many = Number(answer.result);
  document.getElementById("count").textContent = many === 1 ? "The 1 that matches" : `All ${many.toLocaleString("en")} that match`;
}

function tick() {
  const all = document.getElementById("all");
  const page = document.getElementById("page");
  const ticked = document.getElementById("ticked");
  const boxes = [...form.querySelectorAll("input[name='row[]']")];
  const show = () => {
    const many = boxes.filter((box) => box.checked).length;
    page.checked = many === boxes.length;
    page.indeterminate = many > 0 && many < boxes.length;
    for (const box of [...boxes, page]) box.disabled = all.checked;
    ticked.textContent = all.checked || many === 0 ? "" : `${many} ticked`;
  };
  page.addEventListener("change", () => { for (const box of boxes) box.checked = page.checked; });
  form.addEventListener("change", show);
  document.getElementById("page-check").hidden = false;
  show();
}

if (form) {
  tick();
  count();
}
