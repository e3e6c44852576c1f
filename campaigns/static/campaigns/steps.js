/* Shows of each step only what its kind needs, and suggests keys. Without scripts every field is
   visible, which works just as well. */

"use strict";

(() => {
    const needsOf = (select) => Object.fromEntries(
        select.dataset.needs.split(";").map((entry) => {
            const [kind, fields] = entry.split(":");
            return [kind, new Set(fields ? fields.split(",") : [])];
        }));

    const arrange = (select) => {
        const needs = needsOf(select);
        const governed = new Set(Object.values(needs).flatMap((fields) => [...fields]));
        const step = select.closest(".form-group, .form-row-group, [id^=steps-]");
        governed.forEach((name) => {
            const line = step.querySelector(`.field-line.field-${name}`);
            if (line) line.hidden = !needs[select.value]?.has(name);
        });
        step.querySelectorAll(".field-row").forEach((row) => {
            const lines = [...row.querySelectorAll(".field-line")];
            row.hidden = lines.length > 0 && lines.every((line) => line.hidden);
        });
    };

    const prepare = (root) => root.querySelectorAll("select[data-needs]").forEach((select) => {
        if (select.dataset.ready || select.name.includes("__prefix__")) return;
        select.dataset.ready = "yes";
        select.addEventListener("change", () => arrange(select));
        arrange(select);
        suggestKey(select);
    });

    /* A new step needs a key; "email", "wait", "email-2" are as good as any. */
    const suggestKey = (select) => {
        const key = document.getElementById(select.id.replace(/-kind$/, "-key"));
        if (!key || key.value) return;
        const words = { send_email: "email", delay: "wait", wait_for_event: "event", exit: "end" };
        const suggest = () => {
            if (key.dataset.typed) return;
            const taken = new Set([...document.querySelectorAll("input[name$='-key']")]
                .filter((input) => input !== key).map((input) => input.value));
            const base = words[select.value] || "step";
            let name = base;
            for (let n = 2; taken.has(name); n += 1) name = `${base}-${n}`;
            key.value = name;
        };
        key.addEventListener("input", () => { key.dataset.typed = "yes"; });
        select.addEventListener("change", suggest);
        if (select.closest(".form-group")?.dataset.fresh) suggest();
    };

    const renumber = () => {
        const positions = [...document.querySelectorAll("input[name^='steps-'][name$='-position']")]
            .filter((input) => !input.name.includes("__prefix__"));
        const last = Math.max(0, ...positions.map((input) => Number(input.value) || 0));
        return last + 1;
    };

    document.addEventListener("DOMContentLoaded", () => prepare(document));
    document.addEventListener("formset:added", (event) => {
        if (event.detail?.formsetName !== "steps") return;
        const row = event.target;
        row.dataset.fresh = "yes";
        const position = row.querySelector("input[name$='-position']");
        if (position) position.value = renumber();
        prepare(row);
        const key = row.querySelector("input[name$='-key']");
        row.querySelector("select[data-needs]")?.dispatchEvent(new Event("change"));
        if (key) key.dispatchEvent(new Event("change"));
    });
})();
