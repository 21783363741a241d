"""Is the confidence real? Two models of the same 300 e-mails, with a weak and with a strong penalty.

`reliability` compares how sure predictions are with how often they are right, on rows that training never saw.
`predictive` gives each probability an interval. A bootstrap says how far this model depends on its rows;
`about="truth"` says where the true probability is.
"""

from matplotlib import pyplot as plt

from modelpred import ModelPred
from modelpred.dataset import load_table

table = load_table("spam").rows.sample(fraction=1, shuffle=True, seed=1).drop("row_id")
X, y = table[:300].drop("is_spam"), table[:300]["is_spam"]
X_test, y_test = table[300:].drop("is_spam"), table[300:]["is_spam"]

figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
for axis, C in zip(axes[:2], (100.0, 0.1), strict=True):
    mp = ModelPred("logistic", C=C).fit(X, y, test=(X_test, y_test))
    reliability = mp.reliability()
    surest = reliability.bins.row(-1, named=True)
    print(f"C = {C:g}: {reliability}")
    print(f"the surest are {surest['confidence']:.0%} sure and right in {surest['accuracy']:.0%}")
    reliability.plot(axis).set_title(f"C = {C:g}")

shown = X_test[:12]
for place, about in enumerate(("model", "truth")):
    sure = mp.predictive(shown, about=about)
    width = (sure.high - sure.low)[:, 1].mean()
    print(f"90% intervals about the {about} are {width:.2f} wide on average")
    for row in range(len(shown)):
        axes[2].vlines(
            row + 0.3 * place,
            sure.low[row, 1],
            sure.high[row, 1],
            color=f"C{place}",
            lw=3,
            label=None if row else f"about the {about}",
        )
axes[2].set(xlabel="test row", ylabel="probability of spam", title="90% intervals, C = 0.1")
axes[2].legend(frameon=False)
figure.savefig("confidence.png")
