// On each page with a session: the log-out, and what the other tabs say.
const tabs = new BroadcastChannel("session");

// the mark of a renewal has done its work
const url = new URL(location.href);
if (url.searchParams.has("relay-renewed")) {
  url.searchParams.delete("relay-renewed");
  history.replaceState(null, "", url);
}

document.getElementById("logout").addEventListener("click", async (event) => {
  event.target.disabled = true;
  try {
    const answer = await fetch("/api/auth/logout", { method: "POST" });
    if (answer.ok) {
      tabs.postMessage("ended");
      location.replace("/login");
      return;
    }
  } catch {
    // no answer: told below
  }
  event.target.disabled = false;
  event.target.textContent = "Log out: try again";
});

tabs.addEventListener("message", () => leave());

// the back button can bring a page back as it was, without asking the server
addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload();
});

/** Go to the log-in, and come back to this page afterwards. */
export function leave() {
  location.replace(`/login?ended=1&returnTo=${encodeURIComponent(location.pathname)}`);
}
