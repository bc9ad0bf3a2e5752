// A browser starts no worker for a page from the disk, and the search is one: there it runs in a hidden frame.
// The name of this file tells Material's offline plugin that nothing has to be fetched for it.
if (location.protocol === "file:") window.Worker = class extends EventTarget {
  constructor(url) {
    super();
    const frame = document.createElement("iframe");
    frame.hidden = true;
    document.body.append(frame);
    this.inner = frame.contentWindow;
    addEventListener("message", event => {
      if (event.source !== this.inner) return;
      event.stopImmediatePropagation();
      const copy = new MessageEvent("message", { data: event.data });
      this.dispatchEvent(copy);
      if (this.onmessage) this.onmessage(copy);
    });
    // what a worker has and a frame has not: answers to whom started it, and scripts loaded one after another
    const set = `postMessage = data => parent.dispatchEvent(new MessageEvent("message", { data, source: window }));
      importScripts = (...urls) => urls.reduce((before, url) => before.then(() => new Promise(done => {
        const script = document.createElement("script");
        script.src = url;
        script.onload = done;
        document.body.append(script);
      })), Promise.resolve());`;
    const page = this.inner.document;
    page.open();
    page.write(`<body><script>${set}</${"script"}><script src="${url}"></${"script"}></body>`);
    this.ready = new Promise(done => this.inner.addEventListener("load", done));
    page.close();
  }
  postMessage(data) {
    this.ready.then(() => this.inner.dispatchEvent(new MessageEvent("message", { data })));
  }
  terminate() {}
};
