// Forms of all pages: a busy text while the request runs (data-busy), a confirmation in the dialog `sure` (data-confirm),
// a field that is shown only if "new" is selected (data-new), and a limit of files together (data-max, in bytes), beyond
// which nothing is sent. Without this every form still posts.
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

// The name of a new group is shown only if one is to be created.
for (const select of document.querySelectorAll("select[data-new]")) {
  const field = find(select.dataset.new);
  const show = () => { field.hidden = select.value !== "new"; };
  select.addEventListener("change", show);
  show();
}

for (const input of document.querySelectorAll("input[type=file][data-max]")) {
  const check = () => {
    const bytes = [...input.files].reduce((sum, file) => sum + file.size, 0);
    input.setCustomValidity(bytes > Number(input.dataset.max) ? input.dataset.tooLarge : "");
    input.reportValidity();
  };
  input.addEventListener("change", check);
  if (input.files.length) check();  // chosen before this ran
}
