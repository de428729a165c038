"""Commands around the bundles; they import `common`, and nothing imports them."""
