"use strict";

// Browsers start no worker from a file: address. There, the worker of the search runs in a hidden frame of the page.
if (location.protocol === "file:") {
  window.IFrameWorker = class extends EventTarget {
    #inside = null;
    #waiting = [];

    constructor(address) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      frame.title = "search";
      frame.srcdoc = "<!doctype html><title>search</title>";
      frame.addEventListener("load", () => this.#begin(frame.contentWindow, address), { once: true });
      document.body.append(frame);
    }

    #begin(inside, address) {
      inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      const script = inside.document.createElement("script");
      script.src = new URL(address, location.href).href;
      script.addEventListener("load", () => {
        this.#inside = inside;
        this.#waiting.splice(0).forEach((data) => this.postMessage(data));
      });
      inside.document.body.append(script);
    }

    postMessage(data) {
      if (this.#inside === null) {
        this.#waiting.push(data);
      } else {
        this.#inside.dispatchEvent(new MessageEvent("message", { data }));
      }
    }
  };
  window.Worker = window.IFrameWorker;
}
