"""Delete a person's rows: twelve of 400 e-mails get an invented sender, who asks to be forgotten.

`without` says what the deletion does to the model before it is done. `forget` then fits the rows that remain, so
that nothing saved afterwards holds the sender's rows.
"""

import tempfile
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt

from modelpred import ModelPred
from modelpred.dataset import load_table

table = load_table("spam").rows.sample(500, shuffle=True, seed=0)
rows, test = table[:400], table[400:]
person = [f"sender 17, e-mail {number}" for number in range(12)]
ids = [*person, *rows["row_id"][12:]]
X, y = rows.drop("row_id", "is_spam"), rows["is_spam"]
X_test, y_test = test.drop("row_id", "is_spam"), test["is_spam"]

mp = ModelPred("logistic", C=1.0, subsets=100).fit(X, y, ids=ids, test=(X_test, y_test))
edited = mp.without(person)
before = mp.predict_proba(X_test)[:, 1]
print(edited.compare())

mp.forget(person)
others = ModelPred("logistic", C=1.0).fit(X[12:], y[12:])
same = np.array_equal(mp.full_parameters, others.full_parameters)
print("equal to a model that never saw them:", same)
with tempfile.TemporaryDirectory() as folder:
    mp.save(folder)
    files = [path for path in Path(folder).rglob("*") if path.is_file()]
    naming = [path for path in files if b"sender 17" in path.read_bytes()]
    print(f"files that name the sender: {len(naming)} of {len(files)}")

after = mp.predict_proba(X_test)[:, 1]
figure, axis = plt.subplots(figsize=(4.5, 4.5), layout="constrained")
axis.axline((0, 0), slope=1, color="grey", lw=1)
axis.plot(before, after, "o", alpha=0.5)
axis.set(
    xlabel="probability of spam before", ylabel="after the sender was forgotten", aspect="equal"
)
figure.savefig("delete_a_person.png")
