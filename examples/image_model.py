"""A density of images: trained on the digits, sampled, and asked for a log-likelihood."""

import tfnvp

images = tfnvp.data.load("digits", split="train", batch_size=64)
model = tfnvp.ImageRealNVP.from_preset("digits")
model.compile(optimizer="adam")
model.fit(images, epochs=30)

dist = model.distribution  # a tfd.TransformedDistribution, event shape [8, 8, 1]
x = dist.sample(16)  # intensities, of [0, 1] and a little beyond
dist.log_prob(x)  # nats
