// The server's API: one function for a call, one for a command whose output is streamed.

const STORED = "wrenn.key";

export class ApiError extends Error {
  constructor(status, { code = "internal", message = "", hint = "" } = {}) {
    super(message || `The server answered with status ${status}`);
    this.status = status;
    this.code = code;
    this.hint = hint;
  }
}

export const key = {
  get: () => sessionStorage.getItem(STORED) ?? "",
  set: (value) => sessionStorage.setItem(STORED, value),
  clear: () => sessionStorage.removeItem(STORED),
};

// Resolves to the answer's JSON, or to null where there is none.
export async function call(method, path, { query = {}, body = null } = {}) {
  const url = new URL(path, location.origin);
  for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value);
  const headers = { "X-API-Key": key.get() };
  if (body !== null) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(url, {
      method,
      headers,
      body: body === null ? undefined : JSON.stringify(body),
      cache: "no-store",
      credentials: "omit",
    });
  } catch {
    throw new ApiError(0, { code: "unavailable", message: "The server does not answer" });
  }
  const said = await response.json().catch(() => null);
  if (!response.ok) throw new ApiError(response.status, said?.error);
  return said;
}

// Runs a command. `on` has functions named output(stream, text), exit(code) and failed(error), of
// which one of the latter two is called, once. Returns a function that kills the command.
export function stream(sandboxId, command, on) {
  const url = new URL(`/v1/sandboxes/${sandboxId}/exec/stream`, location.origin);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  const socket = new WebSocket(url);
  let isOver = false;
  const end = (tell) => {
    if (isOver) return;
    isOver = true;
    tell();
    socket.close();
  };
  socket.addEventListener("open", () => {
    socket.send(JSON.stringify({ type: "auth", token: key.get() }));
    socket.send(JSON.stringify({ type: "start", ...command }));
  });
  socket.addEventListener("message", ({ data }) => {
    const frame = JSON.parse(data);
    if (frame.type === "stdout" || frame.type === "stderr") on.output(frame.type, frame.data);
    if (frame.type === "exit") end(() => on.exit(frame.exit_code));
    if (frame.type === "error") {
      const { code, data: message, hint } = frame;
      end(() => on.failed(new ApiError(0, { code, message, hint })));
    }
  });
  socket.addEventListener("close", ({ reason }) => {
    const message = reason || "The connection to the command was lost";
    end(() => on.failed(new ApiError(0, { code: "unavailable", message })));
  });
  return () => {
    if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ type: "stop" }));
  };
}
