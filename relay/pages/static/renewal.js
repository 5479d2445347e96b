
"use strict";
// The only place of the page server that renews a session: a script of a page that the user sees. Its answer sets the new cookies in
// this browser. A server that redeemed the refresh token while it renders a page could not store the new one.
const { refresh, following, login } = document.body.dataset;

async function renew() {
  // a page that the browser loads ahead may be thrown away
  if (document.prerendering) {
    await new Promise((resolve) => document.addEventListener("prerenderingchange", resolve, { once: true }));
  }
  let status = 0;
  try {
    // longer than the relay gives the backend (bff.timeout_s), and shorter than the mark in `following` holds
    const signal = AbortSignal.timeout(20000);
    const headers = { "X-Relay-CSRF": "1" }; // for csrf.require_header
    const answer = await fetch(refresh, { method: "POST", headers, cache: "no-store", redirect: "error", signal });
    status = answer.status;
  } catch {
    // no answer: told below
  }
  // replace: the back button must not come back to this page
  if (status === 204) location.replace(following);
  else if (status === 401) location.replace(login);
  else say(status);
}

function say(status) {
  const text = document.querySelector("[role=status]");
  const why = status === 0 ? "The server does not answer" : `The server answered ${status}`;
  text.textContent = `${why}, so your session could not be renewed. You are still logged in.`;
  document.querySelector("h1").textContent = "This page can't be shown now";
  const again = document.createElement("p");
  again.append(link("Try again", location.href), " or ", link("log in again", login), ".");
  text.after(again);
}

function link(text, href) {
  const made = document.createElement("a");
  made.textContent = text;
  made.href = href;
  return made;
}

renew();
