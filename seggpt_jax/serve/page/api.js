// The server's interface. A full server is asked again when it says so.

export class Fault extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

// fields: [name, text] or [name, blob, name of the file].
export async function ask(path, fields, { accept, signal } = {}) {
  for (;;) {
    const body = new FormData();
    for (const field of fields) body.append(...field);
    const headers = accept ? { Accept: accept } : {};
    const answer = await fetch(path, { method: "POST", body, headers, signal }).catch((error) => {
      if (error.name === "AbortError") throw error;
      throw new Fault(0, "the server does not answer: was it stopped?");
    });
    if (answer.ok) return answer;
    if (answer.status !== 429) throw new Fault(answer.status, await said(answer));
    const seconds = Number(answer.headers.get("Retry-After"));
    await new Promise((done) => setTimeout(done, 1000 * seconds));
  }
}

async function said(answer) {
  try {
    return (await answer.json()).detail;
  } catch {
    return `the server answered ${answer.status}`;
  }
}
