// Forms of any page: one that takes its time says so (data-busy), what cannot be taken back asks first (data-confirm, in
// the dialog `sure`), and a field shows only where "new" is chosen (data-new). Without this every form still posts.
import { confirmIn } from "./api.js";

const find = (id) => document.getElementById(id);

for (const form of document.querySelectorAll("form[data-confirm], form[data-busy]")) {
  form.addEventListener("submit", async (event) => {
    const button = event.submitter;
    if (form.dataset.confirm && !form.dataset.sure) {
      event.preventDefault();
      find("sure-text").textContent = form.dataset.confirm;
      if (!(await confirmIn(find("sure")))) return;
      form.dataset.sure = "yes";
      form.requestSubmit(button);
      return;
    }
    button.textContent = form.dataset.busy || "Asking Mailchimp…";
    button.setAttribute("aria-disabled", "true");
  });
}

// Where a new group can be made, its name is asked for only then.
for (const select of document.querySelectorAll("select[data-new]")) {
  const field = find(select.dataset.new);
  const show = () => { field.hidden = select.value !== "new"; };
  select.addEventListener("change", show);
  show();
}
