"""A density of a table's rows, what is unusual in them, and why.

It is a program of the README.
"""

import sklearn.datasets

from tfnvp.sklearn import FlowDensity

x = sklearn.datasets.load_breast_cancer().data
density = FlowDensity(random_state=0).fit(x)
density.score_samples(x)  # log p of each row, nats
density.predict(x)  # -1 where a row is unusual, by `contamination`
density.unusualness(x)  # to rank anomalies by
density.explain(x[:5])  # which columns make a row unusual
