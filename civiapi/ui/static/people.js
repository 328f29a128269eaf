// People: fetches the total after the page has loaded, and "select all". The page works without this.
import { call } from "./api.js";

const form = document.getElementById("people");

// The total may take longer than the page itself.
async function showTotal() {
  const asked = JSON.parse(form.dataset.asked);
  const answer = await call("MailchimpsyncCache", "getcount", asked).catch(() => null);
  if (answer === null) return;
  const total = Number(answer.result);
  document.getElementById("count").textContent = total === 1 ? "The 1 match" : `All ${total.toLocaleString("en")} matches`;
}

function manageSelection() {
  const all = document.getElementById("all");
  const page = document.getElementById("page");
  const selected = document.getElementById("selected");
  const boxes = [...form.querySelectorAll("input[name='row[]']")];
  const show = () => {
    const count = boxes.filter((box) => box.checked).length;
    page.checked = count === boxes.length;
    page.indeterminate = count > 0 && count < boxes.length;
    for (const box of [...boxes, page]) box.disabled = all.checked;
    selected.textContent = all.checked || count === 0 ? "" : `${count} selected`;
  };
  page.addEventListener("change", () => { for (const box of boxes) box.checked = page.checked; });
  form.addEventListener("change", show);
  document.getElementById("page-check").hidden = false;
  show();
}

if (form) {
  manageSelection();
  showTotal();
}
