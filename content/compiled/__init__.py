"""Parsed templates as Python functions: what python-liquid's nodes print, at a fraction of the
time.

**How.** `compile_nodes` walks the nodes of one part, after `sandbox` has tamed and `escaping` has
placed them, and writes the source of one function: `nodes` the statements, `expressions` the
expressions, `runtime` what that code calls. A node that it does not know, or one with an
expression that it does not know, stays python-liquid's and is called in its place, over the same
context, budget and output.

**When something is odd, python-liquid decides.** The code never explains an error. On whatever it
cannot do exactly as python-liquid would — a filter that refuses its values, a budget that is
spent, an output that may have grown too long — it stops, and `running` renders the parts once
more by python-liquid, from the start, which then fails with its own message and line or gives the
text. So there is one way of failing, and the code owes two things only: when it comes to its end,
text and spent budget are python-liquid's; and it comes to its end only where python-liquid does.

**Why it is safe to run.** The source is put together from fixed pieces of this package and from
numbers made here. Nothing of a template is ever written into it: its texts, names, numbers,
filters and even the names of keyword arguments are constants `k0`, `k1`, … that the code finds in
its namespace, and that namespace holds nothing but them and `runtime`'s helpers: no builtins. So a
template decides which of those pieces stand in which order and no more, and data is never code:
the function meets it as arguments, through the same plain values, the same look-ups (never a
Python attribute) and the same counting as python-liquid.
"""
