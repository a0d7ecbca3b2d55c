"""The whole question in a dozen lines: how often does an attack made on an ingredient fool the merge?

Run it with: python examples/merge_and_attack.py (one or two minutes on two cores)
"""

from __future__ import annotations

import mergerisk as mr

tasks = mr.load_tasks("digits", "traffic_signs")
base = mr.load_encoder("starter-vit")

heads = {name: mr.linear_probe(base, task) for name, task in tasks.items()}
experts = {name: mr.fine_tune(base, heads[name], task, seed=0) for name, task in tasks.items()}
merged = mr.merging.create("ties", scaling=1.0).merge(base, experts)

surrogate = mr.Classifier(experts["digits"], heads["digits"])
target = merged.classifier("digits", heads["digits"])

test = tasks["digits"].test[:100]
attack = mr.attacks.create("mi_fgsm", steps=10)
adversarial = attack(surrogate, test.images[:], test.labels, epsilon=4 / 255, seed=0)

for name, model in {"surrogate (expert)": surrogate, "target (TIES merge)": target}.items():
    clean = (mr.transfer.predict(model, test.images) == test.labels).float().mean()
    attacked = (mr.transfer.predict(model, adversarial) == test.labels).float().mean()
    print(f"{name:20} accuracy {clean:.1%} clean, {attacked:.1%} under attack")
