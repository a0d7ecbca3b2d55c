"""Files that a person might write, each with something that no run could do, and what is said of each."""

from __future__ import annotations

from typing import NamedTuple

FILES: dict[str, dict[str, str]] = {
    "study": {
        "name": "bad",
        "backbone": "starter-vit",
        "tasks": "[digits, letters]",
        "merging": "[ties]",
        "attacks": "[fgsm]",
        "budgets": "{epsilon: [2/255]}",
    },
    "audit": {
        "name": "bad",
        "base": "starter-vit",
        "ingredients": "{a: a, b: b}",
        "candidates": "[ties]",
        "images": "digits",
        "budgets": "{epsilon: [2/255]}",
    },
    "recipe": {"base": "base", "experts": "{a: a, b: b}", "method": "ties"},
    "claims": {"claims": "[{kind: rate, name: n, sentence: s, measure: asr, expect: higher, against: 0.5}]"},
}
"""Kind of file → its fields, in YAML, when nothing is wrong."""


class Bad(NamedTuple):
    """A file with a fault.

    Attributes:
        name: of the case.
        kind: of the file.
        fields: field → what is written there, in YAML.
        said: part of the line that is said of it.
    """

    name: str
    kind: str
    fields: dict[str, str]
    said: str

    @property
    def text(self) -> str:
        """The file."""
        return "".join(f"{field}: {value}\n" for field, value in (FILES[self.kind] | self.fields).items())


def _claim(**fields: str) -> dict[str, str]:
    usual = {"kind": "rate", "name": "n", "sentence": "s", "measure": "asr", "expect": "higher", "against": "0.5"}
    return {"claims": "[{" + ", ".join(f"{name}: {value}" for name, value in (usual | fields).items()) + "}]"}


def _budgets(**fields: str) -> dict[str, str]:
    return {"budgets": "{" + ", ".join(f"{n}: {v}" for n, v in ({"epsilon": "[2/255]"} | fields).items()) + "}"}


def _bomb(deep: int, merged: str = "") -> dict[str, str]:
    """A mapping (or list) of nine of the one before, so deep."""
    written = {"x0": "&x0 {k: v}"}
    for level in range(1, deep):
        nine = ", ".join([f"*x{level - 1}"] * 9)
        written[f"x{level}"] = f"&x{level} {{<<: [{nine}], k{level}: v}}" if merged else f"&x{level} [{nine}]"
    return written


def _http(**fields: str) -> dict[str, str]:
    usual = {"label": "t", "http": "{digits: 'http://127.0.0.1:1/'}", "queries": "5"}
    return {"targets": "[{" + ", ".join(f"{name}: {value}" for name, value in (usual | fields).items()) + "}]"}


HUGE, TINY, LONG = "1e999999999", "1e-999999999", "n" * 5000

