// The login: by hand, or by the token behind the '#' of the address that `serve` prints.

const form = document.getElementById("form");
const field = document.getElementById("token");
const problem = document.getElementById("problem");

async function signIn(token) {
  problem.textContent = "";
  try {
    const answer = await fetch("login", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ token }),
    });
    if (answer.ok) {
      location.replace(location.pathname);
      return;
    }
    problem.textContent = (await answer.json()).error;
  } catch {
    problem.textContent = "The server does not answer.";
  }
  field.select();
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  signIn(field.value);
});

if (location.hash.startsWith("#token=")) {
  const token = location.hash.slice("#token=".length);
  history.replaceState(null, "", location.pathname);
  signIn(token);
}
