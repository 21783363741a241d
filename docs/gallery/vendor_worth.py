"""What is a vendor worth? Five vendors sell labelled e-mails: one labels a third of them wrongly, one sells copies.

Each vendor is a group of rows. `values` divides among the vendors by how much all data together lower the loss on
test rows. Up to 16 groups are enumerated, so these Shapley values have no sampling error.
"""

import numpy as np
import polars as pl

from modelpred import ModelPred
from modelpred.dataset import load_table

SOLD = 100  # rows of each vendor

table = load_table("spam").rows.sample(fraction=1, shuffle=True, seed=0).drop("row_id")
original, test = table[: 4 * SOLD], table[-2000:]
copies = original[:SOLD]  # of what the vendor Ada sells
bought = pl.concat([original, copies])
vendors = np.repeat(["Ada", "Ben", "Cleo", "Dan, careless", "Eve, copies Ada"], SOLD)

labels = bought["is_spam"].to_numpy().copy()
careless = np.flatnonzero(vendors == "Dan, careless")
wrong = np.random.default_rng(0).choice(careless, SOLD // 3, replace=False)
labels[wrong] = 1 - labels[wrong]

mp = ModelPred("logistic", C=0.1).fit(
    bought.drop("is_spam"), labels, test=(test.drop("is_spam"), test["is_spam"])
)
values = mp.values(groups=vendors)
for row in values.sort("rank").iter_rows(named=True):
    print(f"{row['group']:<16} {row['value']:.3f}")

axis = values.plot()
axis.figure.set_size_inches(7, 3)
axis.set_xlabel("value: how much lower the loss on test rows")
axis.figure.savefig("vendor_worth.png")
