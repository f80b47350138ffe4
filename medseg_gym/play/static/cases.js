// Choice of a case: sources, pages of thumbnails, a random case, or an uploaded image.

import { form } from "./api.js";
import { $, h, say } from "./dom.js";
import { Listing } from "./listing.js";

export class Cases extends Listing {
  // onPick({ place, index }) or onPick({ place, key }); onScan(dropped): true if it was a scan
  constructor(onPick, onScan = () => false) {
    super("", 12, onPick);
    this.onScan = onScan;
    this.listenOwn();
  }

  entry(one) {
    return h("li", {}, this.button(one, this.thumbnail(one), this.names(one, one.key)));
  }

  // own images ----------------------------------------------------------------------------------
  listenOwn() {
    const dialog = $("own");
    $("own-open").addEventListener("click", () => this.askOwn());
    $("own-cancel").addEventListener("click", () => dialog.close());
    $("own-form").addEventListener("submit", async (event) => {
      event.preventDefault();
      $("own-error").textContent = "";
      const body = new FormData();
      body.append("image", $("own-file").files[0]);
      for (const name of ["target", "modality", "window", "slice"]) body.append(name, $(`own-${name}`).value);
      try {
        const made = await form("images", body);
        if (!this.places.some((p) => p.name === made.place))
          this.setPlaces([...this.places, { name: made.place, title: "your own images", own: true }], this.place);
        dialog.close();
        this.place = ""; // its list has changed
        this.pick({ place: made.place, index: made.index });
      } catch (error) {
        $("own-error").textContent = `This file cannot be used: ${error.message}`;
      }
    });
    const over = (event) => {
      if (![...event.dataTransfer.types].includes("Files")) return;
      event.preventDefault();
      document.body.classList.add("dropping");
    };
    document.addEventListener("dragover", over);
    document.addEventListener("dragleave", (event) => {
      if (!event.relatedTarget) document.body.classList.remove("dropping");
    });
    document.addEventListener("drop", (event) => {
      document.body.classList.remove("dropping");
      if (!event.dataTransfer.files.length) return;
      event.preventDefault();
      if (this.onScan(event.dataTransfer)) return;
      $("own-file").files = event.dataTransfer.files;
      this.askOwn();
    });
  }

  askOwn() {
    $("own-error").textContent = "";
    if (!$("own").open) $("own").showModal();
    say("Own image: choose a file and name the target");
  }
}
