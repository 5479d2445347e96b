// The credentials go to the relay, which sets the cookies. No script sees a token.
const form = document.getElementById("login");
const problem = form.querySelector(".problem");
const TEXTS = { 401: "The e-mail or the password is wrong.", 429: "Too many tries. Wait a minute." };

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = form.querySelector("button");
  button.disabled = true;
  problem.hidden = true;
  let status = 0;
  try {
    const body = JSON.stringify(Object.fromEntries(new FormData(form)));
    const answer = await fetch("/api/auth/login", { method: "POST", headers: { "Content-Type": "application/json" }, body });
    status = answer.status;
  } catch {
    // no answer: told below
  }
  if (status === 200) {
    // the server has checked it: one path of this origin
    location.replace(form.dataset.following);
    return;
  }
  problem.textContent = TEXTS[status] ?? "The log-in does not answer at the moment. Try again.";
  problem.hidden = false;
  button.disabled = false;
});
