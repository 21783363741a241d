"""Which labels are wrong? Handwritten digits, 40 of which get the label of another digit.

`suspects` judges each label by models that were trained without the image, estimates how many labels are wrong,
and lists the likeliest first.
"""

import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits

from modelpred import ModelPred

ROWS, WRONG = 800, 40

images, digits = load_digits(return_X_y=True)
images, digits = images[:ROWS], digits[:ROWS]
generator = np.random.default_rng(0)
planted = generator.choice(ROWS, WRONG, replace=False)
labels = digits.copy()
labels[planted] = (digits[planted] + generator.integers(1, 10, WRONG)) % 10

mp = ModelPred("softmax", C=0.1).fit(images, labels)
found = mp.suspects(engine="exact")  # the same on every machine
first = found.rows.head(WRONG)
wrong = np.isin(first["position"], planted)
right = first["suggested"].cast(int).to_numpy() == digits[first["position"]]
print(f"wrong labels: {WRONG}, estimated {found.count:.0f} ({found.low:.0f} to {found.high:.0f})")
print(f"of the {WRONG} most suspicious images, {wrong.sum()} have a wrong label,")
print(f"and for {(wrong & right).sum()} of these the suggested label is the right one")

figure, axes = plt.subplots(2, 6, figsize=(9, 3.6), layout="constrained")
for axis, row in zip(axes.flat, first.head(12).iter_rows(named=True), strict=True):
    axis.imshow(images[row["position"]].reshape(8, 8), cmap="gray_r")
    axis.set(xticks=[], yticks=[])
    axis.set_title(f"labelled {row['label']}, looks like {row['suggested']}", size=8)
figure.savefig("wrong_labels.png")
