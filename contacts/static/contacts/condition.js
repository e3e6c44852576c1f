/* The condition editor: rows of path, operator and value over the JSON of a rule.

   The textarea stays the truth and is what is submitted; it is only written when a row changes.
   Trees the rows cannot show (deeper than two levels, "not") stay JSON. */

"use strict";

(() => {
    const TYPES = [
        ["text", "text"],
        ["number", "number"],
        ["boolean", "yes / no"],
        ["list", "list"],
    ];
    const ORDERED = new Set(["gt", "gte", "lt", "lte"]);
    const LISTED = new Set(["in", "not_in"]);

    const element = (tag, properties = {}, ...children) => {
        const made = Object.assign(document.createElement(tag), properties);
        made.append(...children);
        return made;
    };
    const icon = (name) => element("span", { className: "material-symbols-outlined", textContent: name });

    /* --- The tree ------------------------------------------------------------------------ */

    const isTest = (node) =>
        node && typeof node === "object" && typeof node.path === "string" && "op" in node &&
        (node.value === undefined || isPlain(node.value) || (Array.isArray(node.value) && node.value.every(isPlain)));
    const isPlain = (value) => ["string", "number", "boolean"].includes(typeof value);
    const kindOf = (node) =>
        node && typeof node === "object" && Object.keys(node).length === 1
            ? ["all", "any"].find((kind) => Array.isArray(node[kind])) : undefined;

    /* {kind, items: [test | {kind, items: [test]}]}, or null when the rows cannot show it. */
    const read = (tree, depth = 0) => {
        if (tree === null || (typeof tree === "object" && !Object.keys(tree).length)) {
            return { kind: "all", items: [] };
        }
        if (depth === 0 && isTest(tree)) return { kind: "all", items: [{ ...tree }] };
        const kind = kindOf(tree);
        if (!kind) return null;
        const items = tree[kind].map((node) =>
            isTest(node) ? { ...node } : depth === 0 ? read(node, 1) : null);
        return items.includes(null) ? null : { kind, items };
    };
    const write = (group) => ({
        [group.kind]: group.items.map((item) => (item.items ? write(item) : item)),
    });

    /* --- Values -------------------------------------------------------------------------- */

    const typeOf = (value) =>
        Array.isArray(value) ? "list" : typeof value === "string" ? "text" : typeof value;
    const isNumber = (text) => text.trim() !== "" && Number.isFinite(Number(text));
    const shown = (value) =>
        Array.isArray(value)
            ? value.map((item) => (typeof item === "string" && !isNumber(item) && !/[,"]/.test(item) && !["true", "false"].includes(item)
                ? item : JSON.stringify(item))).join(", ")
            : value === undefined ? "" : String(value);
    const parsedItem = (text) => {
        try {
            const value = JSON.parse(text);
            if (isPlain(value)) return value;
        } catch { /* not JSON: plain text */ }
        return text;
    };
    const parsed = (text, type) => {
        if (type === "number") return isNumber(text) ? Number(text) : text;
        if (type === "boolean") return text === "true";
        if (type === "list") {
            return (text.match(/"(?:[^"\\]|\\.)*"|[^,]+/g) || [])
                .map((item) => item.trim()).filter(Boolean).map(parsedItem);
        }
        return text;
    };

    /* --- The editor ---------------------------------------------------------------------- */

    const enhance = (box) => {
        if (box.dataset.ready || box.closest(".empty-form, .template.empty-form")) return;
        box.dataset.ready = "yes";
        const area = box.querySelector("textarea");
        const operators = box.querySelector("[data-operators]").innerHTML;
        const editor = element("div", { className: "ea-rows" });
        const advanced = element("button", { type: "button", className: "ea-link ea-small" });
        const note = element("p", { className: "ea-faint ea-small" });
        box.append(editor, note, advanced);
        let group = null;

        const save = () => {
            area.value = group.items.length ? JSON.stringify(write(group), null, 2) : "";
            area.dispatchEvent(new Event("input", { bubbles: true }));
        };

        const row = (items, test) => {
            const path = element("input", {
                type: "text", value: test.path, placeholder: "payload.order.total",
                className: "ea-input ea-path", spellcheck: false, ariaLabel: "Field",
            });
            path.setAttribute("list", "ea-paths");
            const operator = element("select", { className: "ea-input", ariaLabel: "Operator", innerHTML: operators });
            operator.value = test.op;
            const type = element("select", { className: "ea-input ea-type", ariaLabel: "Type of the value" },
                ...TYPES.map(([value, text]) => element("option", { value, textContent: text })));
            type.value = typeOf(test.value);
            const value = element("input", { type: "text", value: shown(test.value), className: "ea-input ea-value", ariaLabel: "Value" });
            const truth = element("select", { className: "ea-input ea-value", ariaLabel: "Value" },
                element("option", { value: "true", textContent: "yes (true)" }),
                element("option", { value: "false", textContent: "no (false)" }));
            truth.value = shown(test.value);
            let chosen = test.value !== "" && test.value !== undefined;

            const arrange = () => {
                const unary = operator.selectedOptions[0]?.dataset.unary !== undefined;
                if (LISTED.has(operator.value)) type.value = "list";
                else if (type.value === "list") type.value = "text";
                type.hidden = unary;
                type.disabled = LISTED.has(operator.value);
                value.hidden = unary || type.value === "boolean";
                truth.hidden = unary || type.value !== "boolean";
                value.inputMode = type.value === "number" ? "decimal" : "text";
                value.placeholder = type.value === "list" ? 'books, lamps, "42"' : "";
                value.classList.toggle("ea-wrong", type.value === "number" && value.value !== "" && !isNumber(value.value));
            };
            const changed = () => {
                arrange();
                test.path = path.value.trim();
                test.op = operator.value;
                if (operator.selectedOptions[0]?.dataset.unary !== undefined) delete test.value;
                else test.value = parsed(type.value === "boolean" ? truth.value : value.value, type.value);
                save();
            };
            path.addEventListener("input", changed);
            operator.addEventListener("change", () => {
                if (!chosen && ORDERED.has(operator.value)) type.value = "number";
                changed();
            });
            type.addEventListener("change", () => { chosen = true; changed(); });
            value.addEventListener("input", () => {
                if (!chosen && type.value !== "list") type.value = isNumber(value.value) ? "number" : "text";
                changed();
            });
            truth.addEventListener("change", changed);
            arrange();
            return element("div", { className: "ea-row" }, path, operator, type, value, truth,
                remover("Remove this condition", () => items.splice(items.indexOf(test), 1)));
        };

        const remover = (title, remove) => {
            const button = element("button", { type: "button", className: "ea-remove", title, ariaLabel: title }, icon("close"));
            button.addEventListener("click", () => { remove(); save(); draw(); });
            return button;
        };
        const adder = (text, add) => {
            const button = element("button", { type: "button", className: "ea-add" }, icon("add"), text);
            button.addEventListener("click", () => { add(); save(); draw(); });
            return button;
        };
        const fresh = () => ({ path: "", op: "eq", value: "" });

        const block = (items, inner, top) => {
            const kind = element("select", { className: "ea-input ea-kind", ariaLabel: "How the conditions are joined" },
                element("option", { value: "all", textContent: "all" }),
                element("option", { value: "any", textContent: "any" }));
            kind.value = inner.kind;
            kind.addEventListener("change", () => { inner.kind = kind.value; save(); });
            const head = element("div", { className: "ea-match" }, top ? "Only if " : "", kind, " of these hold");
            if (!top) head.append(remover("Remove this group", () => items.splice(items.indexOf(inner), 1)));
            const body = inner.items.map((item) => (item.items ? block(inner.items, item, false) : row(inner.items, item)));
            const foot = element("div", { className: "ea-adders" }, adder("Condition", () => inner.items.push(fresh())));
            if (top) foot.append(adder("Group", () => inner.items.push({ kind: "any", items: [fresh()] })));
            return element("div", { className: top ? "ea-group" : "ea-group ea-inner" }, ...(inner.items.length ? [head] : []), ...body, foot);
        };

        const draw = () => {
            editor.replaceChildren(
                ...(group.items.length ? [] : [element("p", { className: "ea-faint", textContent: "Every event of this type." })]),
                block(null, group, true));
        };

        const show = (json) => {
            let tree = null;
            let problem = "";
            try {
                tree = area.value.trim() ? JSON.parse(area.value) : {};
            } catch {
                problem = "This is not valid JSON.";
            }
            group = problem ? null : read(tree);
            if (!problem && !group) problem = "This condition has more levels than the rows can show.";
            const rows = group && !json;
            editor.hidden = !rows;
            area.hidden = rows;
            note.textContent = rows ? "" : problem;
            advanced.textContent = rows ? "Edit as JSON" : "Edit as rows";
            advanced.hidden = !rows && !group && !json;
            if (rows) draw();
        };
        advanced.addEventListener("click", () => show(!editor.hidden));
        show(false);
    };

    const enhanceAll = (root) => root.querySelectorAll("[data-condition]").forEach(enhance);

    document.addEventListener("DOMContentLoaded", () => {
        const known = ["payload.", "contact.email", "contact.name", "contact.attributes.", "user_id", "metadata.source", "metadata.region"];
        document.body.append(element("datalist", { id: "ea-paths" },
            ...known.map((value) => element("option", { value }))));
        enhanceAll(document);
    });
    document.addEventListener("formset:added", (event) => enhanceAll(event.target));
})();