BAD = [
    # Keys
    *(
        Bad(f"{kind}: key {key}", kind, {field: f"{{{key}: x}}"}, "must be text, as '")
        for kind, field in (("study", "heads"), ("audit", "ingredients"), ("recipe", "experts"))
        for key in ("1", "1.5", "no", "~", "2001-01-01")
    ),
    Bad("study: key at the top", "study", {"7": "x"}, "key 7 must be text, as '7'"),
    Bad("study: key of a task", "study", {"tasks": "[{task: digits, 3: x}]"}, "key 3 must be text"),
    Bad("study: key of a method", "study", {"merging": "[{method: ties, 3: x}]"}, "key 3 must be text"),
    Bad("study: key of an attack", "study", {"attacks": "[{attack: fgsm, no: x}]"}, "key no must be text"),
    Bad("claims: key", "claims", _claim(where="{1: x}"), "key 1 must be text"),
    Bad("claims: key of a claim", "claims", _claim(**{"1": "x"}), "key 1 must be text"),
    Bad("claims: kind is a list", "claims", _claim(kind="[[x]]"), "unknown kind"),
    Bad("study: list as key", "study", {"heads": "{[a]: x}"}, "unhashable key"),
    # Aliases
    Bad("study: holds itself", "study", {"heads": "&h {files: *h}"}, "holds itself"),
    Bad("study: list in itself", "study", {"merging": "&m [ties, *m]"}, "holds itself"),
    Bad("audit: holds itself", "audit", {"images": "&h {a: *h}"}, "holds itself"),
    Bad("recipe: holds itself", "recipe", {"layers": "&h {a: *h}"}, "holds itself"),
    Bad("claims: holds itself", "claims", {"claims": "&h [*h]"}, "holds itself"),
    *(Bad(f"{kind}: lists of lists", kind, _bomb(12), "aliases") for kind in FILES),
    *(Bad(f"{kind}: merge keys", kind, _bomb(9, "<<"), "aliases") for kind in FILES),
    Bad("study: deep", "study", {"heads": "[" * 150 + "]" * 150}, "nested more than"),
    # Texts
    *(
        Bad(f"{kind}: {what} in {field}", kind, {field: value}, said)
        for kind, field in (
            ("study", "name"), ("study", "backbone"), ("study", "description"), ("audit", "name"), ("audit", "base"),
            ("audit", "merged"), ("recipe", "base"), ("recipe", "include"), ("claims", "include"),
        )
        for what, value, said in (
            ("NUL", r'"a\0b"', "U+0000"),
            ("half a character", r'"a\ud800b"', "U+D800"),
            ("an escape", r'"a\eb"', "U+001B"),
        )
    ),
    Bad("study: NUL in a label", "study", {"merging": r'[{method: ties, label: "a\0"}]'}, "U+0000"),
    Bad("study: surrogate in a label", "study", {"attacks": r'[{attack: fgsm, label: "\udfff"}]'}, "U+DFFF"),
    Bad("study: surrogate in a key", "study", {"ingredients": r'{"\udc80": a}'}, "U+DC80"),
    Bad("claims: surrogate in a filter", "claims", _claim(where=r'{task: "\ud83d"}'), "U+D83D"),
    Bad("claims: NUL in a sentence", "claims", _claim(sentence=r'"\0"'), "U+0000"),
    # Lengths
    Bad("study: long name", "study", {"name": LONG}, "name: "),
    Bad("study: long name in UTF-8", "study", {"name": "猫" * 80}, "name: "),
    Bad("study: name with a slash", "study", {"name": "../bad"}, "name: "),
    Bad("audit: long name", "audit", {"name": LONG}, "name: "),
    Bad("audit: long ingredient", "audit", {"ingredients": f"{{{LONG[:900]}: a, b: b}}"}, "ingredients"),
    Bad("recipe: long expert", "recipe", {"experts": f"{{{LONG[:900]}: a, b: b}}"}, "experts: "),
    Bad("study: long label", "study", {"merging": f"[{{method: ties, label: {LONG[:900]}}}]"}, "label: "),
    Bad("study: long task", "study", {"tasks": f"[{LONG}]"}, "tasks[0]"),
    Bad("study: long file", "study", {"tasks": f"[{LONG}.npz]"}, "tasks[0]"),
    Bad("study: long task name", "study", {"tasks": f"[{{task: digits, name: {LONG[:900]}}}]"}, "name: "),
    Bad("study: long backbone", "study", {"backbone": LONG}, "backbone: "),
    Bad("study: long folder", "study", {"backbone": f"./{LONG[:300]}/x"}, "backbone: "),
    Bad("study: long expert", "study", {"experts": f"{{from: files, files: {{digits: ./{LONG[:300]}}}}}"}, "experts"),
    Bad("study: long label of a target", "study", _http(label=LONG[:900]), "label: "),
    Bad("audit: long base", "audit", {"base": LONG}, "base: "),
    Bad("audit: long images", "audit", {"images": f"./{LONG[:300]}"}, "images"),
    Bad("recipe: long base", "recipe", {"base": LONG}, "base: "),
    Bad("recipe: long folder", "recipe", {"base": f"./{LONG[:300]}"}, "base: "),
    Bad("study: long method", "study", {"merging": f"[{LONG}]"}, "merging[0]"),
    Bad("study: very long text", "study", {"description": "x" * 200_000}, "description: "),
    # Budgets
    *(
        Bad(f"{kind}: ε of {value[:20]}", kind, _budgets(epsilon=f"[{value}]"), "digits" if value == "1" * 5000 else "epsilon")
        for kind in ("study", "audit")
        for value in (
            HUGE, TINY, f"1/{HUGE}", f"{TINY}/{TINY}", f"'{HUGE}/{HUGE}'", "1e400", "1e-400", "1e-320", "1e30", ".inf",
            ".nan", "nan", "inf", "1" * 5000, f"'{'1' * 5000}/{'1' * 5000}'", "0", "-1", "1/0", "''", "[]", "true",
        )
    ),
    Bad("study: L2 of 1e30", "study", _budgets(epsilon="[1e30]", norm="l2"), "epsilon"),
    Bad("study: no end of budgets", "study", _budgets(epsilon=str([i / 9999 for i in range(1, 9999)])), "epsilon"),
    # Numbers
    Bad("study: steps", "study", _budgets(steps="1000000000000"), "budgets.steps"),
    Bad("study: steps beyond 64 bits", "study", _budgets(steps="1" + "0" * 30), "budgets.steps"),
    Bad("study: steps of thousands of digits", "study", _budgets(steps="1" * 5000), "digits"),
    Bad("study: steps in hexadecimal", "study", _budgets(steps="0x" + "f" * 5000), "digits"),
    Bad("study: steps as a float", "study", _budgets(steps="1.0e+30"), "budgets.steps"),
    Bad("study: after", "study", _budgets(after="[1000000000000]"), "budgets.after"),
    Bad("study: an attack's steps", "study", {"attacks": "[{attack: i_fgsm, steps: 1000000000000}]"}, "steps"),
    Bad("study: an attack's decay", "study", {"attacks": "[{attack: mi_fgsm, decay: 1.0e+300}]"}, "decay"),
    Bad("study: a method's scaling", "study", {"merging": "[{method: task_arithmetic, scaling: 1.0e+300}]"}, "scaling"),
    Bad("study: a method's steps", "study", {"merging": "[{method: adamerging, steps: 1000000000000}]"}, "steps"),
    Bad("recipe: seed", "recipe", {"seed": "1" + "0" * 30}, "seed"),
    *(
        Bad(f"{kind}: image_size of {value}", kind, {"image_size": value}, "image_size")
        for kind in ("study", "audit")
        for value in ("4096", "1000000000", "1" + "0" * 30, "0", "-1", "1.0e+30", ".inf")
    ),
    Bad("study: size of a task", "study", {"tasks": "[{task: ./a, size: 1000000000}]"}, "size"),
    Bad("study: limit of a task", "study", {"tasks": f"[{{task: ./a, limit: {{test: 1{'0' * 30}}}}}]"}, "limit"),
    *(
        Bad(f"study: {name} of {value}", "study", {"experts": f"{{fine_tune: {{{name}: {value}}}}}"}, name)
        for name, value in (
            ("learning_rate", "1.0e+38"), ("learning_rate", ".inf"),
            ("batch_size", "1.0e+30"), ("batch_size", "1" + "0" * 30), ("epochs", "1000000000000"),
            ("weight_decay", "1.0e+38"),
        )
    ),
    Bad("study: images_per_task", "study", {"images_per_task": "1" + "0" * 30}, "images_per_task"),
    Bad("audit: images_per_task", "audit", {"images_per_task": "1" + "0" * 30}, "images_per_task"),
    Bad("study: seeds", "study", {"seeds": "[1" + "0" * 30 + "]"}, "seeds[0]"),
    Bad("audit: seed", "audit", {"seed": "1" + "0" * 30}, "seed"),
    Bad("study: regularization", "study", {"heads": "{regularization: 1.0e+300}"}, "regularization"),
    Bad("study: timeout", "study", _http(timeout="1.0e+300"), "timeout"),
    Bad("study: retries", "study", _http(retries="1000000000000"), "retries"),
    Bad("study: batch_size of a target", "study", _http(batch_size="1000000000000"), "batch_size"),
    Bad("study: queries", "study", _http(queries="1" + "0" * 30), "queries"),
    Bad("study: std", "study", {"preprocessing": "{mean: [0, 0, 0], std: [1.0e-300, 1, 1]}"}, "std"),
    # Gates and claims
    *(
        Bad(f"audit: gate {gate[:24]}", "audit", {"fail_if": f"['{gate}']"}, "fail_if[0]: " if len(gate) > 200 else "gate 'asr")
        for gate in (
            f"asr > {HUGE}", f"asr > {TINY}", f"asr > 1/{HUGE}", f"asr > 0.5 at {HUGE}", f"asr > 0.5 at {TINY}",
            f"asr > {'1' * 5000}", f"asr > {HUGE}%", "asr > nan", "asr > inf", f"asr > 0.5 from {LONG}",
        )
    ),
    *(
        Bad(f"claims: ε of {value}", "claims", _claim(where=f"{{epsilon: {value}}}"), "where")
        for value in (HUGE, TINY, f"1/{HUGE}", "1e400", "1e-400", ".inf", ".nan", "0", "-1")
    ),
    *(
        Bad(f"claims: {field} of {value}", "claims", _claim(**{field: value}), f"{field}: ")
        for field in ("against", "margin")
        for value in (".inf", ".nan", "1.0e+300", "1" + "0" * 300)
    ),
    Bad("claims: long filter", "claims", _claim(where=f"{{task: {'x' * 200_000}}}"), "where.task: "),
    Bad("claims: long name", "claims", _claim(name=LONG), "claims[0].name: "),
    Bad("claims: long measure", "claims", _claim(measure=LONG), "measure"),
]  # fmt: skip

ADVICE: dict[str, str] = {
    "a key is text": r"must be text, as '",
    "what is known": r"\(known: ",
    "no alias holds itself": r"an alias holds itself|found unhashable key",
    "fewer values": r"more than 200,000 values",
    "less deep": r"nested more than 40 deep",
    "characters": r"a text holds (a character that cannot be printed|half of a character), U\+",
    "names of files": r"holds a name of \d+ bytes; file systems take 255",
    "names of folders": r"give a name (of at most 200 bytes|without slashes)",
    "texts": r"\d+ characters; at most 10,000",
    "numbers": r"must be a number( or a fraction such as 8/255)?\b",
    "digits": r"a text of \d+ digits for a number",
    "finite numbers": r"must be a finite number",
    "whole numbers": r"is beyond what a whole number may be",
    "from and to": r"must be from 1e-09 to 10000\b",
    "more than nothing": r"(must be above|greater than) 0\b",
    "at least": r"greater than or equal to 0\.000001\b",
    "at most": r"(less than or equal to|must be at most) \d",
    "how many": r"at most 1000 values",
    "lower": r"the largest number of the tensors' dtype; lower it",
}
"""What a message says to write instead, by kind → pattern of its words. Each is followed in ``test_advice.py``."""
