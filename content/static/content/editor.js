/* Keeps the preview next to the editor fresh while somebody writes. Without scripts the Refresh
   button does the same. */

"use strict";

document.addEventListener("DOMContentLoaded", () => {
    const form = document.querySelector("[data-editor]");
    const refresh = form?.querySelector("[data-refresh]");
    if (!refresh) return;
    const find = (name) => form.querySelector(`[data-${name}]`);
    const sample = form.elements.sample;
    const remembered = `sample:${form.dataset.template}`;
    let saved = true;
    let timer = 0;

    const kept = localStorage.getItem(remembered);
    if (kept) sample.value = kept;

    const head = async () => {
        const data = new FormData(form);
        data.set("part", "head");
        try {
            const response = await fetch(form.dataset.preview, { method: "POST", body: data });
            if (!response.ok) return;
            const answer = await response.json();
            find("subject").textContent = answer.subject;
            find("text").textContent = answer.text;
            find("problem").textContent = answer.problem;
            find("problem").hidden = !answer.problem;
        } catch { /* the next stroke tries again */ }
    };
    const show = () => {
        form.requestSubmit(refresh);
        head();
    };

    form.addEventListener("input", (event) => {
        if (event.target.form !== form) return;
        if (event.target === sample) localStorage.setItem(remembered, sample.value);
        else saved = false;
        clearTimeout(timer);
        timer = setTimeout(show, 400);
    });
    refresh.addEventListener("click", head);
    form.addEventListener("submit", (event) => {
        if (event.submitter !== refresh) saved = true;
    });
    form.addEventListener("keydown", (event) => {
        if (event.key === "s" && (event.ctrlKey || event.metaKey)) {
            event.preventDefault();
            form.requestSubmit(form.querySelector("[name=_save]"));
        }
        // A tab in the HTML is a tab; Escape, then Tab leaves the field.
        if (event.key === "Tab" && !event.shiftKey && event.target.name === "html" && !event.target.dataset.leaving) {
            event.preventDefault();
            event.target.setRangeText("  ", event.target.selectionStart, event.target.selectionEnd, "end");
            event.target.dispatchEvent(new Event("input", { bubbles: true }));
        }
        if (event.target.dataset) event.target.dataset.leaving = event.key === "Escape" ? "yes" : "";
    });
    window.addEventListener("beforeunload", (event) => {
        if (!saved) event.preventDefault();
    });
    if (kept || form.querySelector(".errors")) show();
});
