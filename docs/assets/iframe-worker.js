/* The search of a site that is opened from a folder: there browsers refuse a Worker, so its script runs in a hidden frame. */
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.onmessage = null;
      this.waiting = [];
      const frame = document.createElement("iframe");
      frame.hidden = true;
      frame.title = "search";
      document.body.append(frame);
      this.inside = frame.contentWindow;
      this.inside.postMessage = (data) => {
        const event = new MessageEvent("message", { data });
        this.dispatchEvent(event);
        if (this.onmessage) this.onmessage(event);
      };
      this.inside.importScripts = (...urls) => Promise.all(urls.map((one) => this.load(one)));
      this.load(new URL(url, location).href).then(() => {
        for (const data of this.waiting.splice(0)) this.postMessage(data);
        this.waiting = null;
      });
    }
    load(src) {
      return new Promise((done, failed) => {
        const script = this.inside.document.createElement("script");
        Object.assign(script, { src, onload: done, onerror: failed });
        this.inside.document.body.append(script);
      });
    }
    postMessage(data) {
      if (this.waiting) return void this.waiting.push(data);
      const event = new this.inside.MessageEvent("message", { data });
      if (this.inside.onmessage) this.inside.onmessage(event);
      this.inside.dispatchEvent(event);
    }
    terminate() {}
  };
}
