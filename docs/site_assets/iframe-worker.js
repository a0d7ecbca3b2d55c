// The search runs in a worker, which no browser starts from a file:// address: there, a hidden frame takes its place.
if (location.protocol === "file:")
  window.Worker = class extends EventTarget {
    constructor(address) {
      super();
      const waiting = [];
      const frame = document.createElement("iframe");
      const tell = data => frame.contentWindow.dispatchEvent(new MessageEvent("message", { data }));
      frame.hidden = true;
      frame.answer = data => this.dispatchEvent(new MessageEvent("message", { data }));
      frame.srcdoc = `<script>postMessage = data => frameElement.answer(data)<\/script>
        <script src="${new URL(address, location.href)}"><\/script>`;
      frame.addEventListener("load", () => {
        this.postMessage = tell;
        waiting.splice(0).forEach(tell);
      });
      this.postMessage = data => waiting.push(data);
      document.body.appendChild(frame);
    }
  };
