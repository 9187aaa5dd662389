"""A density of the digits given their class, and by Bayes' rule a classifier."""

import tfnvp

images = tfnvp.data.load("digits", split="train", batch_size=64, labels=True)
model = tfnvp.ImageRealNVP.from_preset("digits_conditional")  # num_classes=10, label_dropout=0.1
model.compile(optimizer="adam")
model.fit(images, epochs=20)

x, y = next(iter(images))
model.log_prob(x, labels=y)  # log p(x | y); model.log_prob(x) is log p(x)
model.classify(x)  # p(y | x) by Bayes' rule, [64, 10]; prior=[...] for unequal classes
model.sample(10, labels=range(10))  # one of each
model.distribution_for(labels=y)  # a tfd.TransformedDistribution of batch shape [64]
