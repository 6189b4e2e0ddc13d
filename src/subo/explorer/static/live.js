// The server beside the page, if there is one: it decodes what the page cannot, and tells how a running fit goes on.

const [_OFTEN, _SELDOM] = [3000, 10000]; // milliseconds between questions, while a fit runs and after

export class Live {
  // Null in a file: there is nobody to ask.
  static find() {
    return location.protocol.startsWith("http") ? new Live() : null;
  }

  constructor() {
    this.gone = false;
    this.note = document.createElement("p");
    this.note.className = "gone";
    this.note.setAttribute("role", "status");
    document.body.prepend(this.note);
  }

  // The means of p(x|z) at some points; null if a later question has overtaken this one, or nobody answers.
  async decode(points, label) {
    const body = JSON.stringify({ z: points.map((z) => Array.from(z)), label });
    const answer = await this._ask("decode", { method: "POST", body });
    return answer && answer.means && answer.means.map((row) => Float32Array.from(row));
  }

  // Calls a function with the course of training as it goes on; afterwards it only looks whether the server is there.
  follow(listener) {
    const ask = async () => {
      const answer = await this._ask("course");
      if (answer && answer.course) listener(answer.course);
      if (!this.gone) setTimeout(ask, answer && answer.finished ? _SELDOM : _OFTEN);
    };
    ask();
  }

  async _ask(path, options = {}) {
    try {
      const response = await fetch(path, options);
      return response.ok ? await response.json() : null;
    } catch {
      this.gone = true;
      this.note.textContent = "The server is gone. The page goes on with its own decoder; subo explore RUN starts it again.";
      return null;
    }
  }
}
