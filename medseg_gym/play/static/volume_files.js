// Own scans: files chosen or dropped, sent in parts, read by the service.

import { Refused, drop, post, put } from "./api.js";
import { $, say } from "./dom.js";

const AT_ONCE = 3; // files on their way at the same time
const DETACHED = [".nhdr", ".mhd"];
const OTHERS = /\.(png|jpe?g|gif|webp|bmp|tiff?|pdf|zip|tar|gz|7z|npy|mat|docx?|xlsx?|csv|json|txt|mp4|avi)$/i;

export class ScanFiles {
  // onOpen({ place, index }, left_out)
  constructor(onOpen) {
    this.onOpen = onOpen;
    this.limits = null;
    this.files = [];
    this.sending = null; // an AbortController while files are on their way
    $("vol-own-open").addEventListener("click", () => this.ask([]));
    $("vol-own-file").addEventListener("change", () => this.choose([...$("vol-own-file").files]));
    $("vol-own-folder").addEventListener("change", () => this.choose([...$("vol-own-folder").files]));
    $("vol-pick-file").addEventListener("click", () => $("vol-own-file").click());
    $("vol-pick-folder").addEventListener("click", () => $("vol-own-folder").click());
    $("vol-own-cancel").addEventListener("click", () => $("vol-own").close());
    $("vol-own").addEventListener("close", () => {
      this.sending?.abort();
      this.choose([]);
      for (const id of ["vol-own-file", "vol-own-folder"]) $(id).value = "";
    });
    $("vol-own-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
  }

  kindOf(file) {
    const name = file.name.toLowerCase();
    return this.limits.suffixes.find((suffix) => name.endsWith(suffix)) ?? ".dcm";
  }

  // Whether what was dropped looks like a scan, before any of it is read.
  looksLikeScan(dropped) {
    const folder = [...dropped.items].some((item) => item.webkitGetAsEntry?.()?.isDirectory);
    return folder || dropped.files.length > 1 || [...dropped.files].some((file) => /\.(nii(\.gz)?|nrrd|nhdr|mha|mhd|npz|dcm)$/i.test(file.name));
  }

  async take(dropped) {
    const entries = [...dropped.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    const plain = [...dropped.files]; // both are gone once the event is over
    const most = this.limits.files;
    this.ask([]);
    if (!entries.some((entry) => entry.isDirectory)) return this.choose(plain);
    const files = [];
    for (const entry of entries) await collect(entry, files, most + 1);
    this.choose(files);
  }

  ask(files) {
    $("vol-own-error").textContent = "";
    $("vol-own-progress").hidden = true;
    $("vol-own-limit").textContent =
      `At most ${size(this.limits.bytes)} together, ${this.limits.files.toLocaleString("en")} files and ${Math.round(this.limits.voxels / 1e6)} million voxels.`;
    this.choose(files);
    this.enable(true);
    if (!$("vol-own").open) $("vol-own").showModal();
    say("Own scan: choose a file or a folder and name the target");
  }

  choose(files) {
    this.files = files.filter((file) => !file.name.startsWith("."));
    const bytes = this.files.reduce((sum, file) => sum + file.size, 0);
    const [one] = this.files;
    let text = "Nothing chosen yet.";
    if (this.files.length === 1) text = `${one.name}, ${size(bytes)}`;
    else if (this.files.length) text = `${this.files.length} files, ${size(bytes)}`;
    $("vol-own-chosen").textContent = text;
    $("vol-own-error").textContent = this.files.length ? this.fault(bytes) : "";
  }

  // Reason why these files cannot be used, or "".
  fault(bytes) {
    const { files, limits } = this;
    if (!files.length) return "Choose a file, or the folder of a DICOM series.";
    if (files.length > limits.files)
      return `These are more than ${limits.files.toLocaleString("en")} files: choose the folder of one series.`;
    if (bytes > limits.bytes) return `These are ${size(bytes)}, and ${size(limits.bytes)} are taken: crop the scan.`;
    const detached = files.find((file) => DETACHED.some((end) => file.name.toLowerCase().endsWith(end)));
    if (detached) return `The voxels of ${detached.name} are in another file: store it as .nrrd, .mha or .nii.gz.`;
    const [one] = files;
    if (files.length === 1 && this.kindOf(one) === ".dcm" && OTHERS.test(one.name))
      return `${one.name} is no scan that can be opened here: NIfTI, NRRD, MetaImage, .npz or DICOM.`;
    const volumes = files.filter((file) => this.kindOf(file) !== ".dcm").length;
    if (volumes && files.length > 1) return `${volumes} of the ${files.length} files are volumes: choose one volume file, or one DICOM series.`;
    return "";
  }

  enable(on) {
    for (const id of ["vol-pick-file", "vol-pick-folder", "vol-own-begin"]) $(id).disabled = !on;
  }

  async send() {
    const fault = this.fault(this.files.reduce((sum, file) => sum + file.size, 0));
    $("vol-own-error").textContent = fault;
    if (fault) return;
    const control = new AbortController();
    this.sending = control;
    this.enable(false);
    let id = null;
    try {
      id = (await post("volumes/scans", {})).upload;
      await this.sendFiles(id, control.signal);
      $("vol-own-state").textContent = "Reading the scan …";
      $("vol-own-bar").removeAttribute("value");
      const body = {};
      for (const name of ["target", "modality", "window", "axis", "series"]) body[name] = $(`vol-own-${name}`).value;
      if ($("vol-own-label").value) body.label = Number($("vol-own-label").value);
      const made = await post(`volumes/scans/${id}`, body);
      id = null;
      if (control.signal.aborted) {
        drop(`volumes/scans/${made.key}`).catch(() => {});
        return;
      }
      this.sending = null;
      $("vol-own").close();
      this.onOpen({ place: made.place, index: made.index }, made.left_out);
    } catch (error) {
      if (id) drop(`volumes/scans/${id}`).catch(() => {});
      if (error.name === "AbortError") return;
      const words = error instanceof Refused ? `This scan cannot be used: ${this.named(error.message)}` : error.message;
      $("vol-own-error").textContent = words;
    } finally {
      this.sending = null;
      $("vol-own-progress").hidden = true;
      this.enable(true);
    }
  }

  async sendFiles(id, signal) {
    const total = this.files.reduce((sum, file) => sum + file.size, 0) || 1;
    let done = 0;
    let next = 0;
    $("vol-own-progress").hidden = false;
    const worker = async () => {
      while (next < this.files.length) {
        const number = next++;
        const file = this.files[number];
        for (let offset = 0; offset < file.size || offset === 0; offset += this.limits.chunk) {
          const part = file.slice(offset, offset + this.limits.chunk);
          await put("volumes/upload", { id, file: number, offset, kind: this.kindOf(file) }, part, signal);
          done += part.size;
          $("vol-own-bar").value = done / total;
          $("vol-own-state").textContent = `Sending ${size(done)} of ${size(total)} …`;
        }
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, worker));
  }

  // The service knows files by number; their names stay here.
  named(message) {
    return message.replace(/\b(\d{4})\.(dcm|nii\.gz|nii|nrrd|mha|npz)/g, (all, number) => this.files[Number(number)]?.name ?? all);
  }
}

async function collect(entry, files, most) {
  if (files.length >= most) return;
  if (entry.isFile) files.push(await new Promise((done, fail) => entry.file(done, fail)));
  if (!entry.isDirectory) return;
  const reader = entry.createReader();
  for (;;) {
    const some = await new Promise((done, fail) => reader.readEntries(done, fail));
    if (!some.length) return;
    for (const inner of some) await collect(inner, files, most);
  }
}

export function size(bytes) {
  if (bytes < 1 << 20) return `${Math.max(1, Math.round(bytes / 1024))} KB`;
  return bytes < 2 ** 30 ? `${Math.round(bytes / 2 ** 20)} MB` : `${(bytes / 2 ** 30).toFixed(1)} GB`;
}
