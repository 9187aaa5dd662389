"""One file a data set: what is trained on what. Each defines `recipe()`, giving a `Recipe`."""
