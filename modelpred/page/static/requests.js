// Requests to this page's own server. An error is thrown with the server's words.

async function read(response) {
  if (response.ok) return response;
  let message = `the server answered ${response.status}`;
  try {
    message = (await response.json()).message || message;
  } catch { /* not JSON: keep the number */ }
  throw new Error(message);
}

async function sent(path, options) {
  try {
    return await read(await fetch(path, options));
  } catch (error) {
    if (error instanceof TypeError) throw new Error("the server does not answer; is it still running in the terminal?");
    throw error;
  }
}

export async function get(path) {
  return (await sent(path)).json();
}

export async function post(path, body, signal) {
  const options = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal };
  return (await sent(path, options)).json();
}

// A column of the table: { numbers: Float64Array } or { texts, codes }.
export async function column(place) {
  const response = await sent(`/api/columns/${place}`);
  if (response.headers.get("content-type").startsWith("application/octet-stream")) {
    return { numbers: new Float64Array(await response.arrayBuffer()) };
  }
  return response.json();
}
